"""Trainings with local steps whose ranks wait at each synchronization, for a run that chooses H.

They come one after the other, as the arguments name them. The loss of a rank rises once, by far.
Each rank tells what was chosen, and its weights.
"""

import json
import sys
from typing import Any

import torch
import torch.distributed as dist

import wiresum
from wiresum import host_agent
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.optim import DiLoCo, LocalSGD

STEPS = 160


def train(way: str) -> dict[str, Any]:
    torch.manual_seed(3)
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    noise = torch.Generator().manual_seed(dist.get_rank())
    local: LocalSGD | DiLoCo
    if way == "local":
        local = LocalSGD(model, optimizer, sync_every=4)
    else:
        outer = torch.optim.SGD(model.parameters(), lr=1.0)
        local = DiLoCo(model, optimizer, outer, sync_every=4, delay=int(way == "late"))
    hs: list[int] = []
    with local:
        for step in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(8, 64, generator=noise)).square().mean().backward()
            optimizer.step()
            COUNTERS.count_exposed(10.0)  # the clock says less: all of the time is exposed
            risen = 100 <= step < 110
            wiresum.report(loss=torch.tensor(5.0 if risen and dist.get_rank() else 1.0))
            if not hs or hs[-1] != local.sync_every:
                hs.append(local.sync_every)
    if isinstance(local, LocalSGD):
        local.sync()
    alike = model.weight.double().sum().item() if way == "local" else 0.0
    return {"hs": hs, "rounds": local.rounds, "weights": alike}


dist.init_process_group("wiresum")
said: dict[str, Any] = {way: train(way) for way in sys.argv[1:]}
(group,) = [each for each in host_agent.dump()["groups"] if "tuning" in (each["lease"] or {})]
said["choices"] = group["lease"]["tuning"]["interval_choices"]
sys.stdout.write(f"{json.dumps(said)}\n")  # at once: another rank writes there, too
dist.destroy_process_group()
