"""The ranks as a carrier against the engine over the embedded switch: the same bits, always."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_rig import LIMIT_S, codec_alone, words
from group_rig import Group
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from support.thread_sums import thread_sums
from wiresum.host_agent.agent import carrying as module
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.launcher.embedded import Embedded

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SIZES = st.one_of(
    st.integers(0, 1100), st.sampled_from([1279, 1280, 1281, 16_384, 65_537, 300_001])
)


class Both:
    """A job's engines over the switch, and the same ranks by themselves."""

    def __init__(self, embedded: Embedded, workers: int, field: int) -> None:
        self.group = Group(embedded, "udp", workers, field, slots=128, keep_nonfinite=True)
        self._workers, self._field = workers, field
        self.ranks: list[RanksEngine] = []
        self.renew()
        self._ticket = 0

    def renew(self) -> None:
        """Begin with new engines of the ranks."""
        for engine in self.ranks:
            engine.close()
        sums = thread_sums(self._workers)
        self.ranks = [RanksEngine(each, self._workers, self._field) for each in sums]

    def sums(
        self, tensors: list[torch.Tensor], average: bool, name: str = ""
    ) -> tuple[list[Any], list[Any]]:
        """What each carrier makes of them: bytes and ranges that are not finite, by rank."""
        self._ticket += 1
        found = []
        for engines in (self.group.engines, self.ranks):
            copies = [tensor.clone() for tensor in tensors]
            for engine, copy in zip(engines, copies, strict=True):
                kind = name or str(copy.dtype).removeprefix("torch.")
                call = Call(copy.data_ptr(), copy.numel(), kind, average, self._ticket)
                engine.collect([call])
            ended = [engine.poll(LIMIT_S) for engine in engines]
            for (each,) in ended:
                assert (each.ticket, each.error) == (self._ticket, None)
            found.append(
                [
                    (
                        copy.view(torch.int16 if copy.element_size() == 2 else torch.int32)
                        .numpy()
                        .tobytes(),
                        [tuple(r) for r in each.nonfinite],
                    )
                    for copy, (each,) in zip(copies, ended, strict=True)
                ]
            )
        return found[0], found[1]

    def close(self) -> None:
        for engine in self.ranks:
            engine.close()
        self.group.stack.close()


@pytest.fixture(scope="module")
def both(embedded: Embedded) -> Iterator[Callable[[int, int], Both]]:
    made: dict[tuple[int, int], Both] = {}

    def get(workers: int, field: int) -> Both:
        key = workers, field
        if key not in made:
            made[key] = Both(embedded, workers, field)
        return made[key]

    yield get
    for each in made.values():
        each.close()


@settings(max_examples=examples(120))
@given(
    workers=st.sampled_from([1, 2, 3, 5]),
    field=st.sampled_from([32, 16, 8]),
    dtype=st.sampled_from(sorted(DTYPES)),
    count=SIZES,
    average=st.booleans(),
    scale=st.integers(-30, 30),
    holes=st.sampled_from([0.0, 0.5, 1.0]),
    odd=st.sampled_from(["", "inf", "nan"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_ranks_give_the_bits_of_the_switch(
    both: Callable[[int, int], Both], workers: int, field: int, dtype: str, count: int,
    average: bool, scale: int, holes: float, odd: str, seed: int,
) -> None:  # fmt: skip
    draw = np.random.default_rng(seed)
    tensors = []
    for _ in range(workers):
        values = draw.standard_normal(count) * 2.0 ** (scale + draw.integers(-3, 4))
        for first in range(0, count, 256):
            if draw.random() < holes:
                values[first : first + 256] = 0
        tensors.append(torch.from_numpy(values).to(DTYPES[dtype]))
    if odd and count:
        tensors[-1][int(draw.integers(count))] = float(odd)
    switch, ranks = both(workers, field).sums(tensors, average)
    assert switch == ranks
    if not ranks[0][1]:
        assert len({bits for bits, _ in ranks}) == 1


@settings(max_examples=examples(40))
@given(
    workers=st.sampled_from([1, 2, 3, 5]),
    name=st.sampled_from(["int32", "max_uint32"]),
    count=SIZES,
    seed=st.integers(0, 2**32 - 1),
)
def test_the_ranks_reduce_words_as_the_switch_does(
    both: Callable[[int, int], Both], workers: int, name: str, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    given_ = words(random, workers, count, np.uint32)
    tensors = [torch.from_numpy(each.view(np.int32)) for each in given_]
    switch, ranks = both(workers, 8).sums(tensors, False, name)
    arrays = [each.view(np.int32) if name == "int32" else each for each in given_]
    assert switch == ranks == [(codec_alone(arrays, 32, name, False), [])] * workers


def test_segments_and_stages_are_only_a_matter_of_speed(
    both: Callable[[int, int], Both], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(5)
    tensors = [torch.from_numpy(draw.standard_normal(50_001)).float() for _ in range(3)]
    expected, _ = both(3, 8).sums(tensors, True)
    for segment, head, stage in ((13, 1, 1), (64, 7, 3), (1000, 1024, 5), (1 << 18, 20, 4096)):
        monkeypatch.setattr(module, "SEGMENT", segment)
        monkeypatch.setattr(module, "HEAD", head)
        monkeypatch.setattr(module, "STAGE", stage)
        both(3, 8).renew()
        _, ranks = both(3, 8).sums(tensors, True)
        assert ranks == expected
    monkeypatch.undo()
    both(3, 8).renew()
