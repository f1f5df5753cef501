"""One all-reduce through one switch, chunk by chunk: workers, links, slots, loss, resends.

What the closed forms of ``slots.py`` and ``timing.py`` say of a window and of loss is compared with
this. It is for small cases: each frame of each worker is an event.
"""

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy


@dataclass(frozen=True)
class Rack:
    """Seconds and bytes; ``window``: chunks in flight; ``frame``: bytes of a chunk on the wire.

    ``late_s``: how much later than the others the last worker begins.
    """

    workers: int
    window: int
    frame: int
    beta: float
    alpha_s: float
    loss: float = 0.0
    resend_s: float = 0.01
    late_s: float = 0.0


@dataclass
class _State:
    env: simpy.Environment
    rack: Rack
    draws: random.Random
    up: list[simpy.Resource]
    down: list[simpy.Resource]
    got: dict[tuple[int, int], simpy.Event] = field(default_factory=dict)
    seen: dict[int, set[int]] = field(default_factory=dict)
    sent: int = 0

    def result(self, worker: int, chunk: int) -> simpy.Event:
        """Comes when a worker has the sum of a chunk."""
        return self.got.setdefault((worker, chunk), self.env.event())

    @property
    def frame_s(self) -> float:
        """One frame on a link."""
        return self.rack.frame / self.rack.beta

    def lost(self) -> bool:
        """Whether the next frame is."""
        return self.rack.loss > 0 and self.draws.random() < self.rack.loss


@dataclass(frozen=True)
class Outcome:
    """Seconds of the whole, and the frames that workers sent."""

    seconds: float
    frames: int


def allreduce(rack: Rack, chunks: int, seed: int = 0) -> Outcome:
    """Sum ``chunks`` chunks of all workers; ends when every worker has every sum."""
    env = simpy.Environment()
    state = _State(
        env,
        rack,
        random.Random(seed),
        [simpy.Resource(env) for _ in range(rack.workers)],
        [simpy.Resource(env) for _ in range(rack.workers)],
    )
    slots = [
        env.process(_slot(state, worker, first, chunks))
        for first in range(min(rack.window, chunks))
        for worker in range(rack.workers)
    ]
    env.run(until=env.all_of(slots))
    return Outcome(float(env.now), state.sent)


def _slot(state: _State, worker: int, first: int, chunks: int) -> Generator[simpy.Event, Any, None]:
    """A worker's use of one slot: chunk after chunk, each until its sum is there."""
    env, rack = state.env, state.rack
    if rack.late_s and worker == rack.workers - 1:
        yield env.timeout(rack.late_s)
    for chunk in range(first, chunks, rack.window):
        result = state.result(worker, chunk)
        while not result.triggered:
            with state.up[worker].request() as turn:
                yield turn
                yield env.timeout(state.frame_s)
            state.sent += 1
            if not state.lost():
                env.process(_arrive(state, worker, chunk))
            yield result | env.timeout(rack.resend_s)


def _arrive(state: _State, worker: int, chunk: int) -> Generator[simpy.Event, Any, None]:
    """At the switch: the last contribution sends the sum to all, a repeated one to its sender."""
    yield state.env.timeout(state.rack.alpha_s)
    seen = state.seen.setdefault(chunk, set())
    complete = len(seen) == state.rack.workers
    seen.add(worker)
    if complete:
        state.env.process(_deliver(state, worker, chunk))
    elif len(seen) == state.rack.workers:
        for each in range(state.rack.workers):
            state.env.process(_deliver(state, each, chunk))


def _deliver(state: _State, worker: int, chunk: int) -> Generator[simpy.Event, Any, None]:
    with state.down[worker].request() as turn:
        yield turn
        yield state.env.timeout(state.frame_s)
    if state.lost():
        return
    yield state.env.timeout(state.rack.alpha_s)
    result = state.result(worker, chunk)
    if not result.triggered:
        result.succeed()
