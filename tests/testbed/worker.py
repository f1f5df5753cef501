"""One worker of the restart tests: one all-reduce, another when the test makes a file, and then
one after the other until it is ended.

Prints one line for each all-reduce, and at an error one line that begins with "error:".
"""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

ELEMENTS = 20_000
LIMIT_S = 60.0


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"nobody made {path}")
        time.sleep(0.02)


def main(folder: Path) -> None:
    dist.init_process_group("wiresum")
    rank, workers = dist.get_rank(), dist.get_world_size()

    def all_reduce() -> None:
        tensor = torch.full((ELEMENTS,), rank + 1.0)
        dist.all_reduce(tensor)
        if set(tensor.unique().tolist()) != {workers * (workers + 1) / 2}:
            print("error: wrong sums", tensor.unique().tolist()[:5], flush=True)
            sys.exit(4)
        print("summed", flush=True)

    all_reduce()
    wait_for(folder / "again")
    all_reduce()
    try:
        while True:
            all_reduce()
    except Exception as error:
        print("error:", " ".join(str(error).split()), flush=True)
        sys.exit(3)


main(Path(sys.argv[1]))
