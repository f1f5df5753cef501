"""A training with three groups of two ranks in flight at a time, beside sums of all three ranks.

Callbacks issue sums, too. As ``steady.py``, it tells how far it is, and what its tensors were; the
carrier in ``step.RANK`` is the switch once that carries in every group of the rank.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import wiresum.host_agent

PAIRS = ((0, 1), (1, 2), (0, 2))


def carrier() -> str:
    leases = [group.get("lease", {}) for group in wiresum.host_agent.dump()["groups"]]
    found = {lease["carrier"] for lease in leases if "carrier" in lease}
    return "switch" if found == {"switch"} else "ranks"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.02)
    options = parser.parse_args()

    dist.init_process_group("wiresum")
    rank = dist.get_rank()
    groups = [(pair, dist.new_group(list(pair))) for pair in PAIRS]
    ours = [group for pair, group in groups if rank in pair]
    draw = torch.Generator().manual_seed(100 + rank)
    seen = hashlib.sha256()
    carriers: list[str] = []

    def again(future: Any) -> torch.Tensor:
        (summed,) = future.value()
        twice = summed[:2000] * 0.5
        dist.all_reduce(twice)
        return twice

    for step in range(options.steps):
        order = ours if (rank + step) % 2 else ours[::-1]
        tensors = {group: torch.randn(30_000, generator=draw) for group in ours}
        copies = {group: torch.randn(4_000, generator=draw) for group in ours}
        gathered = {group: [torch.empty(4_000) for _ in range(2)] for group in ours}
        whole = torch.randn(9_000, generator=draw)
        works = []
        for group in order:
            works.append(dist.all_reduce(tensors[group], group=group, async_op=True))
            works.append(
                dist.all_gather(gathered[group], copies[group], group=group, async_op=True)
            )
        chained = dist.all_reduce(whole, async_op=True).get_future().then(again)
        for work in works:
            work.wait()
        copied = [each for found in gathered.values() for each in found]
        for tensor in (*tensors.values(), *copied, chained.wait(), whole):
            seen.update(tensor.numpy().tobytes())
        now = carrier()
        if not carriers or carriers[-1] != now:
            carriers.append(now)
        (options.out / f"step.{rank}.new").write_text(f"{step} {now}")
        (options.out / f"step.{rank}.new").rename(options.out / f"step.{rank}")
        time.sleep(1.5 if (options.out / "slow").exists() else options.pause)
    report = {
        "digest": seen.hexdigest(),
        "carriers": carriers,
        "stats": wiresum.host_agent.stats(),
    }
    (options.out / f"report.{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
