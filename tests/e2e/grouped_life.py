"""What becomes of groups of some of the ranks in the life of a job, in several ways.

``restarts``: a rank dies, and torchrun starts all of them again. ``detail``: the debug level DETAIL
compares what the ranks of a group issue. ``forks``: a DataLoader's workers are forked while groups
exist, and one of them tries to use a group. ``threads``: threads issue collectives on groups of all
ranks at once. Each rank writes a report of what it has seen.
"""

import argparse
import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

import wiresum.host_agent
from wiresum.host_agent.errors import CollectiveMismatch, EngineClosed

PAIRS = ((0, 1), (1, 2), (0, 2))
STEPS = 30
LIMIT_S = 60.0


def carriers() -> list[str]:
    """That of each group that has a lease of its own."""
    leases = [group.get("lease", {}) for group in wiresum.host_agent.dump()["groups"]]
    return sorted(lease["carrier"] for lease in leases if "carrier" in lease)


class Life:
    """A rank with its groups of two."""

    def __init__(self) -> None:
        dist.init_process_group("wiresum")
        self.rank = dist.get_rank()
        made = [(pair, dist.new_group(list(pair))) for pair in PAIRS]
        self.ours = [(pair, group) for pair, group in made if self.rank in pair]
        self.seen = hashlib.sha256()
        self.report: dict[str, Any] = {"restart": os.environ.get("TORCHELASTIC_RESTART_COUNT")}

    def step(self, number: int) -> None:
        """A sum in each group and in the world, checked."""
        ordered = self.ours if (self.rank + number) % 2 else self.ours[::-1]
        tensors = [(pair, torch.full((2000,), float(self.rank + number))) for pair, _ in ordered]
        works = [
            dist.all_reduce(tensor, group=group, async_op=True)
            for (_, group), (_, tensor) in zip(ordered, tensors, strict=True)
        ]
        for work in works:
            work.wait()
        for pair, tensor in sorted(tensors, key=lambda each: each[0]):
            assert tensor.tolist() == [float(sum(pair) + 2 * number)] * 2000, (pair, number)
            self.seen.update(tensor.numpy().tobytes())
        whole = torch.full((500,), 1.5)
        dist.all_reduce(whole)
        assert whole.tolist() == [1.5 * dist.get_world_size()] * 500

    def restarts(self) -> None:
        """Rank 1 dies in its first life."""
        for number in range(STEPS):
            if number == STEPS // 2 and self.rank == 1 and self.report["restart"] == "0":
                os._exit(1)
            self.step(number)
        self.until_switch()

    def until_switch(self) -> None:
        """Go on until the switch carries in all groups on all ranks."""
        deadline, number = time.monotonic() + LIMIT_S, STEPS
        while True:
            left = torch.tensor(float(set(carriers()) != {"switch"}))
            dist.all_reduce(left)
            if left == 0:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"rank {self.rank}: {carriers()}")
            self.step(number)
            number += 1
            time.sleep(0.02)

    def detail(self) -> None:
        """All is well until one rank's tensor is longer."""
        for number in range(3):
            self.step(number)
        for pair, group in self.ours:
            if pair == (1, 2):
                try:
                    dist.all_reduce(torch.ones(3 + self.rank), group=group)
                except CollectiveMismatch as error:
                    self.report["mismatch"] = str(error)
        self.step(3)

    def forks(self) -> None:
        """Steps go on beside a loader whose forked workers have copies of the groups."""
        number = 0
        for epoch in range(2):
            loader = DataLoader(
                Forked(self.ours[0][1]), batch_size=2, num_workers=2, multiprocessing_context="fork"
            )
            for batch in loader:
                self.report[f"said{epoch}"] = sorted({*batch})
                self.step(number)
                number += 1

    def threads(self) -> None:
        """Each thread has a group of all ranks of its own; the main thread uses the default one."""
        everyone = list(range(dist.get_world_size()))
        groups = [dist.new_group(everyone) for _ in range(3)]
        wrong: list[object] = []

        def run(group: Any, size: int) -> None:
            try:
                for number in range(STEPS):
                    tensor = torch.full((size,), float(number))
                    dist.all_reduce(tensor, group=group)
                    if tensor.tolist() != [float(number * len(everyone))] * size:
                        wrong.append((size, number))
            except BaseException as error:
                wrong.append(repr(error))

        threads = [
            threading.Thread(target=run, args=(group, 10 + size))
            for size, group in enumerate(groups)
        ]
        for thread in threads:
            thread.start()
        for number in range(STEPS):
            self.step(number)
        for thread in threads:
            thread.join(LIMIT_S)
        self.report["wrong"] = wrong + [thread.name for thread in threads if thread.is_alive()]


class Forked(Dataset[str]):
    """Items that say what a collective in this process raises."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> str:
        try:
            dist.all_reduce(torch.ones(2), group=self.group)
        except EngineClosed as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"


def main() -> None:
    parser = argparse.ArgumentParser()
    ways = ("restarts", "detail", "forks", "threads")
    parser.add_argument("ways", nargs="+", choices=ways)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    life = Life()
    for way in options.ways:
        getattr(life, way)()
    life.report |= {
        "digest": life.seen.hexdigest(),
        "carriers": carriers(),
        "stats": wiresum.host_agent.stats(),
    }
    (options.out / f"report.{life.rank}.json").write_text(json.dumps(life.report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
