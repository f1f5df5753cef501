"""``wiresum bench allreduce``: wiresum and gloo in turn, in one run, on the same links.

Every worker sits in a namespace of its own, behind one link that is limited in both directions;
``links.py`` has the network. In each round every case is measured once on each side. A sample is a
number of all-reduces back to back: from when the first rank begins until the last one ends.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from wiresum.controller.client.local_site import SiteOptions
from wiresum.measure import lines
from wiresum.measure.bench import cpu, data
from wiresum.measure.bench.cases import GLOO, RANKS, SHM, TRAIN, Case, Options, Side
from wiresum.measure.bench.crew import Crew
from wiresum.measure.bench.links import Star
from wiresum.measure.bench.site import BenchSite, plain
from wiresum.measure.bench.worker import LEAD_IN
from wiresum.measure.model import limits
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.errors import RackError
from wiresum.testbed.rack import SWITCH, SWITCH_IP

KIND = "allreduce"
SEED = 4
_LEAST_LIMIT_S = 30.0
_SHAPER_SLACK = 1.005  # a sample that was more than this ahead of its bytes: a broken shaper
_WARM_UP = 4 << 20  # bytes of the all-reduce by which an engine finds its window

Sample = dict[str, Any]


class Bench:
    """One run; :meth:`run` yields nothing and fills ``cases``."""

    def __init__(
        self, options: Options, say: Callable[[str], None], save: Callable[[], None]
    ) -> None:
        """``say`` takes progress, ``save`` is called after each round."""
        self.options = options
        self.cases: list[dict[str, Any]] = [
            {
                "rate_mbit": case.rate_mbit,
                "loss": case.loss,
                "workers": case.workers,
                "size": case.size,
                "samples": {},
            }
            for case in options.case_list()
        ]
        self._say = say
        self._save = save
        self._round = 0

    def run(self) -> None:
        """Measure everything. Raises ``WiresumError``, also for a wrong result."""
        options = self.options
        if os.geteuid() != 0:
            raise RackError(lines.NEEDS_ROOT.of())
        cases = options.case_list()
        limit = max(_limit_s(case, options.sides) for case in cases)
        most = max(options.workers)
        with Star(options.name, most, options.mtu) as star:
            file = star.record.folder / "data"
            largest = max(max(case.elements for case in cases), _WARM_UP // 4, LEAD_IN)
            data.make(file, largest, SEED)
            self._star = star
            torch = options.tcp or options.ranks_sides
            with (
                BenchSite(star.record, self._site_options()) as self._site,
                Crew("wiresum", star, most, file, limit) as self._engines,
                Crew(GLOO, star, most if torch else 0, file, limit) as self._gloo,
            ):
                self._jobs = {
                    side: self._site.job(f"bench-{side.key}", options.slots, side.field or 0)
                    for side in options.switch_sides
                }
                self._make_groups()
                for number in range(options.repeat):
                    self._once(cases)
                    self._say(f"round {number + 1} of {options.repeat} done")
                    self._save()

    def _site_options(self) -> SiteOptions:
        """The switch in its namespace of the network."""
        shm = self._star.record.folder / "shm" if SHM in self.options.transports else None
        return SiteOptions(
            ip=SWITCH_IP,
            udp_port=UDP_PORT,
            hosts="10.0.0.0/24",
            shm=shm,
            lanes=self.options.lanes,
            enter=self._star.enter(SWITCH),
        )

    def _make_groups(self) -> None:
        """A group of gloo's for each number of workers and way of TCP's."""
        most = max(self.options.workers)
        for tcp in self.options.tcp:
            self._star.use_tcp(tcp)
            self._gloo.all(most, "group", side=Side(tcp=tcp).key, counts=self.options.workers)
        if self.options.ranks_sides:
            # The ranks sum over the same kind of connections, with the last way of TCP's.
            self._gloo.all(most, "group", side=RANKS, counts=self.options.workers)

    def _once(self, cases: list[Case]) -> None:
        """One round."""
        links = joined = None
        for case, kept in zip(cases, self.cases, strict=True):
            if links != (case.rate_mbit, case.loss):
                links = (case.rate_mbit, case.loss)
                self._star.shape(case.rate_mbit)
                self._star.lose(case.loss)
            if joined != (links, case.workers):
                joined = (links, case.workers)
                for side in self.options.switch_sides:
                    self._join(case.workers, side)
                    self._warm_up(case, side)
            for side in self.options.sides:
                sample = self._sample(case, side)
                kept["samples"].setdefault(side.key, []).append(sample)
                self._say(f"{case}: {side}: {1e3 * sample['seconds']:.2f} ms")

    def _join(self, workers: int, side: Side) -> None:
        """Give the first workers new engines on the job of this side."""
        crew, session = self._engines, self._jobs[side]
        address, shm = self._site.address, self._site_options().shm
        places = crew.all(
            workers,
            "bind",
            side=side.key,
            ip=address.host,
            udp_port=address.port,
            shm=str(shm) if side.transport == SHM else None,
            lanes=self.options.lanes,
            slots=session.job.slots,
        )
        leases = self._site.join(session, places)
        orders = [plain(lease) | {"field": side.field} for lease in leases]
        crew.each([{"do": "lease", "side": side.key, "lease": order} for order in orders])

    def _warm_up(self, case: Case, side: Side) -> None:
        """Let an engine find its window; sums integers, so that F = 32 must be exact."""
        warm = Case(case.rate_mbit, case.loss, case.workers, min(_WARM_UP, case.size))
        self._measure(warm, side, ops=1, integers=True)

    def _sample(self, case: Case, side: Side) -> Sample:
        """Measure; see that the link's rate has held."""
        sample = self._measure(case, side, case.ops(side), integers=False)
        if case.rate_mbit is not None:
            busiest = max(max(sample["sent"]), max(sample["received"]))
            least = limits.seconds(busiest - TRAIN / sample["ops"], case.rate_mbit)
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
        return sample

    def _measure(self, case: Case, side: Side, ops: int, integers: bool) -> Sample:
        """Fill, reduce, check."""
        crew = self._gloo if side.by_ranks else self._engines
        workers = case.workers
        self._round += 1
        order: dict[str, Any] = {"elements": case.elements, "ops": ops, "round": self._round}
        order |= {"workers": workers, "integers": integers, "side": side.key, "field": side.field}
        crew.all(workers, "fill", **order)
        lost = self._star.lost()
        wire = self._star.traffic()[:workers]
        used = [*crew.cpu_s(workers), self._site.cpu_s(), cpu.of_machine()]
        said = crew.all(workers, "go")
        used_after = [*crew.cpu_s(workers), self._site.cpu_s(), cpu.of_machine()]
        crossed = [now.since(old) for now, old in zip(self._star.traffic(), wire, strict=False)]
        self._check(crew, workers, case, side)
        # The lead-in is in what was counted, but not in what was timed.
        share = ops + min(LEAD_IN, case.elements) / case.elements
        *ranks, switch, machine = [
            (after - before) / share for after, before in zip(used_after, used, strict=True)
        ]
        seconds = max(each["end"] for each in said) - min(each["begin"] for each in said)
        return {
            "ops": ops,
            "seconds": seconds / ops,
            "sent": [each.sent / share for each in crossed],
            "received": [each.received / share for each in crossed],
            "cpu": {"workers": ranks, "switch": switch, "machine": machine},
            "retransmissions": sum(each["counters"].get("retransmissions", 0) for each in said)
            / ops,
            "lost": (self._star.lost() - lost) / share,
            "now": said[0]["now"],
        }

    def _check(self, crew: Crew, workers: int, case: Case, side: Side) -> None:
        """Rank 0's results against the reference; those of the others against rank 0's."""
        try:
            if self.options.spoil:
                crew.each([{"do": "digest"}] * (workers - 1) + [{"do": "spoil"}])
            crew.each([{"do": "check"}])
            digests = [each["digest"] for each in crew.all(workers, "digest")]
        except RackError as error:
            raise RackError(lines.WRONG_IN_CASE.of(case=case, side=side, why=error)) from None
        if len(set(digests)) != 1:
            odd = next(rank for rank in range(workers) if digests[rank] != digests[0])
            raise RackError(lines.RANKS_DIFFER.of(case=case, side=side, rank=odd))


def _limit_s(case: Case, sides: Sequence[Side]) -> float:
    """How long a sample may take before it is given up."""
    if case.rate_mbit is None:
        return 4 * _LEAST_LIMIT_S
    one = limits.seconds(limits.ring_bytes(case.size, case.workers), case.rate_mbit)
    return _LEAST_LIMIT_S + 10 * one * max(case.ops(side) for side in sides)
