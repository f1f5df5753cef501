"""One worker of a job under attack: reduces integers, step after step, until a file appears.

Every sum is compared with the integers' own, bit by bit. Prints a line for each step, and at the
first wrong sum or error one that begins with "error:".
"""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

ELEMENTS = 20_000
LARGEST = 1 << 20


def part(rank: int, step: int) -> torch.Tensor:
    """The contribution of ``rank`` to a step."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randint(1, LARGEST, (ELEMENTS,), generator=generator)


def main(stop: Path, straggle_s: float) -> None:
    dist.init_process_group("wiresum")
    rank, workers = dist.get_rank(), dist.get_world_size()
    step = 0
    while True:
        step += 1
        if rank == workers - 1:
            time.sleep(straggle_s)  # meanwhile the others' chunks lie in the switch
        tensor = part(rank, step).float()
        dist.all_reduce(tensor)
        want = torch.stack([part(r, step) for r in range(workers)]).sum(0)
        if not torch.equal(tensor.long(), want):
            print(f"error: wrong sum in step {step}", flush=True)
            sys.exit(4)
        # All stop after the same step: the last rank sees the file and tells the others.
        ends = torch.tensor([int(stop.exists())], dtype=torch.int64)
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        print(f"step {step}", flush=True)
        if ends.item():
            break
    dist.destroy_process_group()


try:
    main(Path(sys.argv[1]), float(sys.argv[2]))
except Exception as error:
    print("error:", " ".join(str(error).split()), flush=True)
    sys.exit(3)
