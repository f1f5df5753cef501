"""Workers whose launcher sets neither RANK nor LOCAL_RANK: what they are comes from the group."""

import json
import socket
import sys
from pathlib import Path

import pytest

from support.torchruns import Ended, clean_environment, finish

LIMIT_S = 240.0
pytestmark = pytest.mark.timeout(LIMIT_S + 60)

SCRIPT = Path(__file__).with_name("spawned.py")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has now."""
    for first in range(24000, 60000, 97):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def spawn(folder: Path, port: int, **more: str) -> Ended:
    env = clean_environment() | {
        "WIRESUM_METRICS": f"127.0.0.1:{port}",
        "WIRESUM_DUMP": str(folder / "dump.{rank}"),
        "WIRESUM_LOG_FORMAT": "json",
        "WIRESUM_AS_DEFAULT": "1",
        **more,
    }
    for name in {"RANK", "LOCAL_RANK", "WORLD_SIZE"} - more.keys():
        env.pop(name, None)
    return finish([sys.executable, str(SCRIPT), str(folder), str(port)], env, LIMIT_S)


@pytest.mark.parametrize("more", [{}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}])
def test_spawned_workers_have_ports_dumps_and_logs_of_their_own(
    tmp_path: Path, more: dict[str, str]
) -> None:
    port = free_ports(2)
    ended = spawn(tmp_path, port, **more)
    assert ended.status == 0, ended.output
    for rank in (0, 1):
        assert "wiresum_agent_collectives_total" in (tmp_path / f"metrics{rank}").read_text()
        dump = json.loads((tmp_path / f"dump.{rank}").read_text())
        assert dump["fallback"]
    pids = {json.loads((tmp_path / f"dump.{rank}").read_text())["pid"] for rank in (0, 1)}
    assert len(pids) == 2
    lines = [json.loads(line) for line in ended.output.splitlines() if line.startswith("{")]
    served = {line["rank"]: line["message"] for line in lines if "metrics at" in line["message"]}
    assert served == {rank: f"metrics at http://127.0.0.1:{port + rank}/metrics" for rank in (0, 1)}
    assert "no metrics of this worker" not in ended.output
    assert ended.output.count("--as-default") == 1


def test_a_port_that_is_taken_costs_one_warning_and_one_workers_metrics(tmp_path: Path) -> None:
    port = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        ended = spawn(tmp_path, port)
    assert ended.status == 0, ended.output
    assert "wiresum_agent_collectives_total" in (tmp_path / "metrics0").read_text()
    assert "refused" in (tmp_path / "metrics1").read_text()
    lines = [json.loads(line) for line in ended.output.splitlines() if line.startswith("{")]
    warned = [line for line in lines if "no metrics of this worker" in line["message"]]
    assert [(line["rank"], line["level"]) for line in warned] == [(1, "warning")]
