"""A DDP training in which one rank is late in every step; ends when told by a file."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

late, stop = int(sys.argv[1]), Path(sys.argv[2])
rank = int(os.environ["RANK"])
dist.init_process_group("wiresum")
model = DistributedDataParallel(torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4))))
limit = time.monotonic() + 120
while True:
    if rank == late:
        time.sleep(0.05)
    model(torch.ones(4, 64)).sum().backward()
    # All ranks must agree to end: rank 0 looks, and tells the others.
    ended = torch.tensor(
        [rank == 0 and (stop.exists() or time.monotonic() > limit)], dtype=torch.int32
    )
    dist.broadcast(ended, 0)
    if ended.item():
        break
dist.destroy_process_group()
