"""Workers whose launcher sets neither RANK nor LOCAL_RANK: what they are comes from the group."""

import json
import socket
import sys
from pathlib import Path

import pytest

from support.torchruns import Ended, clean_environment, finish, fresh_session

LIMIT_S = 240.0
pytestmark = pytest.mark.timeout(LIMIT_S + 60)

SCRIPT = Path(__file__).with_name("spawned.py")
STARTED = Path(__file__).with_name("started.py")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has now.

    The kernel gives them to nobody who asks for any port: they are below those (32768).
    """
    for first in range(24000, 32000, 97):
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


def start(folder: Path, method: str, env: dict[str, str]) -> Ended:
    return finish(
        [sys.executable, str(STARTED), str(folder), method, str(free_ports(2))], env, LIMIT_S
    )


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_without_torchrun_use_the_switch_over_stores_of_every_kind(
    tmp_path: Path, method: str
) -> None:
    if method == "spawn":
        ended = start(tmp_path, method, clean_environment())  # it makes a Session
    else:
        with fresh_session() as session:  # as wiresum run does
            ended = start(tmp_path, method, session.variables())
    assert ended.status == 0, ended.output
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        why = found.pop("why")
        assert list(found) == ["file", "tcp", "env"]
        for name, counts in found.items():
            assert counts == {
                "world": 1, "everybody": 1, "another thread": 0, "any thread": 0,
                "world again": 1, "neither": 0, "world in a thread": 1, "everybody after that": 0,
            }, name  # fmt: skip
        assert any("while the thread that made the default group" in each for each in why)
        assert "the group has one rank" in why


def test_a_fork_of_a_process_with_a_session_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    ended = start(tmp_path, "fork", clean_environment())
    assert ended.status == 1
    assert "gRPC does not survive fork()" in ended.output
