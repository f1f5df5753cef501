"""DDP over wiresum: torchrun --standalone --nproc-per-node 2 examples/ddp.py

Two words differ from the plain script: the backend's name.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from shapes import batches, evaluate, network

STEPS = 60

dist.init_process_group("wiresum")  # "gloo" in the plain script
model = DistributedDataParallel(network())
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for inputs, labels in batches(dist.get_rank(), STEPS):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()

evaluate(model.module)
dist.destroy_process_group()
