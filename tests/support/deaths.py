"""Agents that live for a moment and die of SIGKILL, many at a time.

A fork server: it imports what an agent needs once, opens no channel itself, and forks every agent
from there, so that a thousand of them cost a thousand forks and not a thousand interpreters. Run as
a process of its own; prints a line of JSON now and then, and what came of all at the end.
"""

import argparse
import ctypes
import json
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.host_agent.agent.lease import open_engine
from wiresum.host_agent.agent.network import WorkerSocket, bound_socket
from wiresum.host_agent.engine import Engine, EngineOptions, raise_for

LIMIT_S = 60.0
BEAT_S = 0.3
COLLECTIVE_S = 1.0  # how long a survivor waits for the dead
SIZES = (500, 5_000, 50_000)
PAUSE_S = 0.02  # between two all-reduces: death comes in the middle of one, or between two
LANES = 64
WORKERS = 2
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_DYING: set[int] = set()


class Agent:
    """One forked process, and the lines that it has said."""

    def __init__(self, run: Callable[[Callable[[str], None]], None]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                run(lambda line: void(os.write(writing, line.encode() + b"\n")))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        self.reading = reading
        self._text = b""
        self.alive = True

    def read(self) -> None:
        """Read its output."""
        data = os.read(self.reading, 65536)
        if not data and self.alive:
            _, status = os.waitpid(self.pid, 0)
            self.alive = False
            os.close(self.reading)
            raise AssertionError(f"an agent ended by itself ({status}): {self.lines}")
        self._text += data

    @property
    def lines(self) -> list[str]:
        """Its output so far."""
        return self._text.decode().split("\n")[:-1]

    def kill(self) -> None:
        """End it as a crash would; :func:`bury` waits for the end."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
            self.alive = False
            _DYING.add(self.pid)
            os.close(self.reading)


def bury(*, all_of_them: bool = False) -> None:
    """Collect those that have been killed."""
    for pid in list(_DYING):
        if os.waitpid(pid, 0 if all_of_them else os.WNOHANG)[0]:
            _DYING.remove(pid)


def void(_value: object) -> None:
    """Forget a value."""


def launcher(controller: str, slots: int = 16) -> Callable[[Callable[[str], None]], None]:
    """Creates a job and keeps it alive."""

    def run(say: Callable[[str], None]) -> None:
        with ControllerClient(controller, timeout_s=LIMIT_S) as client:
            job = client.create_job(request=SlotRequest(slots))
            say(json.dumps({"job": job.id, "token": job.token, "number": job.number}))
            while True:
                time.sleep(BEAT_S)
                client.heartbeat(job.id, job.token)

    return run


def worker(
    controller: str, job: str, token: str, rank: int, attempt: int
) -> Callable[[Callable[[str], None]], None]:
    """Joins a job, reduces without end, and reports errors."""

    def run(say: Callable[[str], None]) -> None:
        with (
            ControllerClient(controller, token=token, timeout_s=LIMIT_S) as client,
            bound_socket("127.0.0.1") as bound,
        ):
            sock = WorkerSocket(bound, *bound.getsockname())
            say("joining")
            lease = client.join_job(
                job,
                token,
                JoiningRank(
                    rank=rank,
                    workers=WORKERS,
                    attempt=attempt,
                    ip="127.0.0.1",
                    udp_port=sock.udp_port,
                    field=32,
                ),
                timeout_s=LIMIT_S,
            )
            engine = open_engine(sock, lease, 32, EngineOptions(timeout_s=COLLECTIVE_S))
            try:
                reduce(engine, rank, lease.epoch, say)
            except WiresumError as error:
                say(f"error: {' '.join(str(error).split())}")
            while True:
                time.sleep(BEAT_S)
                client.heartbeat(job, token)

    return run


def reduce(
    engine: Engine, rank: int, seed: int, say: Callable[[str], None], steps: int = 1 << 30
) -> None:
    """All-reduces of all sizes; checks each sum."""
    sizes = random.Random(seed)
    for step in range(steps):
        count = sizes.choice(SIZES)
        data = np.full(count, rank + 1.0, np.float32)
        done = engine.wait(engine.all_reduce(data.ctypes.data, count, "float32", False), LIMIT_S)
        assert done is not None
        raise_for(done)
        assert (data == WORKERS * (WORKERS + 1) / 2).all(), "wrong sum"
        if step == 0:
            say("summed")
        time.sleep(PAUSE_S)


@dataclass
class Team:
    """A job and its agents; ``plan`` is a generator that yields the conditions it waits for."""

    controller: str
    rng: random.Random
    deaths: Counter[str]
    agents: list[Agent] = field(default_factory=list)
    plan: Any = None
    waits: Callable[[], bool] = lambda: True
    what: str = ""
    since: float = 0.0
    job: dict[str, str] = field(default_factory=dict)

    def fork(self, run: Callable[[Callable[[str], None]], None]) -> Agent:
        """One more agent."""
        made = Agent(run)
        self.agents.append(made)
        return made

    def work(self, rank: int, attempt: int = 0) -> Agent:
        """One more worker."""
        return self.fork(worker(self.controller, self.job["job"], self.job["token"], rank, attempt))

    def die(self, agents: list[Agent], how: str) -> None:
        """Kill them, one after the other or at once."""
        self.rng.shuffle(agents)
        for agent in agents:
            agent.kill()
            self.agents.remove(agent)
            self.deaths[how] += 1
            if self.rng.random() < 0.3:
                time.sleep(self.rng.random() * 0.01)

    def run(self) -> Any:
        """A life and its end; yields the conditions to wait for."""
        boss = self.fork(launcher(self.controller))
        yield lambda: len(boss.lines) > 0, "a job"
        self.job = json.loads(boss.lines[0])
        kind = self.rng.choices(["whole", "part", "joining", "restart", "early"], [5, 3, 1, 2, 1])[
            0
        ]
        if kind == "early":
            pass
        elif kind == "joining":
            lonely = self.work(self.rng.randrange(WORKERS))
            yield lambda: "joining" in lonely.lines, "a rank that joins"
            self.die([lonely], "while joining")
        else:
            pair = [self.work(rank) for rank in range(WORKERS)]
            yield lambda: all("summed" in each.lines for each in pair), "first sums"
            if kind == "part":
                number = self.rng.randrange(WORKERS)
                left = pair[1 - number]
                self.die([pair[number]], "worker of a live job")
                yield lambda: left.lines[-1].startswith("error: "), "the survivor's error"
                said = left.lines[-1]
                assert f"rank {number}" in said, said
                self.die([left], "survivor")
            elif kind == "restart":
                self.die(pair, "worker before a restart")
                pair = [self.work(rank, attempt=1) for rank in range(WORKERS)]
                yield lambda: all("summed" in each.lines for each in pair), "sums after a restart"
            self.die([each for each in pair if each in self.agents], "worker")
        self.die([boss], "launcher")

    def step(self) -> bool:
        """Go on as far as possible; False at the end."""
        if self.plan is None:
            self.plan = self.run()
            self.since = time.monotonic()
        while self.waits():
            try:
                self.waits, self.what = next(self.plan)
            except StopIteration:
                return False
            self.since = time.monotonic()
        assert time.monotonic() < self.since + LIMIT_S, f"{self.what} did not come"
        return True


def crowd(controller: str, deaths: int, at_once: int, seed: int) -> Counter[str]:
    """Have so many agents die; how they did."""
    rng = random.Random(seed)
    died: Counter[str] = Counter()
    teams: list[Team] = []
    told = 0
    try:
        while teams or died.total() < deaths:
            while len(teams) < at_once and died.total() < deaths:
                teams.append(Team(controller, random.Random(rng.getrandbits(64)), died))
            teams = [team for team in teams if team.step()]
            agents = {agent.reading: agent for team in teams for agent in team.agents}
            for reading in select.select(list(agents), [], [], 0.05)[0]:
                agents[reading].read()
            bury()
            if died.total() >= told + 100:
                told = died.total()
                print(json.dumps({"deaths": told}), flush=True)
    finally:
        for team in teams:
            for agent in team.agents:
                agent.kill()
        bury(all_of_them=True)
    return died


def fresh(controller: str, slots: int) -> dict[str, Any]:
    """A job of so many slots whose workers sum; returns the launcher's view of it."""
    agents = [Agent(launcher(controller, slots))]
    try:
        while not agents[0].lines:
            agents[0].read()
        job: dict[str, Any] = json.loads(agents[0].lines[0])
        for rank in range(WORKERS):
            agents.append(Agent(worker(controller, job["job"], job["token"], rank, 0)))
        for agent in agents[1:]:
            while "summed" not in agent.lines:
                agent.read()
    finally:
        for agent in agents:
            agent.kill()
        bury(all_of_them=True)
    return job


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--controller", required=True)
    parser.add_argument("--deaths", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=0, help="slots of one job that must work")
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.fresh:
        print(json.dumps(fresh(asked.controller, asked.fresh)), flush=True)
        return
    died = crowd(asked.controller, asked.deaths, asked.at_once, asked.seed)
    print(json.dumps({"died": died}), flush=True)


if __name__ == "__main__":
    main()
