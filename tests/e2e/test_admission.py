"""The requests of users to a full controller, and the tokens of their workers."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.processes import Commands, commands
from support.site import Run, Site, eventually, one_line
from support.training import SCRIPT, spawned, torchrun_of_forks
from wiresum.controller.v1 import controller_pb2 as pb

pytestmark = pytest.mark.timeout(300)

ALL = "4096"
SLEEP = [sys.executable, "-c", "print('holds it', flush=True); import time; time.sleep(1000)"]
TRUE = [sys.executable, "-c", "print('ran')"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """A site, and the token of a tenant."""
    with commands(tmp_path_factory.mktemp("shared")) as servers:
        site = Site(servers)
        yield site, site.tenant("mine")
    assert not servers.left_behind(), "processes were left behind"


@pytest.fixture
def site(shared: tuple[Site, Path], cli: Commands) -> Site:
    """The site with all slots free; processes that a test starts there end with the test."""
    site, _ = shared
    site.cli = cli
    with site.client() as client:
        client.drain_switch("s1", undrain=True)
    eventually(lambda: site.free() == int(ALL), "what the test before has held is free")
    return site


@pytest.fixture
def token(shared: tuple[Site, Path]) -> Path:
    return shared[1]


def full(site: Site, token: Path, slots: str = ALL):
    """A job that holds ``slots``."""
    holder = site.run(token, "--name", "holder", "--slots", slots, command=SLEEP)
    assert holder.process.stdout.readline() == "holds it\n", holder.end()
    return holder


def release(holder) -> None:
    holder.process.send_signal(signal.SIGTERM)
    holder.end()


def test_fail_is_one_line(site: Site, token: Path) -> None:
    full(site, token)
    status, out, err = site.run(token, command=TRUE).end()
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert "no room" in line


def test_wait_gets_its_turn(site: Site, token: Path) -> None:
    holder = full(site, token)
    waiting = site.run(token, "--name", "waiting", "--if-full", "wait", command=TRUE)
    eventually(site.queued, "it queues")
    assert waiting.process.poll() is None
    release(holder)
    status, out, err = waiting.end()
    assert (status, out) == (0, "ran\n"), err


def test_wait_has_a_limit(site: Site, token: Path) -> None:
    full(site, token)
    options = ("--if-full", "wait", "--queue-timeout", "1")
    status, out, err = site.run(token, *options, command=TRUE).end()
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    assert "1 s" in err.splitlines()[-1]


def test_a_signal_ends_the_wait(site: Site, token: Path) -> None:
    full(site, token)
    waiting = site.run(token, "--name", "waiting", "--if-full", "wait", command=TRUE)
    eventually(site.queued, "it queues")
    waiting.process.send_signal(signal.SIGINT)
    status, _, err = waiting.end()
    assert status == 128 + signal.SIGINT
    (line,) = [line for line in err.splitlines() if "waiting for room" not in line]
    assert line == "wiresum: interrupted by SIGINT"
    assert not site.queued()


def test_smaller_takes_the_free_slots(site: Site, token: Path) -> None:
    full(site, token, "2048")
    options = ("--if-full", "smaller", "--slots", ALL, "--min-slots", "16")
    status, out, err = site.run(token, *options, command=TRUE).end()
    assert (status, out) == (0, "ran\n"), err
    one_line(err, "2048 slots (of 4096 asked for)")


def train(out: Path, started_by: Callable[[int], list[str]] = spawned) -> list[str]:
    out.mkdir()
    return [*started_by(2), str(SCRIPT), "--out", str(out)]


def over_the_ranks(out: Path) -> None:
    for rank in range(2):
        report = json.loads((out / f"report.{rank}.json").read_text())
        assert report["ones"] == [2.0]
        assert report["stats"]["switch"] == {}
        assert report["stats"]["ranks"]["all_reduce"] > 0


def test_fallback_lets_the_ranks_sum_and_says_why_once(
    site: Site, token: Path, tmp_path: Path
) -> None:
    full(site, token)
    command = train(tmp_path / "out")
    status, _, err = site.run(token, "--if-full", "fallback", command=command).end()
    assert status == 0, err
    first, last = [line for line in err.splitlines() if "wiresum" in line]
    assert "the ranks" in first
    assert "no room" in first
    assert last.startswith("wiresum: nothing used the switch; each of 2 ranks here: ")
    assert "no room" in last.partition(" over the ranks")[0]
    over_the_ranks(tmp_path / "out")


@pytest.mark.slow
def test_workers_without_a_launcher_may_ask_for_the_same(
    site: Site, token: Path, tmp_path: Path
) -> None:
    full(site, token)
    env = site.admin | {"WIRESUM_TOKEN": token.read_text().strip(), "WIRESUM_IF_FULL": "fallback"}
    process = site.cli.popen(train(tmp_path / "out"), **env)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (line,) = [line for line in err.splitlines() if "wiresum" in line]
    assert "the ranks" in line
    assert "no room" in line
    over_the_ranks(tmp_path / "out")


def test_workers_without_a_launcher_may_wait_in_the_queue(
    site: Site, token: Path, tmp_path: Path
) -> None:
    holder = full(site, token)
    env = site.admin | {"WIRESUM_TOKEN": token.read_text().strip(), "WIRESUM_IF_FULL": "wait"}
    process = site.cli.popen(train(tmp_path / "out"), **env)
    eventually(site.queued, "it queues")
    release(holder)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report = json.loads((tmp_path / "out" / "report.0.json").read_text())
    assert report["stats"]["switch"]["all_reduce"] > 0


def test_workers_get_their_jobs_token_and_no_other(site: Site, token: Path, tmp_path: Path) -> None:
    """In their environment and in that of every process between them and the launcher."""
    secret = token.read_text().strip()
    script = tmp_path / "look.py"
    script.write_text(
        "import os, pathlib\n"
        "pid = os.getpid()\n"
        "while True:\n"
        "    stat = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()\n"
        "    print(pathlib.Path(f'/proc/{pid}/environ').read_text().replace(chr(0), chr(10)))\n"
        "    pid = int(stat[1])\n"
        "    line = pathlib.Path(f'/proc/{pid}/cmdline').read_text()\n"
        "    if 'wiresum.cli.main' in line and 'guard.py' not in line: break\n"
    )
    started = site.run(token, command=[sys.executable, str(script)], WIRESUM_TOKEN=secret)
    status, out, err = started.end()
    assert status == 0, err
    names = {line.split("=")[0] for line in out.splitlines() if "TOKEN" in line.split("=")[0]}
    assert names == {"WIRESUM_JOB_TOKEN"}
    assert secret not in out + err


def test_a_job_token_makes_no_jobs(site: Site, token: Path) -> None:
    code = (
        "import os\n"
        "from wiresum.controller.client import ControllerClient\n"
        "from wiresum.controller.errors import ControllerError\n"
        "where = os.environ['WIRESUM_CONTROLLER']\n"
        "with ControllerClient(where, token=os.environ['WIRESUM_JOB_TOKEN']) as client:\n"
        "    print(client.get_job(os.environ['WIRESUM_JOB']).name)\n"
        "    try: client.create_job()\n"
        "    except ControllerError as error: print(error.code)\n"
        "    try: client.list_jobs()\n"
        "    except ControllerError as error: print(error.code)\n"
    )
    started = site.run(token, "--name", "mine", command=[sys.executable, "-c", code])
    status, out, err = started.end()
    assert status == 0, err
    assert out.split() == ["mine", "PERMISSION_DENIED", "PERMISSION_DENIED"]


def test_a_drained_switch_takes_no_new_job_and_keeps_the_old_ones(site: Site, token: Path) -> None:
    running = site.loop(token, "running", workers=2)
    running.steps(2)
    site.operate("switch", "drain", "s1")
    status, _, err = site.run(token, command=TRUE).end()
    assert status == 1
    (line,) = err.splitlines()
    assert "drained" in line
    running.steps(5)
    running.stop()


@pytest.mark.parametrize("wrong", ["token", "ca", "no token"])
def test_wrong_credentials_are_one_line(site: Site, token: Path, wrong: str) -> None:
    arguments = ["--controller", site.address]
    other = site.cli.directory / "other"
    other.write_text("x" * 43)
    if wrong != "no token":
        arguments += ["--token-file", str(other if wrong == "token" else token)]
    env = {"WIRESUM_TOKEN": ""} | ({} if wrong == "ca" else {"WIRESUM_CA": site.ca})
    done = site.cli.run("run", *arguments, "--", "true", **env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    expected = {"token": "token", "ca": "certificate", "no token": "token"}
    assert expected[wrong] in line


@pytest.mark.slow
def test_workers_show_the_certificate_that_the_controller_asks_for(
    cli: Commands, tmp_path: Path
) -> None:
    site = Site(cli)
    token = site.tenant("mine")
    tls = Path(site.ca).parent
    site.operate("controller", "certificate", "rack7", "--tls-dir", str(tls), "--out", str(tls))
    site.controller.terminate()
    assert site.controller.wait(30) == 0
    site.options = ("--client-ca", site.ca)
    site.start()
    shown = {"WIRESUM_CERT": str(tls / "rack7.pem"), "WIRESUM_KEY": str(tls / "rack7.key")}
    refused = site.run(token, command=TRUE)
    status, _, err = refused.end()
    assert status == 1
    (line,) = err.splitlines()
    assert "cannot be reached" in line
    status, _, err = site.run(token, command=train(tmp_path / "out"), **shown).end()
    assert status == 0, err
    report = json.loads((tmp_path / "out" / "report.0.json").read_text())
    assert report["stats"]["switch"]["all_reduce"] > 0


def test_a_run_killed_as_a_whole_leaves_nothing(cli: Commands) -> None:
    """SIGKILL to the launcher, torchrun and the workers: the lease expires, the slots come back."""
    site = Site(cli, "--expiry", "2")
    token = site.tenant("mine")
    run = site.loop(token, "one", "--slots", ALL, workers=2, started_by=torchrun_of_forks)
    run.steps(2)
    run.kill_everything()
    eventually(lambda: site.free() == int(ALL), "the slots come back", limit_s=20)
    assert all(job.state == pb.JOB_STATE_EXPIRED for job in site.jobs())


def test_a_killed_worker_ends_its_run_and_leaves_nothing(cli: Commands) -> None:
    site = Site(cli, "--expiry", "2")
    token = site.tenant("mine")
    run = site.loop(token, "one", "--slots", ALL, workers=2, started_by=torchrun_of_forks)
    run.steps(2)
    os.kill(run.workers_pids()[1], signal.SIGKILL)
    assert run.end()[0] != 0
    eventually(lambda: site.free() == int(ALL), "the slots come back", limit_s=20)


def test_a_plain_torchrun_that_is_killed_leaves_nothing(cli: Commands, tmp_path: Path) -> None:
    """Rank 0 had made the job itself: no process is left to release it."""
    site = Site(cli, "--expiry", "2")
    token = site.tenant("mine")
    env = site.admin | {"WIRESUM_TOKEN": token.read_text().strip(), "WIRESUM_SLOTS": ALL}
    out = tmp_path / "plain"
    command = [*train(out, torchrun_of_forks), "--steps", "100000", "--pause", "0.01"]
    process = cli.popen(command, **env)
    eventually(lambda: (out / "step.1").exists(), "the training has begun")
    assert site.free() == 0
    Run(process).kill_everything()
    eventually(lambda: site.free() == int(ALL), "the slots come back", limit_s=20)
