"""Four ranks in groups, of which the last one dies. Each other rank says what came of it."""

import os
import signal

import torch
import torch.distributed as dist
from scenario_tools import LIMIT

PAIRS = ((0, 1), (1, 2), (2, 3), (1, 3))


def main() -> None:
    dist.init_process_group("wiresum", timeout=LIMIT)
    rank = dist.get_rank()
    groups = {pair: dist.new_group(list(pair), timeout=LIMIT) for pair in PAIRS}

    def reduce(*pair: int) -> str:
        ones = torch.ones(2000)
        try:
            dist.all_reduce(ones, group=groups[pair])
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return str(ones[0].item())

    begun = [reduce(*pair) for pair in PAIRS[:3] if rank in pair]
    assert begun == ["2.0"] * len(begun), begun
    dist.barrier()
    if rank == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 2:
        print(f"rank 2 in a group that has begun: {reduce(2, 3)}", flush=True)
    if rank == 1:
        print(f"rank 1 in a group that has not: {reduce(1, 3)}", flush=True)
        print(f"rank 1 after that: {reduce(1, 3)}", flush=True)
    for pair in ((0, 1), (1, 2)):
        if rank in pair:
            print(f"rank {rank} among the living: {reduce(*pair)}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
