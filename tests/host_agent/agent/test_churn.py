"""Ranks join, leave and die in any order: equal weights after every step, and nothing is left."""

import gc
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from churn_rig import Group

from support.torchruns import fresh_session
from wiresum.controller.client import ControllerClient
from wiresum.host_agent.agent import join as joining
from wiresum.host_agent.environment import Carrier
from wiresum.host_agent.launcher.session import Session

MOST = 4
LIMIT_S = 200.0
SEED = int(os.environ.get("WIRESUM_TEST_SEED", "1"))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def opened() -> list[str]:
    """What this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue  # that of the folder itself
    return sorted(found)


def shared_memory(pid: int) -> int:
    """Mappings of memory that the switch shares with workers."""
    text = Path(f"/proc/{pid}/maps").read_text()
    return sum("memfd" in line or "/dev/shm" in line for line in text.splitlines())


def eventually(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Census:
    """What may leak, counted while no rank is there."""

    def __init__(self, session: Session) -> None:
        embedded = session.embedded
        assert embedded is not None
        self.session = session
        self.pids = [os.getpid(), *(child.process.pid for child in embedded.children)]
        self.controller, self.token = embedded.controller, embedded.token
        self.before = self.count()

    def count(self) -> dict[str, list[int]]:
        return {
            "descriptors": [descriptors(pid) for pid in self.pids],
            "shared memory": [shared_memory(pid) for pid in self.pids],
            "threads": [threading.active_count()],
        }

    def check(self) -> None:
        """No more of anything than before."""
        gc.collect()  # what Python would free at some time: an engine's eventfd is among it
        eventually(
            lambda: all(
                now <= was
                for what, counts in self.count().items()
                for now, was in zip(counts, self.before[what], strict=True)
            ),
            lambda: f"before: {self.before}, now: {self.count()}, open here: {opened()}",
        )
        with ControllerClient(self.controller, token=self.token) as client:
            (switch,) = client.list_switches()
            (job,) = client.list_jobs()
            assert (switch.jobs, switch.slots - switch.free_slots) == (1, job.slots)


@pytest.mark.parametrize("events", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(7200)
def test_ranks_come_go_and_die(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine alone makes no attempt begin without the switch.
    monkeypatch.setattr(joining, "AWAY_S", LIMIT_S)
    chance = random.Random(SEED)
    counts = {"joins": 0, "leaves": 0, "deaths": 0}
    with fresh_session(carrier=Carrier.AUTO) as session:
        group = Group(session.environment)
        census: Census | None = None
        seeds = iter(range(1 << 30))
        for _ in range(2):
            group.grow()
        for number in range(events + 3):
            group.form()
            for _ in range(chance.randint(1, 3)):
                group.step(next(seeds))
            size, seed = len(group.members), next(seeds)
            if size == 1 or (size < MOST and chance.random() < 0.5):
                group.a_rank_joins(seed)
                counts["joins"] += 1
            else:
                which, late = chance.randrange(size), chance.random() < 0.5
                if chance.random() < 0.5:
                    group.a_rank_leaves(seed, which, late=late)
                    counts["leaves"] += 1
                else:
                    group.a_rank_dies(seed, which, late=late)
                    counts["deaths"] += 1
            if number == 2:  # what is made once is there by now
                members = len(group.members)
                census = Census(session)
                census.before["threads"][0] += MOST - members
            elif number % 100 == 0 and census is not None:
                census.check()
        assert census is not None
        census.check()
        assert len(group.epochs) == events + 3
        for member in group.members:
            member.end()
    print(f"seed {SEED}: {counts}, {group.epochs[-1] - group.epochs[0] + 1} epochs")
