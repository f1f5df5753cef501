"""``wiresum run`` from the outside: what it starts, passes on and leaves behind."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.pids import LIMIT_S, wait_gone
from support.torchruns import clean_environment, finish, fresh_session
from support.training import spawned, torchrun_of_forks
from wiresum.controller.client import ControllerClient
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.environment import Carrier, Transport
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import LeaseLost, Session

GRACE_S = 4.0
"""Longer than the controller waits for a launcher whose call has broken off."""

SCENARIOS = Path(__file__).parents[1] / "backend" / "scenarios.py"


def wiresum_run(*options: str) -> list[str]:
    return [sys.executable, "-m", "wiresum.cli.main", "run", *options]


def errors(output: str) -> list[str]:
    """The lines that say why it failed: neither the first nor the last that a run always has."""
    assert "Traceback" not in output, output
    usual = ("wiresum: job ", "wiresum: nothing used the switch: ")
    return [line for line in output.splitlines() if not line.startswith(usual)]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_passed_on(
    controller: str, env: dict[str, str], script: str, status: int
) -> None:
    command = wiresum_run("--controller", controller, "--", "sh", "-c", script)
    ended = finish(command, env)
    assert ended.status == status, ended.output
    assert errors(ended.output) == []


def test_the_lease_is_handed_over_and_released(
    controller: str, env: dict[str, str], token: str, tmp_path: Path
) -> None:
    (tmp_path / "ca").write_text("of no use without TLS")
    env |= {"WIRESUM_CA": str(tmp_path / "ca"), "WIRESUM_ADMIN_TOKEN": "the operator's"}
    options = ["--controller", controller, "--field", "16", "--name", "mine", "--timeout", "33"]
    command = wiresum_run(*options, "--as-default", "--", "env")
    ended = finish(command, env)
    assert ended.status == 0, ended.output
    variables = dict(line.split("=", 1) for line in ended.output.splitlines() if "=" in line)
    with ControllerClient(controller, token=token) as client:
        job = client.get_job("mine")
    assert variables["WIRESUM_JOB"] == job.id
    assert variables["WIRESUM_CONTROLLER"] == controller
    assert variables["WIRESUM_FIELD"] == "16"
    assert variables["WIRESUM_TIMEOUT"] == "33"
    assert variables["WIRESUM_AS_DEFAULT"] == "1"
    assert variables["WIRESUM_CA"] == str(tmp_path / "ca")
    # The job's token and no other: who runs the command must not get at the tenant's other jobs.
    assert variables["WIRESUM_JOB_TOKEN"]
    assert [name for name in variables if "TOKEN" in name] == ["WIRESUM_JOB_TOKEN"]
    assert token not in ended.output
    assert "the operator's" not in ended.output
    assert job.state == pb.JOB_STATE_RELEASED


def test_the_controller_may_come_from_the_environment(controller: str, env: dict[str, str]) -> None:
    env |= {"WIRESUM_CONTROLLER": controller}
    ended = finish(wiresum_run("--", "sh", "-c", "echo at $WIRESUM_CONTROLLER"), env)
    assert f"at {controller}" in ended.output


@pytest.mark.parametrize(
    ("options", "given", "handed_over"),
    [
        ([], "", ""),
        ([], "/a/socket", "/a/socket"),
        (["--transport", "auto"], "/a/socket", "/a/socket"),
        (["--transport", "shm"], "/a/socket", "/a/socket"),
        (["--transport", "udp"], "/a/socket", ""),
    ],
)
def test_the_transport_is_handed_over(
    controller: str, env: dict[str, str], options: list[str], given: str, handed_over: str
) -> None:
    env |= {"WIRESUM_SHM": given}
    command = wiresum_run("--controller", controller, *options)
    ended = finish([*command, "--", "sh", "-c", 'echo "through ($WIRESUM_SHM)"'], env)
    assert f"through ({handed_over})\n" in ended.output


@pytest.mark.parametrize("transport", list(Transport))
def test_a_switch_of_its_own_and_the_transport(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another switch's socket in the environment is none of its business."""
    monkeypatch.setenv("WIRESUM_SHM", "/another/switch")
    monkeypatch.delenv("WIRESUM_TOKEN", raising=False)
    with Session(JobOptions(transport=transport)) as session:
        path = session.variables().get("WIRESUM_SHM")
        assert session.embedded is not None
        if transport is Transport.UDP:
            assert path is None
            return
        assert path is not None
        assert path == session.embedded.shm
        assert Path(path).is_socket()
    assert list(Path(path).parent.glob(f"{Path(path).name}*")) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--carrier", "switch", "--controller", "127.0.0.1:1", "--", "true"],
            1,
            "127.0.0.1:1 cannot be reached",
        ),
        (["--controller", "nonsense", "--", "true"], 2, "'nonsense' is not HOST:PORT"),
        (["--", "no-such-command"], 127, "command 'no-such-command' not found"),
        ([], 127, "no command"),
        (["--field", "12", "--", "true"], 2, "--field 12: it must be 32, 16 or 8"),
        (["--timeout", "0", "--", "true"], 2, "--timeout 0"),
        (
            ["--", "true", "torchrun", "--nnodes", "2", "--master-addr", "10.0.0.1", "train.py"],
            2,
            "this run is one of 2 at 10.0.0.1:29500, and a switch of its own would serve this host "
            "alone: start a switch and a controller and give all --controller HOST:PORT",
        ),
        (["--queue-timeout", "0", "--", "true"], 2, "--queue-timeout 0"),
        (
            ["--transport", "shm", "--controller", "127.0.0.1:1", "--", "true"],
            1,
            "--transport shm: WIRESUM_SHM must say where the switch's shm port is",
        ),
        (
            ["--controller", "127.0.0.1:1", "--token-file", "/nowhere", "--", "true"],
            2,
            "--token-file /nowhere cannot be read: No such file",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    arguments: list[str], status: int, message: str
) -> None:
    ended = finish(wiresum_run(*arguments), clean_environment())
    assert ended.status == status, ended.output
    (line,) = errors(ended.output)
    assert message in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(
    controller: str, env: dict[str, str], number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    command = wiresum_run("--controller", controller, "--", "sh", "-c", script)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(number)
        assert launcher.stdout.readline() == "caught\n"
        assert launcher.wait(LIMIT_S) == 42


def test_a_signalled_child_ends_the_launcher_with_its_signal(
    controller: str, env: dict[str, str]
) -> None:
    command = wiresum_run("--controller", controller, "--", "sh", "-c", "echo ready; sleep 1000")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(LIMIT_S) == 128 + signal.SIGTERM


def descendants(pid: int) -> dict[int, str]:
    """Everything below a process: pid to command line."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            found |= {child: line.decode(), **descendants(child)}
    return found


def embedded_run(script: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        wiresum_run(*options, "--", "sh", "-c", script),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nothing_is_left_behind_by_a_launcher_that_is_killed() -> None:
    with embedded_run("setsid sleep 1000 & sleep 1000 & echo ready; wait") as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        below = descendants(launcher.pid)
        assert any("switch serve" in line for line in below.values())
        assert any("controller serve" in line for line in below.values())
        launcher.kill()
        wait_gone(*below)


def test_a_run_that_is_killed_leaves_a_folder_that_the_next_one_removes(
    temporary: Path,
) -> None:
    with embedded_run("echo ready; sleep 1000") as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        below = descendants(launcher.pid)
        launcher.kill()
        wait_gone(*below)
    modes = [stat.S_IMODE(left.stat().st_mode) for left in temporary.iterdir()]
    assert set(modes) == {0o700}
    ended = finish(wiresum_run("--", "true"), clean_environment())
    assert ended.status == 0, ended.output
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("part", ["switch", "controller"])
def test_a_part_that_dies_ends_a_run_that_insists_on_the_switch(part: str) -> None:
    with embedded_run("echo ready; sleep 1000", "--carrier", "switch") as launcher:
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        assert launcher.stdout.readline() == "ready\n"
        below = descendants(launcher.pid)
        (pid,) = [pid for pid, line in below.items() if f"{part} serve" in line]
        os.kill(pid, signal.SIGKILL)
        status = launcher.wait(LIMIT_S)
        (line,) = errors(launcher.stderr.read())
    assert status == 1
    assert line == f"wiresum: the embedded {part} has ended (status 137)"
    wait_gone(*below)


def test_a_training_under_the_launcher() -> None:
    torchrun = [*torchrun_of_forks(2), str(SCENARIOS), "hooks"]
    ended = finish([*wiresum_run("--field", "32", "--"), *torchrun], clean_environment())
    assert ended.status == 0, ended.output
    assert "hooks passed on rank 0" in ended.output
    (last,) = re.findall(r"^wiresum: each of 2 ranks here: (.*)$", ended.output, re.M)
    assert re.match(r"\d+ collectives? \(.* .?B\) over the switch, 0 over the ranks, ", last), last


def test_a_failing_training_under_the_launcher(controller: str, env: dict[str, str]) -> None:
    training = [*spawned(2), str(SCENARIOS), "no_such_scenario"]
    command = [*wiresum_run("--controller", controller, "--"), *training]
    ended = finish(command, env)
    assert ended.status == 1
    assert "no_such_scenario passed" not in ended.output


def test_launchers_with_the_same_name_share_a_job_until_the_last_has_left(
    controller: str, token: str
) -> None:
    options = JobOptions(controller=controller, name="shared", token=token)
    three = [Session(options) for _ in range(3)]
    assert len({session.job.id for session in three}) == 1
    for left in (3, 2, 1):
        for session in three[-left:]:
            session.check()
            assert session.describe().state == pb.JOB_STATE_WAITING
        three[-left].close()
    with ControllerClient(controller, token=token) as client:
        assert client.get_job(three[0].job.id).state == pb.JOB_STATE_RELEASED


def test_a_launcher_that_is_killed_takes_nobodys_job_away(
    controller: str, env: dict[str, str], token: str
) -> None:
    with Session(JobOptions(controller=controller, name="shared", token=token)) as session:
        command = wiresum_run("--controller", controller, "--name", "shared", "--")
        with subprocess.Popen(
            [*command, "sh", "-c", "echo $WIRESUM_JOB; sleep 1000"],
            env=env, stdout=subprocess.PIPE, text=True,
        ) as launcher:  # fmt: skip
            assert launcher.stdout is not None
            assert launcher.stdout.readline().strip() == session.job.id
            launcher.kill()
        time.sleep(GRACE_S)
        session.check()
        assert session.describe().state == pb.JOB_STATE_WAITING
    with ControllerClient(controller, token=token) as client:
        assert client.get_job(session.job.id).state == pb.JOB_STATE_RELEASED


def test_nodes_of_one_rendezvous_have_one_name(controller: str, env: dict[str, str]) -> None:
    # The command need not be torchrun: `true` takes anything.
    torchrun = ["true", "torchrun", "--nnodes=2", "--rdzv-endpoint=10.0.0.1:5", "train.py"]
    ended = finish([*wiresum_run("--controller", controller), "--", *torchrun], env)
    assert ended.status == 0
    assert "wiresum: job 10.0.0.1-5 on switch" in ended.output
    named = ["--controller", controller, "--name", "mine"]
    assert "wiresum: job mine on" in finish([*wiresum_run(*named), "--", *torchrun], env).output


def lost(session: Session) -> str:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            session.check()
        except LeaseLost as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("the session has noticed nothing")


def test_a_job_that_is_released_by_somebody_else_ends_the_run(controller: str, token: str) -> None:
    with Session(JobOptions(controller=controller, token=token)) as session:
        with ControllerClient(controller, token=token) as client:
            client.release_job(session.job.id, session.job.token)
        assert "is released" in lost(session)


def test_a_dead_controller_ends_the_run_once_the_lease_has_expired() -> None:
    with fresh_session(carrier=Carrier.SWITCH) as session:
        session.job.heartbeat_s = 0.1
        session.job.expiry_s = 0.5
        assert session.embedded is not None
        parts, session.embedded = session.embedded, None  # only the heartbeats shall notice
        parts.close()
        assert "has lost its lease: controller" in lost(session)
