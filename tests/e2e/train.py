"""A small DDP training, as a user would write it; writes its result as JSON."""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default="wiresum")
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--absent", type=int, help="this rank never joins")
parser.add_argument("--late", type=int, help="this rank sleeps for two seconds at step 3")
arguments = parser.parse_args()

rank = int(os.environ["RANK"])
if rank == arguments.absent:
    time.sleep(120)
    sys.exit(0)
torch.manual_seed(7)
if arguments.backend == "none":
    dist.init_process_group()
else:
    dist.init_process_group(arguments.backend)
model = torch.nn.Sequential(
    torch.nn.Linear(40, 300), torch.nn.Tanh(), torch.nn.Linear(300, 7), torch.nn.Tanh()
)
ddp = DistributedDataParallel(model, bucket_cap_mb=0.02)
optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05, momentum=0.9)
generator = torch.Generator().manual_seed(100 + rank)
loss = torch.zeros(())
for step in range(arguments.steps):
    if rank == arguments.late and step == 3:
        time.sleep(2)
    time.sleep(arguments.pause)
    x = torch.randn(16, 40, generator=generator)
    loss = (ddp(x) - x[:, :7]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    (arguments.out / f"step.{rank}").write_text(str(step))

digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
ones = torch.ones(1000)
dist.all_reduce(ones)
report = {
    "digest": digest.hexdigest(),
    "loss": float(loss.detach()),
    "ones": ones.unique().tolist(),
    "backend": dist.get_backend(),
}
if "wiresum" in report["backend"]:
    import wiresum.host_agent

    report["stats"] = wiresum.host_agent.stats()
(arguments.out / f"report.{rank}.json").write_text(json.dumps(report))
dist.destroy_process_group()
if report["backend"] == "gloo":  # wiresum's own groups do this themselves
    from wiresum.host_agent.backend.fallback import let_gloo_finish

    let_gloo_finish()
