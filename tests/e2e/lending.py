"""Local SGD that lends its slots between synchronizations; at most so many of them.

``--out FOLDER``: ``step.RANK`` (synchronizations so far), ``lease.RANK`` (the lease as ``dump()``
has it), ``report.RANK.json`` at the end. It stops once FOLDER/stop is there.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

import wiresum.host_agent
from wiresum.optim import LocalSGD

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--pause", type=float, default=0.2, help="seconds of a step")
parser.add_argument("--keep", action="store_true", help="lend nothing")
arguments = parser.parse_args()

dist.init_process_group("wiresum")
rank = dist.get_rank()
torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(40, 500), torch.nn.Tanh(), torch.nn.Linear(500, 7))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
syncs: list[float] = []
leases: list[object] = []


def write(name: str, text: str) -> None:
    made = arguments.out / f"{name}.new"
    made.write_text(text)
    made.rename(arguments.out / name)


def lease() -> dict[str, object]:
    found = wiresum.host_agent.dump()["groups"][0]["lease"]
    return {name: found.get(name) for name in ("slots", "change", "carrier")}


with LocalSGD(model, optimizer, sync_every=8, release_slots=not arguments.keep) as local:
    for number in range(8 * arguments.rounds):
        x = torch.randn(16, 40, generator=torch.Generator().manual_seed(100 * number + rank))
        optimizer.zero_grad()
        (model(x) - x[:, :7]).square().mean().backward()
        time.sleep(arguments.pause)
        began = time.monotonic()
        optimizer.step()
        leases.append(lease()["slots"])
        write(f"lease.{rank}", json.dumps(lease()))
        if local.rounds > len(syncs):
            syncs.append(time.monotonic() - began)
            write(f"step.{rank}", str(local.rounds))
            stops = torch.tensor([float((arguments.out / "stop").exists())])
            dist.broadcast(stops, 0)
            if stops.item():
                break

digest = hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in model.parameters()))
report = {
    "rounds": local.rounds,
    "digest": digest.hexdigest(),
    "syncs_s": syncs,
    "leases": sorted(set(leases)),  # type: ignore[type-var]
    "stats": wiresum.host_agent.stats(),
}
write(f"report.{rank}.json", json.dumps(report))
dist.destroy_process_group()
