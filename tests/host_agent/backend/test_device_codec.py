"""The kernels of a GPU give the bits of the engine's codec; in Triton where that is installed."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: there may be no GPU

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.host_agent import _engine
from wiresum.host_agent.backend.cuda.kernels import Fields, Kernels, TorchKernels, scales_of

BLOCK = _engine.BLOCK
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module", params=["torch", "triton"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "torch":
        return TorchKernels()
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: pip install 'wiresum[cuda]'")
    from wiresum.host_agent.backend.cuda.triton_kernels import TritonKernels

    return TritonKernels()


def numbers(tensor: torch.Tensor) -> Any:
    """An array of numpy with the same memory; numpy has no bfloat16."""
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def words(tensor: torch.Tensor) -> Any:
    return tensor.numpy().view(np.uint32)


SPECIAL = [
    0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 2.0**-149, -(2.0**-149),
    2.0**-126, 2.0**-127 + 2.0**-149, 3.4028234663852886e38, -3.4028234663852886e38, 65504.0,
    65520.0, 0.5, 1.5, 2.5, 63.5, 62.5, 127.0, -126.5, 6e-8, 2.0**-133,
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> tuple[list[torch.Tensor], str]:
    """One for each rank; blocks of all magnitudes, ties, denormals, Inf, NaN and zeros."""
    workers = draw(st.integers(1, 4))
    name = draw(st.sampled_from(sorted(DTYPES)))
    blocks, tail = draw(st.integers(1, 5)), draw(st.integers(0, BLOCK - 1))
    seed = draw(st.integers(0, 2**32 - 1))
    a_kind = st.sampled_from(["bits", "ties", "small", "zeros"])
    kinds = draw(st.lists(a_kind, min_size=6, max_size=6))
    places = draw(st.lists(st.tuples(st.integers(0, 1535), st.sampled_from(SPECIAL)), max_size=6))
    scale = draw(st.integers(-150, 127))
    made = np.random.default_rng(seed)
    given = []
    for rank in range(workers):
        values = np.empty((6, BLOCK), np.float32)
        for row, kind in zip(values, kinds, strict=True):
            if kind == "bits":
                row.view(np.uint32)[:] = made.integers(0, 2**32, BLOCK, np.uint64)
                row[~np.isfinite(row)] = 0.25
            elif kind == "ties":  # halves, where the largest element is L or a power of two
                row[:] = made.integers(-254, 255, BLOCK) / 2
                row[0] = 127 // workers
                row *= np.float32(2.0**scale) if scale > -140 else np.float32(2.0**-140)
            elif kind == "small":
                row[:] = made.integers(-9, 10, BLOCK) * np.float32(2.0**-149)
            else:
                row[:] = 0
        flat = values.ravel()
        for place, special in places[rank % 2 :: 2]:
            flat[place] = special
        with np.errstate(over="ignore"):
            given.append(torch.from_numpy(flat[: blocks * BLOCK + tail].copy()).to(DTYPES[name]))
    return given, name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of Inf and NaN
@settings(max_examples=examples(30))
@given(tensors(), st.sampled_from([16, 8]), st.booleans())
def test_a_device_quantizes_and_dequantizes_to_the_bits_of_the_engine(
    kernels: Kernels, drawn: tuple[list[torch.Tensor], str], bits: int, average: bool
) -> None:
    given, name = drawn
    workers, count = len(given), given[0].numel()
    blocks = -(-count // BLOCK)
    fields = Fields(bits, _engine.budget(workers, bits), workers)
    codes = []
    for each in given:
        mine = torch.empty(blocks, dtype=torch.int32)
        kernels.codes(each, mine)
        assert (words(mine) == _engine.exponents(numbers(each), name)).all()
        codes.append(mine)
    agreed = torch.from_numpy(np.maximum.reduce([words(each) for each in codes]).view(np.int32))
    scales = scales_of(agreed, fields, average=average)

    total = torch.zeros(blocks * fields.lanes, dtype=torch.int32)
    expected_total = 0
    zero = sum(fields.level << shift for shift in range(0, 32, bits))
    for each in given:
        lanes = torch.full_like(total, 77)
        kernels.encode(each, scales, fields, lanes)
        theirs = _engine.encode(numbers(each), name, words(agreed), workers, bits)
        sent = (agreed > 0).repeat_interleave(fields.lanes)
        assert not lanes[~sent].any()  # of blocks that nobody sends
        ours = words(lanes)[sent.numpy()] + np.uint32(zero)
        assert (ours[: theirs.size] == theirs).all()
        assert (ours[theirs.size :] == zero).all()  # beyond the end
        total += lanes
        expected_total = expected_total + theirs.astype(np.uint32)

    got, expected = given[0].clone(), given[0].clone()
    kernels.decode(total, scales, fields, got)
    _engine.decode(
        np.asarray(expected_total, np.uint32), numbers(expected), name, words(agreed), workers,
        bits, average,
    )  # fmt: skip
    kept = (agreed == -1).repeat_interleave(BLOCK)[:count]
    expected[kept] = given[0][kept]  # the device leaves these as they are
    assert (numbers(got).view(np.uint8) == numbers(expected).view(np.uint8)).all()


def test_all_steps_down_to_the_smallest_number_decode_to_the_bits_of_the_engine(
    kernels: Kernels,
) -> None:
    """Both sides of the step from which on sums are multiplied in single precision."""
    workers, bits = 3, 16
    fields = Fields(bits, _engine.budget(workers, bits), workers)
    exponents = list(range(-149, 128, 3))
    values = torch.zeros(len(exponents), BLOCK)
    made = torch.Generator().manual_seed(1)
    for row, exponent in zip(values, exponents, strict=True):
        row[:] = (torch.rand(BLOCK, generator=made) * 2 - 1).double() * 2.0**exponent
    flat = values.view(-1)
    agreed = torch.empty(len(exponents), dtype=torch.int32)
    kernels.codes(flat, agreed)
    scales = scales_of(agreed, fields, average=False)
    lanes = torch.empty(len(exponents) * fields.lanes, dtype=torch.int32)
    kernels.encode(flat, scales, fields, lanes)
    theirs = _engine.encode(flat.numpy(), "float32", words(agreed), workers, bits)
    # One rank's lanes, and zeros of the others.
    others = sum((workers - 1) * fields.level << shift for shift in range(0, 32, bits))
    expected, got = torch.empty_like(flat), torch.empty_like(flat)
    _engine.decode(
        theirs + np.uint32(others), expected.numpy(), "float32", words(agreed), workers, bits
    )
    kernels.decode(lanes, scales, fields, got)
    assert (words(got) == words(expected)).all()
