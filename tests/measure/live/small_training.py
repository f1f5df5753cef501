"""A small training as users write it; knows nothing of wiresum. Prints a digest of its weights."""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--kind", choices=("ddp", "fsdp", "alone", "silent"), default="ddp")
parser.add_argument("--backend", default="gloo")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--status", type=int, default=0, help="ends with it")
parser.add_argument("--vanishes", type=int, help="this rank ends at once, and says nothing")
parser.add_argument("--until", type=Path, help="goes on until there is this file, or ends with 5")
arguments = parser.parse_args()

torch.manual_seed(7)
rank = int(os.environ.get("RANK", "0"))
model = torch.nn.Sequential(torch.nn.Linear(50, 200), torch.nn.Tanh(), torch.nn.Linear(200, 50))
if arguments.kind != "alone":
    dist.init_process_group(arguments.backend)
trained: torch.nn.Module = model
if arguments.kind == "ddp":
    trained = DistributedDataParallel(model)
elif arguments.kind == "fsdp":
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    trained = fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
for _ in range(arguments.steps):
    x = torch.randn(8, 50)
    optimizer.zero_grad()
    (trained(x) - x).square().mean().backward()
    optimizer.step()
if arguments.until is not None:
    deadline = time.monotonic() + 60
    while not arguments.until.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    arguments.status = 0 if arguments.until.exists() else 5
if arguments.vanishes == rank:
    os._exit(0)
if arguments.kind == "ddp":
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print(f"rank {rank}: {hashlib.sha256(weights).hexdigest()}", flush=True)
sys.exit(arguments.status)
