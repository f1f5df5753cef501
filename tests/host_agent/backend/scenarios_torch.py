"""What torch itself does around a collective: subclasses, modes, profilers, hooks, joins."""

import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from scenario_tools import expect, over_switch, rank, size
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

warnings.simplefilter("ignore")


def unwaited_results() -> None:
    total = size() * (size() + 1) / 2 * size()
    world = dist.group.WORLD
    before = over_switch()
    unwaited = functional.all_reduce(torch.full((4,), rank() + 1.0), "sum", world)
    dist.all_reduce(unwaited)
    expect(bool((unwaited + 0 == total).all()), unwaited)
    mesh = init_device_mesh("cpu", (size(),))
    local = DTensor.from_local(torch.full((4,), rank() + 1.0), mesh, [Partial()])
    shared = local.redistribute(placements=[Replicate()], async_op=True).to_local()
    dist.all_reduce(shared)
    expect(bool((shared + 0 == total).all()), shared)
    expect(over_switch() > before, "nothing went over the switch")


LATE_S = 0.3


class Seen(TorchDispatchMode):
    """Notes the names of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def seen_by_modes_and_profilers() -> None:
    tensor = torch.ones(9)
    with CommDebugMode() as counted:
        dist.all_reduce(tensor)
    expect(sum(counted.get_comm_counts().values()) == 1, counted.get_comm_counts())
    with Seen() as seen:
        work = dist.all_reduce(tensor, async_op=True)
        work.wait()
    expect("c10d.allreduce_.default" in seen.names, seen.names)
    expect(work.is_completed() and work.is_success(), "no SwitchWork came back")
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        if rank() == 1:
            time.sleep(LATE_S)
        dist.all_reduce(tensor)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiled.export_chrome_trace(str(file))
        events = {each["name"]: each for each in json.loads(file.read_text())["traceEvents"]}
    expect("c10d::allreduce_" in events, list(events))
    expect(rank() == 1 or events["wiresum:all_reduce"]["dur"] > 0.9e6 * LATE_S, "ended too soon")
    described = {
        "Collective name": "allreduce", "dtype": "Float", "In msg nelems": 9, "Out msg nelems": 9,
        "Group size": size(), "Process Group Name": "0",
        "Process Group Ranks": str(list(range(size()))),
    }  # fmt: skip
    found = events["wiresum::all_reduce"]["args"]
    expect(described.items() <= found.items(), found)
    expect(bool((tensor == size() ** 3).all()), tensor)


def futures_of_works() -> None:
    for _ in range(100):
        work = dist.all_reduce(torch.full((4,), rank() + 1.0), async_op=True)
        early = work.get_future() if rank() == 0 else None
        work.wait()
        future = work.get_future()
        expect(future.done() and (early is None or early.done()), "the future is not complete")
        expect(future.value()[0][0] == size() * (size() + 1) / 2, future.value())
    expect(work.result()[0] is future.value()[0], "another tensor")


def builtin_hooks() -> None:
    for hook in (dist.BuiltinCommHookType.ALLREDUCE, dist.BuiltinCommHookType.FP16_COMPRESS):
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Linear(4, 1))
        model._register_builtin_comm_hook(hook)
        model(torch.full((2, 4), rank() + 1.0)).sum().backward()
        expect(model.module.weight.grad[0, 0].item() == size() + 1.0, model.module.weight.grad)


def joins() -> None:
    for divided in (False, True):
        model = DistributedDataParallel(nn.Linear(5, 5, bias=False))
        grads = []
        with model.join(divide_by_initial_world_size=divided):
            for _ in range(3 + 2 * rank()):
                model(torch.full((1, 5), 50.0)).sum().backward()
                grads.append(model.module.weight.grad[0, 0].item())
                model.zero_grad()
        last = 50.0 / size() if divided and size() > 1 and rank() == size() - 1 else 50.0
        expect(grads[:3] == [50.0] * 3, grads)
        expect(grads[-1] == (last if rank() == size() - 1 else grads[-1]), grads)


def objects() -> None:
    said: list[Any] = [None] * size()
    dist.all_gather_object(said, rank())
    expect(said == list(range(size())), said)
    expect(not torch.cuda.is_available(), "this test is for machines without a GPU")
    expect("cuda" not in dist.Backend.backend_capability["wiresum"], "cuda is registered")


def mismatches_in_detail() -> None:
    """With TORCH_DISTRIBUTED_DEBUG=DETAIL: ranks that call other collectives hear it at once."""
    for wrong in (
        lambda: dist.broadcast(torch.ones(4 if rank() else 2), 0),
        lambda: dist.all_reduce(torch.ones(4, dtype=[torch.float32, torch.int32][rank() % 2])),
        lambda: dist.barrier() if rank() else dist.all_reduce(torch.ones(3)),
    ):
        dist.all_reduce(torch.ones(4))
        try:
            wrong()
        except RuntimeError as error:
            expect("Detected mismatch between collectives on ranks" in str(error), error)
        else:
            raise AssertionError("no error")
