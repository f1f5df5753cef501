"""A missing part ends the run within its timeout, in one line that names the part."""

import os
import signal
import socket
import time

import pytest

from support.processes import marked
from support.spawn import free_port
from support.training import SCRIPT, rack, serving, spawned, torchrun, torchrun_of_forks


def wait_for(condition, what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def one_line(text: str, *words: str) -> None:
    """Some one line of ``text`` holds all of ``words``."""
    lines = [line for line in text.splitlines() if all(word in line for word in words)]
    assert lines, f"no line has {words} in:\n{text[-3000:]}"


@pytest.fixture
def running(cli, tmp_path):
    """A long training under ``wiresum run``, caught in the middle of its steps."""

    def start(*options: str, started_by=spawned):
        out = tmp_path / "running"
        out.mkdir()
        process = cli.start(
            "run", *options, "--", *started_by(2), str(SCRIPT), "--out", str(out),
            "--steps", "100000", "--pause", "0.01",
        )  # fmt: skip
        steps = [out / f"step.{rank}" for rank in range(2)]
        wait_for(
            lambda: (
                process.poll() is not None
                or all(s.exists() and s.read_text() not in ("", "0", "1") for s in steps)
            ),
            "the third step",
        )
        assert process.poll() is None, process.communicate()[1]
        return process

    return start


def test_a_worker_that_never_joins_is_named(train):
    # torchrun has its own store; another store would first wait for the rank that never comes.
    done, _ = train(
        "--timeout", "15", script=("--absent", "1"), limit_s=90, started_by=torchrun_of_forks
    )
    assert done.returncode != 0
    one_line(done.stderr, "rank 1", "did not join within")


@pytest.mark.slow
def test_a_straggler_is_not_an_error(train):
    done, reports = train(script=("--late", "1"))
    assert done.returncode == 0, done.stderr
    assert len(reports) == 2


def test_a_missing_controller_is_one_clear_line(cli):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--controller", f"127.0.0.1:{port}", "--carrier", "switch")
    done = cli.run("run", *options, "--", "true", limit_s=60)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    one_line(done.stderr, "controller", f"127.0.0.1:{port}")


def test_a_switch_that_dies_ends_a_run_that_insists_on_it(cli, running):
    process = running("--timeout", "20", "--carrier", "switch")
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGKILL)
    _, err = process.communicate(timeout=90)
    assert process.returncode not in (0, -signal.SIGKILL)
    one_line(err, "switch")
    assert "Segmentation" not in err


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run(cli, running):
    process = running("--timeout", "20", started_by=torchrun)
    victim = next(
        pid for pid, line in marked(cli.mark).items()
        if "train.py" in line and "torch.distributed.run" not in line and "wiresum.cli" not in line
    )  # fmt: skip
    os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=90)
    assert process.returncode not in (0, None)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signals_end_everything(cli, running, number):
    process = running(started_by=torchrun_of_forks)
    process.send_signal(number)
    process.communicate(timeout=90)
    assert process.returncode != 0
    assert not cli.left_behind()


def test_a_killed_launcher_leaves_nothing(cli, running):
    process = running(started_by=torchrun_of_forks)
    process.kill()
    process.wait()
    assert not cli.left_behind(within_s=30)


def test_a_port_in_use(cli):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", 0))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp_port, tcp_port = udp.getsockname()[1], tcp.getsockname()[1]
        for arguments, port in (
            (("--port", f"1=udp:127.0.0.1:{udp_port}", "--p4runtime", "127.0.0.1:0"), udp_port),
            (("--port", "1=udp:127.0.0.1:0", "--p4runtime", f"127.0.0.1:{tcp_port}"), tcp_port),
        ):
            done = cli.run("switch", "serve", *arguments, limit_s=60)
            assert done.returncode != 0
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            one_line(done.stderr, str(port), "in use")
        done = cli.run("controller", "serve", "--listen", f"127.0.0.1:{tcp_port}", limit_s=60)
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        one_line(done.stderr, str(tcp_port), "in use")


def test_a_job_survives_a_killed_controller_that_comes_back(cli, tmp_path, running):
    """The job goes on: its lease is in the store and in the switch."""
    store = str(tmp_path / "store.sqlite")
    controller = rack(cli, store=store, listen=f"127.0.0.1:{free_port()}")
    (first,) = serving(cli, "controller serve")
    process = running("--controller", controller)
    os.kill(first, signal.SIGKILL)
    steps = tmp_path / "running" / "step.0"
    reached = int(steps.read_text() or 0)
    listen = controller.removeprefix("http://")
    cli.serve("controller", "serve", "--listen", listen, "--store", store, "--plaintext")
    wait_for(lambda: int(steps.read_text() or 0) > reached + 50, "fifty more steps")
    assert process.poll() is None
    shown = cli.run("job", "list", "--json", "--controller", controller)
    assert '"ready"' in shown.stdout.lower(), shown.stdout
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_no_switch_is_one_clear_line(cli):
    _, ready = cli.serve(
        "controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:", "--plaintext"
    )
    done = cli.run("run", "--controller", ready["address"], "--", "true", limit_s=60)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    one_line(done.stderr, "no switch")


def test_an_unknown_command_is_one_line(cli):
    done = cli.run("run", "--", "no-such-command-here", limit_s=60)
    assert done.returncode == 127
    one_line(done.stderr, "no-such-command-here")
