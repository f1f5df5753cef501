"""A training that communicates more than it computes, for runs that choose their field."""

import json
import sys

import torch
import torch.distributed as dist

import wiresum
from wiresum import host_agent

way = sys.argv[1]
if way == "script":
    wiresum.tune(within=0.01, steps=3)
dist.init_process_group("wiresum" if way == "script" else "gloo")
if way == "late":
    wiresum.tune()
weights = torch.nn.Parameter(torch.zeros(300_000))
optimizer = torch.optim.SGD([weights], lr=0.1)
noise = torch.Generator().manual_seed(dist.get_rank())
for step in range(24):
    weights.grad = torch.randn(weights.shape, generator=noise)
    for part in weights.grad.chunk(4):  # as many as go between two words
        dist.all_reduce(part)
    optimizer.step()
    # It rises once, by far.
    wiresum.report(loss=torch.tensor(5.0 if step in (12, 13, 14) else 1.0))
(group,) = [each for each in host_agent.dump()["groups"] if "tuning" in (each["lease"] or {})]
choices = group["lease"]["tuning"]["choices"]
said = json.dumps({"choices": choices, "weights": weights.double().sum().item()})
sys.stdout.write(f"{said}\n")  # at once: another rank writes there, too
dist.destroy_process_group()
