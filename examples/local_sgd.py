"""Local SGD over wiresum: torchrun --standalone --nproc-per-node 2 examples/local_sgd.py

The ranks take the mean of their models every 4 steps: a quarter of the bytes of DDP.
"""

import torch
import torch.distributed as dist

import wiresum
from shapes import batches, evaluate, network
from wiresum.optim import LocalSGD

STEPS = 60

dist.init_process_group("wiresum")
model = network()  # not wrapped in DDP
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

with LocalSGD(model, optimizer, sync_every=4, warmup_steps=8) as local:
    for inputs, labels in batches(dist.get_rank(), STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        wiresum.report(loss=loss)  # for `wiresum trial`
local.sync()

evaluate(model)
dist.destroy_process_group()
