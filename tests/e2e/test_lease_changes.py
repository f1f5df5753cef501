"""A training whose window shrinks for another tenant's job, and grows back after that job."""

import json
import os
import signal

import pytest

from support.processes import Commands
from support.site import LOOP, Site, eventually, one_line
from support.training import spawned, torchrun_of_forks

pytestmark = pytest.mark.timeout(400)

ALL = 4096


@pytest.fixture
def site(cli: Commands) -> Site:
    return Site(cli)


def undisturbed(cli: Commands, steps: int, workers: int) -> str:
    """The digest of the same loop alone on a switch of its own."""
    out = cli.directory / "undisturbed"
    out.mkdir()
    done = cli.run(
        "run", "--", *spawned(workers), str(LOOP), "--out", str(out), "--steps", str(steps)
    )
    assert done.returncode == 0, done.stderr
    digest = json.loads((out / "report.0.json").read_text())["digest"]
    assert isinstance(digest, str)
    return digest


@pytest.mark.slow
def test_a_job_shrinks_and_grows_and_its_results_stay_the_same(cli: Commands, site: Site) -> None:
    """Two jobs of higher priority start and end; the first job's results do not change by a bit."""
    low, high = site.tenant("low"), site.tenant("high", priority=10)
    first = site.loop(low, "first", "--slots", str(ALL), "--min-slots", "64", workers=3)
    first.steps(5)
    assert first.lease()["slots"] == ALL
    for name in ("second", "third"):
        other = site.loop(high, name, "--slots", "2048", "--if-full", "wait", workers=2)
        first.until(lambda lease: lease["slots"] < ALL, "the first job is shrunk")
        other.steps(5)
        first.steps(5)
        before = first.lease()["change"]
        for report in other.stop():
            assert report["leases"][0]["slots"] == 2048
        first.until(lambda lease: lease["slots"] == ALL, "the first job has grown back")
        assert first.lease()["change"] > before
        first.steps(5)
    reports = first.stop()
    for report in reports:
        sizes = [lease["slots"] for lease in report["leases"]]
        assert sizes[0] == sizes[-1] == ALL
        assert len(sizes) >= 5
        assert report["stats"]["failed"] == {}
        assert report["leases"] == reports[0]["leases"]
    digests = {report["digest"] for report in reports}
    assert digests == {undisturbed(cli, reports[0]["steps"], 3)}
    assert site.free() == ALL


def test_a_rank_killed_in_the_middle_of_a_change_ends_its_job_and_no_other(site: Site) -> None:
    low, high = site.tenant("low"), site.tenant("high", priority=10)
    first = site.loop(low, "first", "--slots", str(ALL), workers=3, started_by=torchrun_of_forks)
    first.steps(5)
    victim = first.workers_pids()[1]
    os.kill(victim, signal.SIGSTOP)  # so that it cannot say where it is
    other = site.loop(high, "second", "--slots", "2048", "--if-full", "wait", workers=2)
    eventually(lambda: site.jobs()[-1].change_wanted > 0, "the change is announced")
    os.kill(victim, signal.SIGKILL)
    status, _, err = first.end()
    assert status != 0
    assert "Segmentation" not in err
    other.steps(5)
    other.stop()
    assert site.free() == ALL


def test_a_change_survives_a_controller_killed_in_the_middle(site: Site) -> None:
    """It comes back from its store; this change or a later one takes place; no job ends."""
    low, high = site.tenant("low"), site.tenant("high", priority=10)
    first = site.loop(low, "first", "--slots", str(ALL), workers=3)
    first.steps(5)
    slow = first.workers_pids()[2]
    os.kill(slow, signal.SIGSTOP)
    other = site.loop(high, "second", "--slots", "2048", "--if-full", "wait", workers=2)
    eventually(lambda: site.jobs()[-1].change_wanted > 0, "the change is announced")
    site.kill_controller()
    os.kill(slow, signal.SIGCONT)
    site.start()
    first.until(lambda lease: 0 < lease["slots"] < ALL, "the first job is shrunk")
    other.steps(5)
    first.steps(5)
    other.stop()
    first.until(lambda lease: lease["slots"] == ALL, "the first job has grown back")
    first.steps(5)
    for report in first.stop():
        assert report["stats"]["failed"] == {}


@pytest.mark.slow  # a controller killed in the middle of a change: a rank sleeps there, too
def test_a_change_waits_for_a_sleeping_rank(site: Site) -> None:
    low, high = site.tenant("low"), site.tenant("high", priority=10)
    first = site.loop(low, "first", "--slots", str(ALL), workers=2)
    first.steps(5)
    slow = first.workers_pids()[0]
    os.kill(slow, signal.SIGSTOP)
    other = site.loop(high, "second", "--slots", "2048", "--if-full", "wait", workers=2)
    eventually(lambda: site.jobs()[-1].change_wanted > 0, "the change is announced")
    os.kill(slow, signal.SIGCONT)
    first.until(lambda lease: 0 < lease["slots"] < ALL, "the first job is shrunk")
    other.steps(5)
    other.stop()
    first.steps(5)
    first.stop()


def test_an_evicted_job_ends_with_the_reason(site: Site) -> None:
    tenant = site.tenant("low")
    first = site.loop(tenant, "first", workers=2, started_by=torchrun_of_forks)
    first.steps(3)
    site.operate("job", "evict", "first", "--reason", "the rack goes down at noon")
    status, _, err = first.end()
    assert status == 1
    line = one_line(err, "wiresum: job first is evicted", "the rack goes down at noon")
    assert err.splitlines()[-1] == line
    assert site.free() == ALL
