"""DDP over wiresum: torchrun --standalone --nproc-per-node 2 examples/ddp.py

The backend's name differs from the plain script, and the report of the loss.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum
from shapes import batches, evaluate, network

STEPS = 60

dist.init_process_group("wiresum")  # "gloo" in the plain script
model = DistributedDataParallel(network())
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for inputs, labels in batches(dist.get_rank(), STEPS):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    wiresum.report(loss=loss)  # for `wiresum trial`

evaluate(model.module)
dist.destroy_process_group()
