"""accelerate: the group is made first, and Accelerator uses it."""

import accelerate
import torch
import torch.distributed as dist
from outcome import BACKEND, batches, leave, model

dist.init_process_group(BACKEND)
accelerator = accelerate.Accelerator(cpu=True)
assert accelerator.num_processes == dist.get_world_size()
rank = accelerator.process_index
net = model()
net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.01))
for inputs, targets in batches(rank):
    loss = torch.nn.functional.mse_loss(net(inputs), targets)
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
mean = accelerator.reduce(loss.detach(), "mean")
leave(rank, mean.item(), accelerate.__version__)
dist.destroy_process_group()
