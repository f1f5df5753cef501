"""Instruction sets agree to the last bit; float16 and bfloat16; the thread's rounding state."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from codec_reference import available
from numpy.typing import NDArray

from wiresum.host_agent import _engine

FIELDS = (32, 16, 8)


@pytest.fixture(autouse=True)
def restore_isa() -> Iterator[None]:
    best = _engine.isa()
    yield
    _engine.set_isa(best)


def bit_patterns(count: int, seed: int) -> NDArray[np.float32]:
    """Random finite float32: every exponent, denormals, both zeros."""
    random = np.random.default_rng(seed)
    bits: NDArray[np.uint32] = random.integers(0, 2**32, count, dtype=np.uint32)
    exponents = np.repeat(random.integers(0, 252, -(-count // 256)), 256)[:count]
    near = np.minimum(exponents + random.integers(0, 3, count), 254).astype(np.uint32)
    bits = (bits & np.uint32(0x807FFFFF)) | near << np.uint32(23)
    bits[::17] &= np.uint32(0x807FFFFF)
    bits[::29] = 0x80000000
    return bits.view(np.float32)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 64])
def test_instruction_sets_agree(field: int, workers: int) -> None:
    outcomes = []
    for name in available():
        _engine.set_isa(name)
        assert _engine.isa() == name
        made = []
        for count in (1, 3, 255, 256, 5000):
            values = bit_patterns(count, seed=count)
            codes = _engine.exponents(values, "float32")
            lanes = _engine.encode(values, "float32", codes, workers, field)
            made += [codes.tobytes(), lanes.tobytes()]
            for average in (False, True):
                out = np.empty_like(values)
                _engine.decode(
                    lanes * np.uint32(workers), out, "float32", codes, workers, field, average
                )
                made.append(out.tobytes())
            for dtype, kind in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
                scaled = torch.from_numpy(np.nan_to_num(values, posinf=1, neginf=1))
                narrow = torch.clamp(scaled, -60000, 60000).to(kind).view(torch.int16).numpy()
                codes = _engine.exponents(narrow, dtype)
                lanes = _engine.encode(narrow, dtype, codes, workers, field)
                out16 = np.empty_like(narrow)
                _engine.decode(lanes * np.uint32(workers), out16, dtype, codes, workers, field)
                made += [codes.tobytes(), lanes.tobytes(), out16.tobytes()]
        outcomes.append(made)
    assert len(outcomes) >= 1
    for other in outcomes[1:]:
        assert other == outcomes[0]


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_half_conversions_are_torchs(name: str, dtype: str, kind: torch.dtype) -> None:
    """Every finite 16-bit pattern goes through F = 32 as torch's own conversions have it."""
    _engine.set_isa(name)
    patterns = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    halves = patterns.view(kind)
    halves = halves[torch.isfinite(halves)]
    raw = halves.view(torch.int16).numpy()
    wide = halves.to(torch.float32).numpy()
    codes = _engine.exponents(raw, dtype)
    np.testing.assert_array_equal(codes, _engine.exponents(wide, "float32"))
    lanes = _engine.encode(raw, dtype, codes, 3, 32)
    np.testing.assert_array_equal(lanes, _engine.encode(wide, "float32", codes, 3, 32))

    # The way back: sums of three, rounded to float32 and then to the narrow type.
    total = lanes * np.uint32(3)
    sums = np.empty_like(wide)
    _engine.decode(total, sums, "float32", codes, 3, 32)
    expected = torch.from_numpy(sums).to(kind).view(torch.int16).numpy()
    narrow = np.empty_like(raw)
    _engine.decode(total, narrow, dtype, codes, 3, 32)
    np.testing.assert_array_equal(narrow, expected)


@pytest.mark.parametrize(
    ("dtype", "inf", "nan"), [("float16", 0x7C00, 0x7E00), ("bfloat16", 0x7F80, 0x7FC0)]
)
def test_half_blocks_that_are_not_finite(dtype: str, inf: int, nan: int) -> None:
    for special in (inf, inf | 0x8000, inf | 1, nan):
        raw = np.array([0, special, 3], np.uint16)
        codes = _engine.exponents(raw, dtype)
        assert codes[0] == _engine.NONFINITE_CODE
        assert len(_engine.encode(raw, dtype, codes, 2, 16)) == 0
        _engine.decode(np.zeros(0, np.uint32), raw, dtype, codes, 2, 16)
        assert (raw == nan).all()


def test_flushed_denormals_do_not_matter() -> None:
    """torch.set_flush_denormal(True) on the caller's thread changes no bit of the codec."""
    values = np.full(9, 3e-45, np.float32)
    values[4] = 1e-40
    codes = _engine.exponents(values, "float32")
    lanes = _engine.encode(values, "float32", codes, 2, 16)
    plain = np.empty_like(values)
    _engine.decode(lanes + lanes, plain, "float32", codes, 2, 16)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        flushed = np.empty_like(values)
        again = _engine.encode(values, "float32", codes, 2, 16)
        _engine.decode(again + again, flushed, "float32", codes, 2, 16)
    finally:
        torch.set_flush_denormal(False)
    assert again.tobytes() == lanes.tobytes()
    assert flushed.tobytes() == plain.tobytes()
    assert plain[4] != 0
