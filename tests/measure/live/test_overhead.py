"""What measuring costs, from the times of steps with and without the profiler."""

import pytest

from wiresum.measure.live.observed import Observed, Took, overhead
from wiresum.measure.probe.links import Links


def rank(device: str, plain: list[Took], profiled: list[Took]) -> Observed:
    return Observed(
        rank=0, world_size=1, local_size=1, host="h", backend="gloo", device=device, wanted=9,
        needed=9, seen=9, recorded=9, plain=tuple(plain),
        profiled=tuple(profiled), links=Links((), ""), failed=None,
    )  # fmt: skip


def test_where_the_cpu_computes_it_is_the_cpu_time_that_the_profiler_adds():
    # A noisy host makes some steps long; the profiler adds 10 ms of CPU time to steps of 1 s.
    plain = [Took(1.0, 0.50), Took(1.0, 0.50), Took(9.0, 0.51)]
    profiled = [Took(5.0, 0.51), Took(2.0, 0.51), Took(1.0, 0.52)]
    assert overhead([rank("cpu", plain, profiled)] * 3) == pytest.approx(0.01)


def test_elsewhere_it_is_the_time_of_the_step():
    plain, profiled = [Took(1.0, 0.1)] * 3, [Took(1.1, 0.3)] * 3
    assert overhead([rank("cuda", plain, profiled)]) == pytest.approx(0.1)


def test_without_steps_of_both_kinds_it_is_unknown():
    assert overhead([rank("cpu", [Took(1.0, 0.5)], [])]) is None
    assert overhead([rank("cpu", [], [Took(1.0, 0.5)])]) is None
    assert overhead([]) is None
