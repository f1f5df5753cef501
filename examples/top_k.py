"""Top-k blocks over wiresum: torchrun --standalone --nproc-per-node 2 examples/top_k.py

The ranks send the quarter of each gradient's blocks that is largest, in 8 bits, and the rest later.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum
from shapes import batches, evaluate, network
from wiresum import hooks

STEPS = 60

dist.init_process_group("wiresum")
model = DistributedDataParallel(network())
model.register_comm_hook(hooks.TopK(model, k=0.25, bits=8), hooks.compress)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for inputs, labels in batches(dist.get_rank(), STEPS):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    wiresum.report(loss=loss)  # for `wiresum trial`

evaluate(model.module)
dist.destroy_process_group()
