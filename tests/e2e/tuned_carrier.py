"""A training whose steps take longer over one carrier than over the other, as told.

``slow`` in the folder ``--out`` names the carrier over which a step takes longer by a pause, which
counts as waiting for collectives. ``state.RANK`` there has the carrier, and the one chosen;
``report.RANK.json`` the end. It trains until there is a file ``end``, or for ``--steps`` steps.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

from wiresum import host_agent
from wiresum.host_agent.agent.counters import COUNTERS

PAUSE_S = 0.1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    out: Path = options.out

    dist.init_process_group("wiresum")
    rank = dist.get_rank()
    weights = torch.nn.Parameter(torch.zeros(8_000))
    optimizer = torch.optim.SGD([weights], lr=0.1)
    noise = torch.Generator().manual_seed(rank)
    seen = hashlib.sha256()
    digests, carriers = [], []
    lease = {}
    for _ in range(options.steps):
        weights.grad = torch.randn(weights.shape, generator=noise)
        for part in weights.grad.chunk(4):  # as many as go between two words
            dist.all_reduce(part)
        seen.update(weights.grad.numpy().tobytes())
        digests.append(seen.hexdigest()[:16])
        lease = host_agent.dump()["groups"][0]["lease"]
        carrier = lease["carrier"]
        if not carriers or carriers[-1] != carrier:
            carriers.append(carrier)
        slow = out / "slow"
        if slow.exists() and slow.read_text() == carrier:
            time.sleep(PAUSE_S)
            COUNTERS.count_exposed(PAUSE_S)
        optimizer.step()
        chosen = lease.get("tuning", {}).get("carrier")
        (out / f"state.{rank}.new").write_text(f"{carrier} {chosen}")
        (out / f"state.{rank}.new").rename(out / f"state.{rank}")
        ends = torch.tensor([float((out / "end").exists())])
        dist.all_reduce(ends)
        if ends.item():
            break
    report = {
        "digests": digests,
        "weights": weights.double().sum().item(),
        "carriers": carriers,
        "choices": lease.get("tuning", {}).get("carrier_choices"),
        "fields": lease.get("tuning", {}).get("choices"),
        "failed": host_agent.stats()["failed"],
    }
    (out / f"report.{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
