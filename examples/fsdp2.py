"""FSDP2 over wiresum: torchrun --standalone --nproc-per-node 2 examples/fsdp2.py

The backend's name differs from the plain script, and the report of the loss. Each rank keeps a part
of the parameters: their all-gathers and the gradients' reduce-scatters go over the switch.
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import wiresum
from shapes import batches, evaluate, network

STEPS = 60

dist.init_process_group("wiresum")  # "gloo" in the plain script
model = network()
fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for inputs, labels in batches(dist.get_rank(), STEPS):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    wiresum.report(loss=loss)  # for `wiresum trial`

evaluate(model)
dist.destroy_process_group()
