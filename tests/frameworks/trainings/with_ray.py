"""Ray Train: its workers are started by Ray's own processes, and get the job's environment."""

import tempfile
from pathlib import Path

import ray
import torch
from outcome import BACKEND, OUT, batches, leave, model
from ray.train import RunConfig, ScalingConfig, get_context
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


HERE, TRIES = str(Path(__file__).parent), 4


def start(place: str) -> None:
    """Start Ray, which gives its raylet 30 s: too little where all cores are busy."""
    settings = {
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": 100 << 20,
        "_temp_dir": place,
        "runtime_env": {"env_vars": {**wiresum.host_agent.variables(), "PYTHONPATH": HERE}},
    }
    for left in reversed(range(TRIES)):
        try:
            ray.init(**settings)
            return
        except Exception as error:
            if left == 0 or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
    start(place)
    TorchTrainer(
        train,
        torch_config=TorchConfig(backend=BACKEND),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=place),
    ).fit()
    ray.shutdown()
