"""What ``wiresum top`` makes of the controller's answers, and how it fits a terminal."""

import json
from io import StringIO

import pytest
from rich.console import Console

from wiresum.controller.commands import tables
from wiresum.controller.commands.stragglers import stragglers
from wiresum.controller.commands.top import picture
from wiresum.controller.commands.top_model import Moment, as_json, frame
from wiresum.controller.commands.top_view import number, render, seconds
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb


def report(rank: int, *, steps: int = 100, latency_s: float = 0.01, **changes) -> pb.RankReport:
    """A rank that has done ``steps`` collectives in the five seconds between its two reports."""
    before = pb.RankReport(
        rank=rank, started=1000, ended=1000, in_flight_s=10.0, exposed_s=5.0, chunks=4000,
        bytes_sent=1_000_000, age_s=7.0,
    )  # fmt: skip
    facts = {
        "started": 1000 + steps, "ended": 1000 + steps, "in_flight_s": 10.0 + steps * latency_s,
        "exposed_s": 5.5, "chunks": 8000, "bytes_sent": 2_000_000, "age_s": 2.0, "rtt_s": 0.0002,
        "window": 64,
    }  # fmt: skip
    return pb.RankReport(rank=rank, before=before, **(facts | changes))


def job(*reports: pb.RankReport, **changes) -> pb.Job:
    workers = len(reports) or 4
    facts = {
        "id": "j-1", "name": "resnet", "tenant": "vision", "state": pb.JOB_STATE_READY,
        "switch": "s1", "slots": 512, "slots_target": 512, "lanes": 256, "workers": workers,
        "joined": list(range(workers)), "heartbeat_s": 5.0, "reports": reports,
        "events": {"completed": 1000, "resent": 10, "waited": 0, "mismatched": 0},
    }  # fmt: skip
    return pb.Job(**(facts | changes))


def switch(**changes) -> pb.Switch:
    facts = {
        "name": "s1", "state": pb.SWITCH_STATE_UP, "slots": 4096, "free_slots": 3584, "jobs": 1,
        "drops": {"stranger": 5, "stale": 0},
    }  # fmt: skip
    return pb.Switch(**(facts | changes))


def test_a_job_that_its_ranks_sum_says_so_and_why():
    ranks = {"carrier": "ranks", "carrier_reason": "rank 1 on h1: the switch is silent"}
    one = job(report(0, carrier="switch"), report(1, **ranks), missing=[0])
    assert stragglers(one) == []
    said = StringIO()
    picture = frame("c:1", Moment(1.0, [switch()], [one]), Moment(2.0, [switch()], [one]))
    Console(file=said, width=120).print(render(picture, 120))
    assert "resnet: the ranks sum, not the switch: rank 1 on h1: the switch is silent" in (
        said.getvalue()
    )
    (shown,) = as_json(picture)["jobs"]
    assert (shown["carrier"], shown["carrier_reason"]) == ("ranks", ranks["carrier_reason"])
    for table in (tables.job_details(one), tables.job_table([one])):
        said = StringIO()
        Console(file=said, width=250).print(table)
        assert "ranks: rank 1 on h1: the switch is silent" in said.getvalue()


def test_rates_are_differences_by_the_time_between():
    before = Moment(10.0, [switch()], [job()])
    events = {"completed": 3000, "resent": 14, "waited": 0, "mismatched": 0}
    now = Moment(12.0, [switch(drops={"stranger": 25, "stale": 0})], [job(events=events)])
    found = as_json(frame("c:1", before, now))
    (one,) = found["jobs"]
    assert one["chunks_per_s"] == 1000
    assert one["summed_bits_per_s"] == 1000 * 256 * 32
    assert one["resent_per_s"] == 2
    (where,) = found["switches"]
    assert where["chunks_per_s"] == 1000
    assert where["drops_by_reason_per_s"] == {"stranger": 10.0}
    json.dumps(found)


@pytest.mark.parametrize(
    "events",
    [{}, {"completed": 10, "resent": 0, "waited": 0, "mismatched": 0}],
    ids=["the switch did not tell", "the counters began anew"],
)
def test_no_rate_is_invented(events):
    found = frame(
        "c:1", Moment(1.0, [switch()], [job()]), Moment(2.0, [switch()], [job(events=events)])
    )
    assert found.jobs[0].chunks is None
    assert found.switches[0].chunks is None
    once = frame("c:1", None, Moment(1.0, [switch()], [job()]))
    assert once.jobs[0].chunks is None
    assert once.interval_s == 0


def test_a_rank_has_the_rates_of_its_last_two_reports():
    (row,) = frame("c:1", None, Moment(1.0, [], [job(report(0))])).jobs[0].ranks
    assert row.collectives == pytest.approx(20)
    assert row.latency_s == pytest.approx(0.01)
    assert row.exposed == pytest.approx(0.1)
    assert row.bits == pytest.approx(1_600_000)
    alone = report(0)
    alone.ClearField("before")
    (row,) = frame("c:1", None, Moment(1.0, [], [job(alone)])).jobs[0].ranks
    assert (row.collectives, row.latency_s, row.exposed) == (None, None, None)


def whys(one: pb.Job) -> dict[int, str]:
    return {straggler.rank: straggler.why for straggler in stragglers(one)}


def test_the_rank_that_comes_last_waits_least():
    late = [report(rank, latency_s=0.02) for rank in range(4)]
    late[2] = report(2, latency_s=0.001)
    assert whys(job(*late)) == {2: "late by 19.0 ms in each all-reduce"}
    assert whys(job(*(report(rank, latency_s=0.02) for rank in range(4)))) == {}


def test_a_difference_that_costs_nothing_makes_no_straggler():
    ranks = [report(rank, latency_s=0.0004, steps=50) for rank in range(3)]
    ranks[1] = report(1, latency_s=0.0001, steps=50)
    assert whys(job(*ranks)) == {}


def test_ranks_that_have_stopped():
    still = {"started": 1000, "ended": 999, "in_flight_s": 10.0}
    ranks = [report(rank, **still) for rank in range(3)]
    for one in ranks:
        one.before.started, one.before.ended = 1000, 999
    ranks[1].started = ranks[1].before.started = 999
    assert whys(job(*ranks)) == {1: "has not started all-reduce 1000"}
    for one in ranks:
        one.started = one.before.started = one.ended = one.before.ended = 1000
    assert whys(job(*ranks)) == {}, "a pause is no straggler"


def test_ranks_that_are_missing_or_silent():
    waiting = job(state=pb.JOB_STATE_WAITING, joined=[0, 1], missing=[2, 3])
    assert whys(waiting) == {2: "has not joined", 3: "has not joined"}
    ranks = [report(rank) for rank in range(3)]
    ranks[0].age_s = 40.0
    assert whys(job(*ranks)) == {0: "silent for 40 s"}
    assert whys(job(state=pb.JOB_STATE_QUEUED, missing=[0])) == {}


def lines(width: int, *jobs: pb.Job, switches=None, problem: str = "") -> list[str]:
    now = Moment(2.0, [switch()] if switches is None else switches, jobs)
    text = StringIO()
    console = Console(file=text, width=width, force_terminal=False, highlight=False)
    console.print(
        render(frame("10.0.0.1:7500", Moment(1.0, now.switches, jobs), now), width, problem=problem)
    )
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, 200])
def test_every_line_fits_and_the_essential_stays(width):
    ranks = [report(rank, latency_s=0.02) for rank in range(12)]
    ranks[7] = report(7, latency_s=0.001)
    other = job(name="a-very-long-name-of-a-job-indeed" * 2, id="j-2")
    why = "10.0.0.9:9559 cannot be reached"
    down = switch(name="s2", state=pb.SWITCH_STATE_DOWN, reason=why)
    found = lines(width, job(*ranks), other, switches=[switch(), down])
    assert max(map(len, found)) <= width
    text = " ".join(" ".join(found).split())
    for word in ("s1", "up", "s2", "down", "resnet", "ready", "reached"):
        assert word in text
    assert "resnet waits for rank 7" in text
    if width >= 80:
        assert "late by" in text
        assert "chunk/s" in text


def test_a_shrunk_job_a_queued_job_and_a_problem():
    text = "\n".join(
        lines(
            100,
            job(slots=128),
            job(
                id="j-3", name="q", state=pb.JOB_STATE_QUEUED, slots=0, queue_position=2, switch=""
            ),
            problem="controller 10.0.0.1:7500 cannot be reached",
        )
    )
    assert "128<512" in text
    assert "queued #2" in text
    assert "1 queued" in text
    assert "cannot be reached" in text


def test_nothing_at_all():
    assert "no switches" in "\n".join(lines(80, switches=[]))


def test_a_tenant_is_told_of_its_jobs_alone():
    class Client:
        address = "10.0.0.1:7500"

        def list_switches(self, **_):
            raise ControllerError("PERMISSION_DENIED", "only the admin may list switches")

        def list_jobs(self, **_):
            return [job()]

    text = StringIO()
    Console(file=text, width=80).print(render(picture(Client(), 0.0), 80))
    assert "switches" not in text.getvalue()
    assert "1 job\n" in text.getvalue()
    assert "resnet" in text.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.5, "0.5"), (99.4, "99.4"), (999.4, "999"), (999.6, "1k"),
     (123456, "123k"), (999_999, "1M"), (2.5e9, "2.5G")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_times_are_short():
    assert [seconds(s) for s in (None, 2.0, 0.0123, 0.000045)] == ["-", "2s", "12.3ms", "45us"]
