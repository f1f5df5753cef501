"""What making a group imports, in processes of their own."""

import subprocess
import sys

from support.torchruns import clean_environment

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


def run(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_group_does_not_import_the_compiler() -> None:
    run(_GROUP + _NO_DYNAMO)


def test_the_compiler_leaves_the_groups_methods_alone_once_it_is_imported() -> None:
    run(_GROUP + _THEN_DYNAMO)
