"""The rounds of ``wiresum bench collectives``: every side does the same on the same links, in turn.

A sample is a number of collectives, back to back, from when the first rank begins until the last
one has ended. For latency they are done one by one, at agreed times: then the time of one of them
is from when the last rank has begun it until the last rank has ended it.
"""

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from wiresum.common.address import parse_endpoint
from wiresum.common.errors import LineText
from wiresum.controller.client.local_site import SiteOptions
from wiresum.host_agent.environment import Carrier, Environment
from wiresum.measure import lines
from wiresum.measure.bench import cpu, data
from wiresum.measure.bench.cases import TRAIN, Side
from wiresum.measure.bench.collectives.crew import Crew, Group, Nursery
from wiresum.measure.bench.collectives.kinds import BARRIER, BOTH
from wiresum.measure.bench.collectives.options import Case, Options
from wiresum.measure.bench.collectives.results import percentile
from wiresum.measure.bench.links import Star
from wiresum.measure.bench.site import BenchSite
from wiresum.measure.model import limits
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.errors import RackError
from wiresum.testbed.forwarder import Forwarder
from wiresum.testbed.rack import SWITCH, SWITCH_IP

KIND = "collectives"
SEED = 5
_WARM_UP = 4 << 20  # bytes of the collectives by which engines and TCP find their windows
_SHAPER_SLACK = 1.005
_CREDIT = TRAIN + (32 << 10)  # bytes by which a sample may be ahead of a link that was idle
_NOTICE_S = 0.02  # from the order to the start, so that all ranks have heard of it
_GAP_S = 0.004  # between collectives whose latency is measured
_SAME_ON_ALL = ("all_reduce", "all_gather_into_tensor", "broadcast")
LEFT_EARLY = "a rank has left a barrier before the last one came"

Sample = dict[str, Any]


class Bench:
    """One run; :meth:`run` fills ``cases``, as they are in the JSON."""

    def __init__(
        self, options: Options, say: Callable[[str], None], save: Callable[[], None]
    ) -> None:
        """``say`` takes progress, ``save`` is called after each round."""
        self.options = options
        self._all = [case for count in options.workers for case in options.cases_of(count)]
        self.cases: list[dict[str, Any]] = [
            {
                "collective": case.kind,
                "rate_mbit": case.rate_mbit,
                "workers": case.workers,
                "size": case.size,
                "samples": {},
            }
            for case in self._all
        ]
        self.wrong: LineText | None = None
        """The first wrong result, in one line; the run goes on."""
        self._say = say
        self._save = save
        self._round = 0
        self._gap_s = _GAP_S if options.latency else 0.0

    def run(self) -> None:
        """Measure everything. Raises ``WiresumError``."""
        options = self.options
        if os.geteuid() != 0:
            raise RackError(lines.NEEDS_ROOT.of())
        with Star(options.name, max(options.workers), options.mtu) as star:
            file = star.record.folder / "data"
            data.make(file, max(_WARM_UP // 4, *(case.elements for case in self._all)), SEED)
            self._star = star
            with ExitStack() as exits:
                self._site: BenchSite | None = None
                if any(not side.by_ranks for side in options.sides):
                    self._site = exits.enter_context(BenchSite(star.record, self._site_options()))
                    listens = parse_endpoint(
                        self._site.controller.removeprefix("http://"), what="the controller"
                    )
                    names = [star.namespace(f"w{rank}") for rank in range(star.workers)]
                    exits.callback(Forwarder(listens, names).close)
                nursery = exits.enter_context(Nursery(star, file))
                for count in options.workers:
                    self._with(count, nursery)

    def _site_options(self) -> SiteOptions:
        """The switch in its namespace of the network."""
        return SiteOptions(
            ip=SWITCH_IP,
            udp_port=UDP_PORT,
            hosts="10.0.0.0/24",
            lanes=self.options.lanes,
            enter=self._star.enter(SWITCH),
        )

    def _with(self, count: int, nursery: Nursery) -> None:
        """All rounds with so many workers."""
        options = self.options
        cases = options.cases_of(count)
        limit = max(
            case.limit_s(options.ops_of(case, side)) + options.ops_of(case, side) * self._gap_s
            for case in cases
            for side in options.sides_of(case)
        )
        kept = [entry for entry in self.cases if entry["workers"] == count]
        used = [s for s in options.sides if any(s in options.sides_of(case) for case in cases)]
        with ExitStack() as exits:
            self._crews = {
                side: exits.enter_context(Crew(nursery, self._group(side, count, limit, exits)))
                for side in used
            }
            for number in range(options.repeat):
                self._once(cases, kept)
                self._say(f"{count} workers: round {number + 1} of {options.repeat} done")
                self._save()

    def _group(self, side: Side, count: int, limit_s: float, exits: ExitStack) -> Group:
        """What the ranks of a side join."""
        name = f"{side}, {count} workers"
        if side.tcp is not None:
            self._star.use_tcp(side.tcp)
            return Group(name, "gloo", count, None, {}, limit_s)
        assert side.field is not None
        if side.by_ranks:
            env = Environment("", None, "", side.field, limit_s, carrier=Carrier.RANKS).variables()
        else:
            assert self._site is not None
            job = f"bench-{side.key}-{count}"
            session = exits.enter_context(self._site.session(job, self.options.slots, side.field))
            env = session.environment.variables()
        return Group(name, "wiresum", count, side.field, env, limit_s)

    def _once(self, cases: list[Case], kept: list[dict[str, Any]]) -> None:
        """One round."""
        rate: object = self
        for case, entry in zip(cases, kept, strict=True):
            if rate != case.rate_mbit:
                rate = case.rate_mbit
                self._star.shape(case.rate_mbit)
                for side in self._crews:
                    warm = Case(BOTH, case.rate_mbit, case.workers, _WARM_UP)
                    self._sample(warm, side, 1, 0.0, warm_up=True)
            self._round += 1
            bits: dict[int, list[str]] = {}  # of each field's results, by rank
            for side in self.options.sides_of(case):
                sample = self._sample(case, side, self.options.ops_of(case, side), self._gap_s)
                found = sample.pop("bits")
                if side.field is not None and bits.setdefault(side.field, found) != found:
                    self._note_wrong(lines.CARRIERS_DIFFER.of(case=case, field=side.field))
                entry["samples"].setdefault(side.key, []).append(sample)
                self._say(f"{case}: {side}: {1e6 * sample['seconds']:.0f} us")

    def _sample(
        self, case: Case, side: Side, ops: int, gap_s: float, *, warm_up: bool = False
    ) -> Sample:
        """Fill, do, check."""
        crew, workers = self._crews[side], case.workers
        order: dict[str, Any] = {
            "kind": case.kind,
            "elements": case.elements,
            "ops": ops,
            "round": self._round,
        }
        crew.all("fill", **order)
        wire = self._star.traffic()[:workers]
        used = self._cpu_s(crew)
        each_time = bool(gap_s) or case.kind == BARRIER
        at = time.monotonic() + _NOTICE_S
        said = crew.all("go", at=at, gap_s=gap_s, times=each_time)
        used = [after - before for after, before in zip(self._cpu_s(crew), used, strict=True)]
        crossed = [now.since(old) for now, old in zip(self._star.traffic(), wire, strict=False)]
        self._check_path(case, side, said[0]["counters"])
        seconds = max(each["end"] for each in said) - min(each["begin"] for each in said)
        sample: Sample = {
            "ops": ops,
            "seconds": seconds / ops,
            "sent": [each.sent / ops for each in crossed],
            "received": [each.received / ops for each in crossed],
            "cpu": {
                "workers": [each / ops for each in used[:workers]],
                "switch": used[workers] / ops,
                "machine": used[workers + 1] / ops,
            },
            "retransmissions": sum(each["counters"]["retransmissions"] for each in said) / ops,
        }
        if gap_s:
            times = _latencies([each["times"] for each in said])
            sample["seconds"] = statistics.median(times)
            sample["p99"] = percentile(times, 99)
        else:
            self._check_rate(case, side, sample)
        early = _left_early([each["times"] for each in said]) if case.kind == BARRIER else 0
        self._check(case, side, sample, early, warm_up=warm_up)
        return sample

    def _cpu_s(self, crew: Crew) -> list[float]:
        """CPU seconds so far: of each rank, the switch, the machine."""
        switch = self._site.cpu_s() if self._site is not None else 0.0
        return [*crew.cpu_s(), switch, cpu.of_machine()]

    def _check_path(self, case: Case, side: Side, counters: dict[str, int]) -> None:
        """Over a switch, all of it must have gone there."""
        if not side.by_ranks and (counters["ranks"] or counters["fallback"]):
            raise RackError(lines.NOT_OVER_SWITCH.of(case=case, side=side))

    def _check_rate(self, case: Case, side: Side, sample: Sample) -> None:
        """The link's rate must have held."""
        if case.rate_mbit is None:
            return
        busiest = max(*sample["sent"], *sample["received"])
        least = limits.seconds(busiest - _CREDIT / sample["ops"], case.rate_mbit)
        if sample["seconds"] * _SHAPER_SLACK < least:
            raise RackError(
                lines.LINKS_NOT_LIMITED.of(
                    case=case,
                    side=side,
                    size=busiest,
                    took_ms=1e3 * sample["seconds"],
                    least_ms=1e3 * least,
                )
            )

    def _check(self, case: Case, side: Side, sample: Sample, early: int, *, warm_up: bool) -> None:
        """Every rank compares what it got with the reference."""
        ranks = range(case.workers)
        spoil = self.options.spoil and not warm_up
        orders = [{"do": "check", "spoil": spoil and rank == 0} for rank in ranks]
        said = self._crews[side].each(orders)
        sample["wrong"] = early + sum(each["wrong"] for each in said)
        sample["bits"] = [each["first"] for each in said]
        if sample["wrong"]:
            why = next((each["why"] for each in said if each["why"]), LEFT_EARLY)
            self._note_wrong(lines.WRONG_IN_CASE.of(case=case, side=side, why=why))
        if case.kind in _SAME_ON_ALL:
            odd = next((rank for rank in ranks if said[rank]["all"] != said[0]["all"]), None)
            if odd is not None:
                self._note_wrong(lines.RANKS_DIFFER.of(case=case, side=side, rank=odd))

    def _note_wrong(self, line: LineText) -> None:
        self.wrong = self.wrong or line


def _latencies(times: list[list[tuple[float, float]]]) -> list[float]:
    """Of each operation: from the last rank's beginning to the last rank's end."""
    return [
        max(end for _, end in each) - max(begun for begun, _ in each)
        for each in zip(*times, strict=True)
    ]


def _left_early(times: list[list[tuple[float, float]]]) -> int:
    """How many barriers a rank has left before the last one has come."""
    return sum(
        min(end for _, end in each) < max(begun for begun, _ in each)
        for each in zip(*times, strict=True)
    )
