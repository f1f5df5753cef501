"""Trains for two steps in a group of its own, again and again; each model ends with its group."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

TIMES = 40


def once(store: str) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("wiresum", init_method=store, rank=rank, world_size=size)
    model = DistributedDataParallel(nn.Linear(200, 200))
    for _ in range(2):
        model(torch.ones(1, 200)).sum().backward()
    dist.barrier()
    dist.destroy_process_group()


for number in range(TIMES):
    once(f"file://{sys.argv[1]}/{number}")
print("ended well", flush=True)
