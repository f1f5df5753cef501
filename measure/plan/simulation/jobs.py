"""Jobs on one fabric, step after step, as flows that share uplinks.

The workers of a job are alike: the slowest of them decides, so one draw of the largest of n shares
stands for all, and 10,000 workers cost what two do. A step computes, begins to communicate where
its first bucket is ready, and ends when both are done. Draws come from the seed and the job's name:
the same for every offset, so that two runs differ by what is asked about alone.
"""

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.simulation.sharing import shares
from wiresum.measure.plan.timing import Phase


@dataclass(frozen=True)
class Running:
    """A job that is simulated: a name, its step, the racks whose uplinks its flow crosses."""

    name: str
    phase: Phase
    racks: tuple[int, ...]


def work(jobs: Sequence[Running], steps: int) -> int:
    """How much a simulation has to do: flows that come or go, times the links of all flows."""
    crossing = sum(bool(job.racks) for job in jobs)
    return crossing * sum(len(job.racks) for job in jobs) * steps


@dataclass(eq=False)
class _Flow:
    left: float
    demand: float
    path: tuple[int, ...]
    done: simpy.Event
    rate: float = 0.0


@dataclass
class _Network:
    """The uplinks; flows get max-min fair shares, which change when one comes or goes."""

    env: simpy.Environment
    capacity: float
    flows: list[_Flow] = field(default_factory=list)
    _since: float = 0.0
    _turn: int = 0

    def send(self, volume: float, demand: float, path: tuple[int, ...]) -> simpy.Event:
        """An event that comes when the volume is through."""
        if not path or volume <= 0:
            return self.env.timeout(volume / demand if volume > 0 else 0.0)
        flow = _Flow(volume, demand, path, self.env.event())
        self._advance()
        self.flows.append(flow)
        self._share()
        return flow.done

    def _advance(self) -> None:
        passed = self.env.now - self._since
        self._since = self.env.now
        for flow in self.flows:
            flow.left -= flow.rate * passed

    def _share(self) -> None:
        links = {link for flow in self.flows for link in flow.path}
        rates = shares(
            [flow.demand for flow in self.flows],
            [flow.path for flow in self.flows],
            dict.fromkeys(links, self.capacity),
        )
        for flow, rate in zip(self.flows, rates, strict=True):
            flow.rate = rate
        self._turn += 1
        if self.flows:
            first = min(flow.left / flow.rate for flow in self.flows)
            self.env.process(self._wait(max(0.0, first), self._turn))

    def _wait(self, seconds: float, turn: int) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(seconds)
        if turn != self._turn:
            return
        self._advance()
        edge = min(flow.left / flow.rate for flow in self.flows)
        over = [flow for flow in self.flows if flow.left / flow.rate <= edge + 1e-12]
        self.flows = [flow for flow in self.flows if flow not in over]
        for flow in over:
            flow.done.succeed()
        self._share()


def simulate(
    jobs: Sequence[Running],
    fabric: Fabric,
    steps: int,
    seed: int,
    offsets: Sequence[float] | None = None,
) -> list[list[float]]:
    """The seconds of each step of each job. ``offsets``: by how much each begins later."""
    env = simpy.Environment()
    network = _Network(env, fabric.uplink_bytes)
    took: list[list[float]] = [[] for _ in jobs]
    for at, job in enumerate(jobs):
        later = 0.0 if offsets is None else offsets[at]
        env.process(_run(env, network, job, fabric, steps, seed, later, took[at]))
    env.run()
    return took


def _run(
    env: simpy.Environment,
    network: _Network,
    job: Running,
    fabric: Fabric,
    steps: int,
    seed: int,
    later: float,
    took: list[float],
) -> Generator[simpy.Event, Any, None]:
    draws = random.Random(f"{seed}/{job.name}")
    phase = job.phase
    if later > 0:
        yield env.timeout(later)
    for _ in range(steps):
        begun = env.now
        compute = phase.compute_s * _slowest(draws, phase.workers, fabric)
        alone = compute - min(phase.hidden_s, compute)
        yield env.timeout(alone)
        if phase.fixed_s > 0:
            yield env.timeout(phase.fixed_s)
        if phase.volume > 0:
            yield network.send(phase.volume, phase.demand, job.racks)
        rest = begun + compute - env.now
        if rest > 0:
            yield env.timeout(rest)
        took.append(env.now - begun)


def _slowest(draws: random.Random, workers: int, fabric: Fabric) -> float:
    """How many times its computation the slowest of n workers takes.

    The largest of n exponential shares, by the inverse of its distribution (1 − e^−x)^n. Both draws
    are made in every step, so that one option does not shift the other's numbers.
    """
    slow, share = draws.random(), draws.random()
    factor = 1.0
    if slow < 1 - (1 - fabric.stragglers) ** workers:
        factor = fabric.straggler_factor
    if fabric.jitter > 0:
        power = math.log(max(share, 1e-300)) / workers
        factor += fabric.jitter * -math.log(max(-math.expm1(power), 1e-300))
    return factor
