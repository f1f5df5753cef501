"""A small training for trials; its argument says how it behaves."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum

way = sys.argv[1]
dist.init_process_group("gloo")
torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 8))
model = net if way == "alone" else DistributedDataParallel(net, bucket_cap_mb=0.01)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
data = torch.Generator().manual_seed(dist.get_rank())
wanted = torch.randn(64, 8, generator=torch.Generator().manual_seed(99))
for step in range(12 if way == "short" else 1000):
    x = torch.randn(32, 64, generator=data)
    loss = torch.nn.functional.mse_loss(model(x), x @ wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if way == "prints":
        print(f"step {step} Loss: {float(loss):.6f}")
    elif way != "silent":
        wiresum.report(loss=loss)
    if way == "fails" and step == 5:
        raise RuntimeError("no such tensor")
print("the script has gone on")
