"""What making a group imports, and how torch finds the backend; in processes of their own."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torch

from support.torchruns import clean_environment
from wiresum.host_agent.backend.as_default import replaces

_GROUP = """
import sys, torch, torch.distributed as dist
dist.init_process_group("wiresum", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(3))
"""
_NO_DYNAMO = """
heavy = {"torch._dynamo", "sympy"} & set(sys.modules)
assert not heavy, heavy
"""
_THEN_DYNAMO = """
import torch._dynamo
from wiresum.host_agent.backend.collectives import Collectives
for name in ("allreduce", "broadcast", "_allgather_base"):
    assert getattr(Collectives, name)._torchdynamo_disable, name
dist.all_reduce(torch.ones(3))
compiled = torch.compile(lambda x: x + 1, backend="eager")
assert compiled(torch.ones(1)).item() == 2
"""


_BROKEN = """
import sys
sys.modules[{missing!r}] = None
import torch
import torch.distributed as dist
assert (torch.ones(2) + 1).tolist() == [2, 2]
assert "wiresum" not in dist.Backend.backend_list
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(2))
"""


_BY_NAME = """
dist.destroy_process_group()
try:
    dist.init_process_group("wiresum", store=dist.HashStore(), rank=0, world_size=1)
except ImportError as error:
    assert "wiresum.host_agent.backend.registration" in str(error)
else:
    raise AssertionError("it is broken")
"""


def run(code: str, **more: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment() | more,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_a_group_does_not_import_the_compiler() -> None:
    run(_GROUP + _NO_DYNAMO)


def test_the_compiler_leaves_the_groups_methods_alone_once_it_is_imported() -> None:
    run(_GROUP + _THEN_DYNAMO)


def test_torch_takes_every_spelling_of_the_backend() -> None:
    run(
        "import torch, torch.distributed as dist\n"
        "for name in ('wiresum', 'cpu:wiresum', 'cuda:wiresum', 'cpu:wiresum,cuda:wiresum'):\n"
        "    dist.init_process_group(name, store=dist.HashStore(), rank=0, world_size=1)\n"
        "    for group in (dist.group.WORLD, dist.new_group([0])):\n"
        "        assert type(group).__name__.startswith('Wiresum'), (name, group)\n"
        "        dist.all_reduce(torch.ones(3), group=group)\n"
        "        dist.all_gather_object([None], name, group=group)\n"
        "    dist.destroy_process_group()\n"
    )


def test_torch_works_where_wiresum_is_broken() -> None:
    said = run(_BROKEN.format(missing="wiresum.host_agent.backend.registration"))
    assert said.count("the torch.distributed backend could not be registered") == 1


def test_torch_2_14_finds_the_backend_by_its_name() -> None:
    if not hasattr(torch.distributed.Backend, "_ensure_backend_registered"):
        pytest.skip("this torch is older than 2.14")
    run(_GROUP, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    run(_BROKEN.format(missing="wiresum.host_agent.backend.registration") + _BY_NAME)


def test_both_entry_points_register_the_backend() -> None:
    for group in ("torch.backends", "torch.distributed.backends"):
        (point,) = [each for each in entry_points(group=group) if each.name == "wiresum"]
        run(
            "import torch.distributed as dist; from importlib.metadata import EntryPoint\n"
            "assert 'wiresum' not in dist.Backend.backend_list\n"
            f"register = EntryPoint('wiresum', {point.value!r}, {group!r}).load()\n"
            "register(); register()\n"
            "assert 'wiresum' in dist.Backend.backend_list",
            TORCH_DEVICE_BACKEND_AUTOLOAD="0",
        )


@pytest.mark.parametrize(
    ("backend", "replaced"),
    [
        (None, True), ("undefined", True), ("gloo", True), ("GLOO", True), ("cpu:gloo", True),
        ("cpu:gloo,cuda:nccl", True), ("cuda:nccl,cpu:gloo", True), ("cuda:gloo, cpu:gloo", True),
        ("nccl", False), ("cuda:nccl", False), ("cpu:mpi,cuda:nccl", False), ("mpi", False),
        ("cpu:gloo,xpu:xccl", False), ("cpu:gloo,cpu:gloo", False), ("", False),
    ],
)  # fmt: skip
def test_as_default_knows_every_spelling_of_what_it_replaces(backend, replaced) -> None:
    assert replaces(backend) == replaced
