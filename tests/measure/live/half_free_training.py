"""A training whose every second step does not communicate; prints what that saves, as JSON.

What it computes is made of operators that sleep: a loaded machine makes them no longer.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

LAYERS, SETTLE = 4, 4
# `many`: short steps of many operators, whose recording costs much.
WIDTH, FORWARD_S, BACKWARD_S, OPERATORS = (
    (300, 0.004, 0.012, 500) if sys.argv[2:] == ["many"] else (900, 0.02, 0.08, 0)
)

library = torch.library.Library("halffree", "DEF")
library.define("work(Tensor x, float seconds) -> Tensor")


def work(x: torch.Tensor, seconds: float) -> torch.Tensor:
    time.sleep(seconds)
    return x.clone()


library.impl("work", work, "CPU")


class Work(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.ops.halffree.work(x, FORWARD_S)

    @staticmethod
    def backward(ctx, gradient):
        return torch.ops.halffree.work(gradient, BACKWARD_S)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        with torch.no_grad():
            for _ in range(OPERATORS):
                x + 1
        return Work.apply(self.linear(x))


def carried() -> int:
    """Bytes that the loopback interface of this network namespace has sent."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if "lo:" in x)
    return int(line.split()[9])


torch.manual_seed(1)
dist.init_process_group("gloo")
model = torch.nn.Sequential(*(Block() for _ in range(LAYERS)))
ddp = DistributedDataParallel(model, bucket_cap_mb=1)
free = False


def reduce(_state, bucket):
    if free:
        done: torch.futures.Future = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda ended: ended.value()[0])


ddp.register_comm_hook(None, reduce)
optimizer = torch.optim.SGD(ddp.parameters(), lr=1e-3)
x = torch.randn(2, WIDTH)
times: tuple[list[float], list[float]] = ([], [])
steps = int(sys.argv[1])
before = 0
for step in range(steps):
    if step == SETTLE:
        dist.barrier()
        before = carried()
    began = time.perf_counter()
    optimizer.zero_grad()
    free = step % 2 == 1
    ddp(x).square().mean().backward()
    optimizer.step()
    if step >= SETTLE:
        times[step % 2].append(time.perf_counter() - began)
dist.barrier()
time.sleep(0.5)
if dist.get_rank() == 0:
    with_it, without = (statistics.median(each) for each in times)
    print(
        json.dumps(
            {
                "saved_share": (with_it - without) / (with_it + without),
                "carried_per_step": (carried() - before) / (steps - SETTLE),
            }
        ),
        flush=True,
    )
dist.barrier()
