"""A small training of one of two tenants; writes its result as JSON.

With --gate it reports after the first step that it is ready, and goes on once that file exists.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

LIMIT_S = 120.0

parser = argparse.ArgumentParser()
parser.add_argument("--model", choices=("images", "text"), required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--gate", type=Path)
arguments = parser.parse_args()


class Text(nn.Module):
    """Predicts the next of 50 symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.recurrent = nn.GRU(24, 48, batch_first=True)
        self.head = nn.Linear(48, 50)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.recurrent(self.embedding(symbols))[0]
        return self.head(states).transpose(1, 2)


def images() -> nn.Module:
    """Sorts 12 × 12 pixels into 7 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 7),
    )  # fmt: skip


torch.manual_seed(11)
torch.use_deterministic_algorithms(True)
dist.init_process_group("wiresum")
rank = dist.get_rank()
generator = torch.Generator().manual_seed(50 + rank)
if arguments.model == "images":
    model: nn.Module = images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
else:
    model = Text()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
ddp = DistributedDataParallel(model, bucket_cap_mb=0.03)
loss = torch.zeros(())
began = time.time()
for step in range(arguments.steps):
    if arguments.model == "images":
        x = torch.randn(24, 1, 12, 12, generator=generator)
        labels = (x.mean(dim=(1, 2, 3)) * 40).long().clamp(-3, 3) + 3
        loss = nn.functional.cross_entropy(ddp(x), labels)
    else:
        symbols = torch.randint(0, 50, (8, 17), generator=generator).cumsum(1) % 50
        loss = nn.functional.cross_entropy(ddp(symbols[:, :-1]), symbols[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 0 and arguments.gate is not None:
        (arguments.out / f"ready.{rank}").touch()
        deadline = time.monotonic() + LIMIT_S
        while not arguments.gate.exists():
            assert time.monotonic() < deadline, "nobody opened the gate"
            time.sleep(0.005)
        began = time.time()

import wiresum.host_agent  # noqa: E402 - after what the training is about

weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
report = {
    "digest": hashlib.sha256(weights).hexdigest(),
    "loss": float(loss.detach()),
    "began": began,
    "ended": time.time(),
    "workers": dist.get_world_size(),
    "switch": wiresum.host_agent.stats()["switch"],
}
(arguments.out / f"report.{rank}.json").write_text(json.dumps(report))
dist.destroy_process_group()
