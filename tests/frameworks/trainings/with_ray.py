"""Ray Train: its workers are started by Ray's own processes, and get the job's environment."""

from pathlib import Path

import ray
import torch
from outcome import BACKEND, OUT, batches, leave, model
from ray.train import ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model

import wiresum.host_agent


def train() -> None:
    rank = get_context().get_world_rank()
    net = prepare_model(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for inputs, targets in batches(rank):
        loss = torch.nn.functional.mse_loss(net(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    leave(rank, mean.item() / get_context().get_world_size(), ray.__version__, OUT)


here = str(Path(__file__).parent)
ray.init(
    num_cpus=2,
    include_dashboard=False,
    runtime_env={"env_vars": {**wiresum.host_agent.variables(), "PYTHONPATH": here}},
)
TorchTrainer(
    train,
    torch_config=TorchConfig(backend=BACKEND),
    scaling_config=ScalingConfig(num_workers=2),
).fit()
ray.shutdown()
