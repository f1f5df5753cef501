"""DeepSpeed, which sums gradients on a group of all ranks that it makes itself."""

import deepspeed
import torch
from outcome import BACKEND, BATCH, batches, leave, model

# Its operator for sums within a host, which inference uses: compiling it takes minutes.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.init_distributed(dist_backend=BACKEND)
rank = deepspeed.comm.get_rank()
net = model()
engine, *_ = deepspeed.initialize(
    model=net,
    optimizer=torch.optim.SGD(net.parameters(), lr=0.01),
    config={"train_micro_batch_size_per_gpu": BATCH, "zero_optimization": {"stage": 0}},
)
for inputs, targets in batches(rank):
    loss = torch.nn.functional.mse_loss(engine(inputs), targets)
    engine.backward(loss)
    engine.step()
mean = loss.detach().clone()
deepspeed.comm.all_reduce(mean)
leave(rank, mean.item() / deepspeed.comm.get_world_size(), deepspeed.__version__)
torch.distributed.destroy_process_group()
