"""What the launcher reads of a command: whether it is one of several nodes, and of which run."""

import socket

import pytest

from wiresum.controller.rules.checks import check_name
from wiresum.host_agent.launcher.rendezvous import rendezvous

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("command", "count", "place"),
    [
        ("torchrun --nnodes 3 --node-rank 1 --master-addr 10.0.0.1 --master-port 29501 t.py", "3",
         "10.0.0.1:29501"),
        ("torchrun --nnodes=2 --master_addr=Head t.py --nnodes 1 --master-port 7", "2",
         "head:29500"),
        ("torchrun --nnodes 1:4 --rdzv-backend c10d --rdzv-id run-7 --rdzv-endpoint h:1 t.py",
         "1:4", "run-7:h:1"),
        ("env A=b /opt/bin/torchrun --max-restarts 3 --nnodes 2 --rdzv-endpoint [fe::1]:9 -m t",
         "2", "[fe::1]:9"),
        ("python3 -u -m torch.distributed.run --nnodes 2 --master-addr localhost t.py", "2",
         f"{HERE}:29500"),
        ("torchrun --no-python --nnodes 2 --rdzv-endpoint 127.0.0.1:4 t.sh", "2", f"{HERE}:4"),
    ],
)  # fmt: skip
def test_the_nodes_of_a_torchrun(command: str, count: str, place: str) -> None:
    found = rendezvous(command.split(), {"RANK": "0", "WORLD_SIZE": "9", "MASTER_ADDR": "x"})
    assert found is not None
    assert (found.count, found.place) == (count, place)


@pytest.mark.parametrize(
    "command",
    [
        "torchrun --nproc-per-node 4 t.py --nnodes 2",
        "torchrun --standalone --nnodes 2 t.py",
        "torchrun --nnodes 1 --master-addr 10.0.0.1 t.py",
        "torchrun --nnodes 0:1 t.py",
        "torchrun",
        "torchrun --nnodes",
        "python t.py torch.distributed.run",
        "true",
        "",
    ],
)
def test_a_command_that_is_alone(command: str) -> None:
    # A pod of several has such variables; torchrun itself looks at its own only.
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    assert rendezvous(command.split(), env) is None


def test_torchruns_own_variables_and_those_of_one_rank() -> None:
    env = {"PET_NNODES": "2", "PET_MASTER_ADDR": "h", "PET_MASTER_PORT": "5", "PET_RDZV_ID": "none"}
    found = rendezvous(["torchrun", "t.py"], env)
    assert found is not None
    assert found.place == "h:5"
    assert rendezvous(["torchrun", "t.py"], env | {"PET_STANDALONE": "1"}) is None
    rank = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "5"}
    found = rendezvous(["python", "t.py"], rank)
    assert found is not None
    assert (found.count, found.place) == ("4", "h:5")
    assert rendezvous(["python", "t.py"], rank | {"WORLD_SIZE": "1"}) is None


def test_names_can_be_read_and_are_names_for_the_controller() -> None:
    def name(endpoint: str, run: str = "none") -> str:
        command = ["torchrun", "--nnodes", "2", "--rdzv-endpoint", endpoint, "--rdzv-id", run, "t"]
        found = rendezvous(command, {})
        assert found is not None
        check_name(found.name, "job")
        return found.name

    assert name("10.0.0.1:29500") == "10.0.0.1-29500"
    assert name("h:1", "run-7") == "run-7-h-1"
    odd = [name(f"[fe80::{n}]:1", run) for n in ("1", "2") for run in ("a b", "a:b", "x" * 99, "ä")]
    assert len(set(odd)) == len(odd), "two runs share no name"
