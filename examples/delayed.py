"""Delayed gradients over wiresum: torchrun --standalone --nproc-per-node 2 examples/delayed.py

Each step applies the mean gradient of the step before, which was summed while this one computed.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum
from shapes import batches, evaluate, network
from wiresum.optim import DelayedGradients

STEPS = 60

dist.init_process_group("wiresum")
model = DistributedDataParallel(network())
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

with DelayedGradients(model, optimizer, staleness=1):
    for inputs, labels in batches(dist.get_rank(), STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        wiresum.report(loss=loss)  # for `wiresum trial`

evaluate(model.module)
dist.destroy_process_group()
