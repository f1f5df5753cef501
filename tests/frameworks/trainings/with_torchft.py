"""torchft: the ranks of a replica sum over BACKEND, the replicas over torchft's own gloo groups.

There is one replica of two ranks here, and the lighthouse is in rank 0's process.
"""

import os
from datetime import timedelta
from importlib.metadata import version

import torch
import torch.distributed as dist
from outcome import BACKEND, batches, leave, model
from torchft import Manager, Optimizer, ProcessGroupGloo
from torchft._torchft import LighthouseServer

dist.init_process_group(BACKEND)
rank = dist.get_rank()
if rank == 0:
    lighthouse = LighthouseServer(bind="127.0.0.1:0", min_replicas=1)
    port = lighthouse.address().rpartition(":")[2]
    os.environ["TORCHFT_LIGHTHOUSE"] = f"http://127.0.0.1:{port}"
net = model()
manager = Manager(
    pg=ProcessGroupGloo(timeout=timedelta(seconds=60)), min_replica_size=1,
    load_state_dict=net.load_state_dict, state_dict=net.state_dict,
    replica_id="replica-0", hostname="127.0.0.1",
)  # fmt: skip
ddp = torch.nn.parallel.DistributedDataParallel(net)
optimizer = Optimizer(manager, torch.optim.SGD(net.parameters(), lr=0.01))
for inputs, targets in batches(rank):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(ddp(inputs), targets)
    loss.backward()
    for parameter in net.parameters():
        manager.allreduce(parameter.grad).wait()
    optimizer.step()
mean = loss.detach().clone()
dist.all_reduce(mean)
leave(rank, mean.item() / dist.get_world_size(), version("torchft-nightly"))
manager.shutdown()
dist.destroy_process_group()
