"""One all-reduce of integers through an engine, timed, with its sum checked."""

import time

import numpy as np

from wiresum.host_agent.engine import Engine, raise_for
from wiresum.host_agent.environment import AgentError
from wiresum.measure import lines

LARGEST = 1000  # of the summed integers: sums stay exact with 32-bit fields


def contribution(
    rank: int, count: int, seed: int
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """What ``rank`` contributes: ``count`` integers, none of whose blocks is all zero."""
    values = np.random.default_rng([seed, rank]).integers(1, LARGEST, count)
    return values.astype(np.float32)


def timed_reduce(
    engine: Engine, rank: int, workers: int, count: int, seed: int, limit_s: float
) -> float:
    """Seconds of one all-reduce of ``count`` elements.

    Raises ``WiresumError``, also for a wrong sum.
    """
    data = contribution(rank, count, seed)
    want = sum(contribution(each, count, seed) for each in range(workers))
    started = time.perf_counter()
    done = engine.wait(engine.all_reduce(data.ctypes.data, count, "float32", False), limit_s)
    seconds = time.perf_counter() - started
    if done is None:
        raise AgentError(lines.NO_RESULT_AT.of(rank=rank, limit_s=limit_s))
    raise_for(done)
    if not np.array_equal(data, want):
        raise AgentError(lines.WRONG_SUM.of(rank=rank))
    return seconds
