"""A torchrun on each of three hosts of a rack, started as the page on many hosts says."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from support.rack_process import Up
from support.training import spawned

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "many-hosts.md"
SCRIPT = Path(__file__).with_name("node.py")
LIMIT_S = 400.0
HOSTS = 3
OWN = {
    "--controller controller.example.net:7500 --ca ca.pem --token-file vision.token": "",
    "--nproc-per-node 8": "--nproc-per-node 1",
    "node0.example.net": "10.0.0.1",
}
"""What is different on a rack: its nodes' environment says where the controller is."""


def of_the_page(rank: int, *, named: bool) -> list[str]:
    """The command of the page for the host of that rank."""
    (text,) = re.findall(r"^wiresum run .*?\\\n.*?$", PAGE.read_text(), re.M)
    script = shlex.join(["--no-python", *spawned(1), str(SCRIPT)])
    for theirs, ours in {**OWN, "--node-rank 0": f"--node-rank {rank}", "train.py": script}.items():
        assert theirs in text, "the page has another command"
        text = text.replace(theirs, ours)
    if not named:
        text = text.replace("--name resnet-7", "")
    return shlex.split(text.replace("\\\n", " "))


@pytest.mark.parametrize(
    "kind",
    ["soft", pytest.param("bmv2", marks=[pytest.mark.bmv2, pytest.mark.slow])],
    indirect=True,
)
def test_three_torchruns_share_a_job_to_their_ends(up: Callable[..., Up], kind: str) -> None:
    """Without ``--name``: the page's other case, names alone, is that of the launcher's tests."""
    rack = up("--switch", kind, "--workers", str(HOSTS))
    nodes = [rack.start(f"w{rank}", *of_the_page(rank, named=False)) for rank in range(HOSTS)]
    ended = [node.communicate(timeout=LIMIT_S) for node in nodes]
    for rank, (node, (out, err)) in enumerate(zip(nodes, ended, strict=True)):
        assert node.returncode == 0, out + err
        assert f"rank {rank} of {HOSTS} has its sums" in out
        assert "wiresum: job 10.0.0.1-29500 on switch" in err
        (last,) = re.findall(r"^wiresum: 1 rank here: (.*)$", err, re.M)
        pair = "0" if rank == 2 else "1 collective (28 bytes)"
        assert last.startswith(f"5 collectives (60 kB) over the switch, {pair} over the ranks"), (
            last
        )
        assert last.endswith(", 0 over the fallback"), last
    jobs = json.loads(rack.on("w0", "wiresum", "job", "list", "--json"))
    assert [(job["name"], job["state"]) for job in jobs] == [("10.0.0.1-29500", "released")]
    assert rack.switch()["free_slots"] == rack.switch()["slots"]
