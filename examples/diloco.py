"""DiLoCo over wiresum: torchrun --standalone --nproc-per-node 2 examples/diloco.py

The ranks send the change of their models every 10 steps, in 2 fragments: a tenth of DDP's bytes.
"""

import torch
import torch.distributed as dist

import wiresum
from shapes import batches, evaluate, network
from wiresum.optim import DiLoCo

STEPS = 60

dist.init_process_group("wiresum")
model = network()  # not wrapped in DDP
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)

with DiLoCo(model, optimizer, outer, sync_every=10, fragments=2):
    for inputs, labels in batches(dist.get_rank(), STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        wiresum.report(loss=loss)  # for `wiresum trial`

evaluate(model)
dist.destroy_process_group()
