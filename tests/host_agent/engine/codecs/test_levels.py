"""Levels, votes and rotations of the engine beside plain integers, in every instruction set."""

from collections.abc import Iterator

import levels_reference as book
import numpy as np
import pytest
from codec_reference import available
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wiresum.host_agent import _engine
from wiresum.host_agent.errors import CodecError

BLOCK = book.BLOCK
ROUNDING, ROTATION = range(2)
OF_ALL = 0xFFFFFFFF

Floats = NDArray[np.float32]
words32 = st.integers(0, 0xFFFFFFFF)


@pytest.fixture(params=available(), autouse=True, scope="module")
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    best = _engine.isa()
    _engine.set_isa(request.param)
    yield
    _engine.set_isa(best)


@st.composite
def blocks(draw: st.DrawFn) -> Floats:
    """Whole blocks of any size of numbers, with zeros."""
    generator = np.random.default_rng(draw(words32))
    values = generator.standard_normal((draw(st.integers(1, 3)), BLOCK))
    values *= 10.0 ** draw(st.integers(-44, 37))
    values[generator.random(values.shape) < draw(st.sampled_from([0, 0.5]))] = 0
    return values.astype(np.float32)


def units(values: Floats) -> list[float]:
    return [book.largest(block) for block in values]


def agreed(numbers: list[float]) -> NDArray[np.int32]:
    return np.array([book.word(each) for each in numbers], np.int32)


def encoded(
    codec: _engine.Levels, values: Floats, words: NDArray[np.int32], **options: object
) -> NDArray[np.uint32]:
    lanes = np.empty((len(values), codec.lanes), np.uint32)
    codec.encode(
        len(values), values.ctypes.data, words.ctypes.data, lanes.ctypes.data,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return lanes


def decoded(
    codec: _engine.Levels, lanes: NDArray[np.uint32], words: NDArray[np.int32], workers: int
) -> Floats:
    values = np.empty((len(lanes), BLOCK), np.float32)
    codec.decode(len(lanes), lanes.ctypes.data, words.ctypes.data, workers, values.ctypes.data)
    return values


def test_the_generator_is_philox() -> None:
    # The known answers of the authors' library, Random123.
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    ones = (0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2
    zeros = (0,) * 4, (0,) * 2
    assert book.philox(*zeros) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert book.philox(*ones) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert book.philox(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@given(blocks(), st.integers(1, 64), st.integers(1, 300), st.booleans(), st.sampled_from([0.5, 1]))
def test_lanes_and_means_are_those_of_plain_integers(
    values: Floats, workers: int, top: int, up: bool, gain: float
) -> None:
    bits = min(16, (workers * top).bit_length() + top % 2)
    codec = _engine.Levels(workers, top, bits, gain)
    words = agreed(units(values))
    lanes = encoded(codec, values, words, up=up)
    total = lanes * np.uint32(workers)  # all ranks have the same: no larger sums with these words
    mean, own = decoded(codec, total, words, workers), decoded(codec, lanes, words, 1)
    for at, block in enumerate(values):
        unit = gain * units(values)[at]
        if unit == 0:
            assert not lanes[at].any()
            continue
        levels = book.to_levels(block, unit, top, up=up)
        assert levels.min() >= 0
        assert levels.max() <= top
        assert lanes[at].tolist() == book.pack(levels, bits)
        sums = book.unpack(total[at].tolist(), bits)
        assert (sums == workers * levels).all()  # nothing was carried
        assert (mean[at] == book.value(sums, unit, top, workers)).all()
        assert (own[at] == book.value(levels, unit, top, 1)).all()


@given(blocks(), st.integers(1, 300), words32, words32, words32, st.tuples(words32, words32))
def test_stochastic_rounding_draws_the_words_of_its_counters(
    values: Floats, top: int, seed: int, rank: int, step: int, origin: tuple[int, int]
) -> None:
    codec = _engine.Levels(1, top, 9)
    words = agreed(units(values))
    origins = np.array([origin] * len(values), np.uint32)
    origins[:, 0] += np.arange(len(values), dtype=np.uint32) * 64
    draw = (seed, rank, step, ROUNDING, origins.ctypes.data)
    lanes = encoded(codec, values, words, draw=draw)
    for at, block in enumerate(values):
        if not block.any():
            continue
        one, two = map(int, origins[at])
        drawn = book.words_of_block(seed, rank, step, ROUNDING, (one, two))
        levels = book.to_levels(block, units(values)[at], top, drawn)
        assert lanes[at].tolist() == book.pack(levels, 9)


def test_stochastic_rounding_is_unbiased_and_its_ranks_and_steps_are_independent() -> None:
    values = np.linspace(-1, 1, BLOCK, dtype=np.float32)[None]
    words = agreed([1.0])
    origins = np.zeros((1, 2), np.uint32)
    codec = _engine.Levels(1, 2, 2)
    draws = 4000
    found = np.stack(
        [
            decoded(
                codec,
                encoded(codec, values, words, draw=(7, at % 4, at // 4, 0, origins.ctypes.data)),
                words, 1,
            )[0]
            for at in range(draws)
        ]
    )  # fmt: skip
    # A value's deviation is at most 1/2; of the mean of all draws, five of its own.
    assert np.abs(found.mean(0) - values[0]).max() < 5 * 0.5 / draws**0.5
    noise = found[:, BLOCK // 4] - found[:, BLOCK // 4].mean()
    for apart in (1, 4):  # another rank, another step
        assert abs((noise[apart:] * noise[:-apart]).mean()) < 5 * 0.25 / draws**0.5


@given(blocks(), words32, words32, words32, st.tuples(words32, words32))
def test_a_rotation_is_that_of_its_seed_and_turns_back(
    values: Floats, seed: int, step: int, purpose: int, origin: tuple[int, int]
) -> None:
    origins = np.array([origin] * len(values), np.uint32)
    draw = (seed, OF_ALL, step, purpose, origins.ctypes.data)
    turned = values.copy()
    _engine.rotate(len(values), turned.ctypes.data, draw)
    drawn = book.words_of_block(seed, OF_ALL, step, purpose, origin)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = [book.hadamard(block * book.signs(drawn)) for block in values]
    assert np.array_equal(turned, np.stack(wanted), equal_nan=True)
    if np.abs(values).max() < 1e36:
        _engine.rotate(len(values), turned.ctypes.data, draw, back=True)
        off = np.abs(turned - values).max(1)
        assert (off <= 1e-5 * np.abs(values).max(1) + 256 * 2.0**-149).all()


def test_the_transform_is_hadamards() -> None:
    parities = np.array([[(i & j).bit_count() & 1 for j in range(BLOCK)] for i in range(BLOCK)])
    values = np.random.default_rng(1).standard_normal(BLOCK).astype(np.float32)
    np.testing.assert_allclose(
        book.hadamard(values), np.where(parities, -1, 1) @ values / 16, rtol=0, atol=1e-5
    )


@given(blocks(), st.integers(1, BLOCK))
def test_words_say_how_large_a_block_is(values: Floats, length: int) -> None:
    values[-1, length:] = 0
    lengths = np.full(len(values), BLOCK, np.int64)
    lengths[-1] = length
    found = np.empty(len(values), np.int32)
    for kind, of in enumerate((book.largest, book.mean, book.root_mean_square)):
        _engine.words(kind, len(values), values.ctypes.data, lengths.ctypes.data, found.ctypes.data)
        wanted = [
            of(block) if kind == 0 else of(block, int(many))  # type: ignore[operator]
            for block, many in zip(values, lengths, strict=True)
        ]
        assert found.tolist() == [book.word(each) for each in wanted]
        assert [book.number_in(each) for each in found.tolist()] == wanted


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_says_so(spoil: float) -> None:
    values = np.ones((1, BLOCK), np.float32)
    values[0, 77] = spoil
    lengths, found = np.full(1, BLOCK, np.int64), np.empty(1, np.int32)
    for kind in range(3):
        _engine.words(kind, 1, values.ctypes.data, lengths.ctypes.data, found.ctypes.data)
        assert found[0] == book.NONFINITE
    codec = _engine.Levels(2, 2, 3)
    assert not encoded(codec, values, found).any()


def test_fields_too_narrow_for_the_sum_are_refused_with_the_narrowest_that_works() -> None:
    assert [_engine.budget(workers, 4) for workers in (1, 2, 3, 7)] == [7, 3, 2, 1]
    with pytest.raises(CodecError, match="field 4 leaves no budget for 8 workers; the narrowest "
                       "field that works is 8"):  # fmt: skip
        _engine.budget(8, 4)
    with pytest.raises(CodecError, match="field 4 leaves no budget for 200 workers; the narrowest "
                       "field that works is 16"):  # fmt: skip
        _engine.budget(200, 4)
    with pytest.raises(CodecError, match="field 3 leaves no budget for 4 workers"):
        _engine.Levels(4, 2, 3)
