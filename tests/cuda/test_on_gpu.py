"""On a GPU: the bits of the CPU; and a table of how fast it is."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support.torchruns import clean_environment, finish
from wiresum.host_agent import _engine
from wiresum.host_agent.backend.cuda.kernels import Fields, TorchKernels, scales_of
from wiresum.host_agent.backend.cuda.torch_device import kernels_for

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(290)]

SCRIPT = Path(__file__).with_name("on_device.py")
BLOCK = _engine.BLOCK


def on_device(*words: str, wiresum: bool = True) -> str:
    env = clean_environment() | {"PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(SCRIPT), *words]
    run = [str(Path(sys.executable).with_name("wiresum")), "run", "--carrier", "ranks"]
    ended = finish([*run, "--field", "8", "--", *command] if wiresum else command, env, 120)
    assert ended.status == 0, ended.output
    return ended.output


def values(count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Any bits: denormals, Inf and NaN among them; and blocks without these."""
    made = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(1 << 31), (1 << 31) - 1, (count,), generator=made, dtype=torch.int64)
    found = bits.int().view(torch.float32)
    found[: count // 2] = torch.randn(count // 2, generator=made)
    found[BLOCK : 2 * BLOCK] *= 2.0**-140
    found[2 * BLOCK : 3 * BLOCK] = 0
    return found.to(dtype)


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_kernels_give_the_bits_of_the_cpu(dtype: torch.dtype, bits: int) -> None:
    gpu = torch.device("cuda")
    workers, count = 3, 1000 * BLOCK + 77
    blocks = -(-count // BLOCK)
    fields = Fields(bits, _engine.budget(workers, bits), workers)
    mine = values(count, dtype, bits)
    assert importlib.util.find_spec("triton") is not None, "pip install 'wiresum[cuda]'"
    found: list[list[torch.Tensor]] = []
    for kernels, where in (
        (TorchKernels(), torch.device("cpu")), (TorchKernels(), gpu), (kernels_for(gpu), gpu),
    ):  # fmt: skip
        given, codes = mine.to(where), torch.empty(blocks, dtype=torch.int32, device=where)
        kernels.codes(given, codes)
        scales = scales_of(codes, fields, average=True)
        lanes = torch.empty(blocks * fields.lanes, dtype=torch.int32, device=where)
        kernels.encode(given, scales, fields, lanes)
        out = given.clone()
        kernels.decode(lanes, scales, fields, out)
        found.append([each.cpu() for each in (codes, lanes, out.view(torch.uint8))])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_collectives_have_the_bits_of_cpu_tensors_and_trainings_the_losses_of_gloo() -> None:
    assert on_device("cuda", "check").count("bits equal") == 2


def seconds(work: Any, times: int = 20) -> float:
    for _ in range(3):
        work()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(times):
        work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000 / times


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    gpu = torch.device("cuda")
    count = 64 << 20
    given = torch.randn(count, device=gpu)
    out, codes = torch.empty_like(given), torch.empty(count // BLOCK, dtype=torch.int32, device=gpu)
    copied = seconds(lambda: out.copy_(given))
    rows = [("copy on the device, GB/s of elements", f"{given.nbytes / copied / 1e9:.0f}")]
    kernels = kernels_for(gpu)
    for bits in (16, 8):
        fields = Fields(bits, _engine.budget(2, bits), 2)
        kernels.codes(given, codes)
        scales = scales_of(codes, fields, average=False)
        lanes = torch.empty(count // BLOCK * fields.lanes, dtype=torch.int32, device=gpu)
        for name, work in (
            ("exponents", lambda: kernels.codes(given, codes)),
            ("quantize", lambda s=scales, f=fields, w=lanes: kernels.encode(given, s, f, w)),
            ("dequantize", lambda s=scales, f=fields, w=lanes: kernels.decode(w, s, f, out)),
        ):
            took = seconds(work)
            rate = f"{given.nbytes / took / 1e9:.0f}, {copied / took:.2f} of the copy's"
            rows.append((f"{name}, {bits} bits, GB/s of elements", rate))
    for backend in ("wiresum", "gloo", "nccl"):
        if backend == "nccl" and torch.cuda.device_count() < 2:
            rows.append(("step over nccl", "needs two GPUs"))
            continue
        said = on_device("cuda", "time", backend, wiresum=backend == "wiresum")
        timed = json.loads(next(line for line in said.splitlines() if line.startswith('{"ddp"')))
        for kind, took in timed.items():
            rows.append((f"step of {kind} over {backend}, ms", f"{1000 * took:.1f}"))
    with capsys.disabled():
        print()
        for name, value in rows:
            print(f"{name:<48} {value}")
