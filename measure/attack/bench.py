"""``wiresum bench flood``: how much a flood at the attacker's link rate slows a job.

One rack has the job's workers, and one more host, which floods. The same all-reduce is timed
without and with each kind of flood in turn, round after round, so that each ratio is of two
neighbours in time.
"""

import json
import math
import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.common.errors import LineText
from wiresum.controller.client.requests import SlotRequest
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure import lines
from wiresum.measure.attack.priority import prefer_switch
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter, run
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import SWITCH_IP, Rack, worker_ip

START_S = 60.0
LIMIT_S = 60.0
SLOTS = 512
FIRST = 500  # chunks of the all-reduce by which the size is found
NOWHERE = "nowhere0"
_SETTLE_S = 0.3  # from the start of a flood to the start of the timed all-reduce
_READ = 65536


def _mac(ip: str) -> str:
    """The hardware address that the controller assumes for a worker that gave none."""
    return "02:00:" + IPv4Address(ip).packed.hex(":")


class Talker:
    """A process that answers orders in lines of JSON."""

    def __init__(self, what: str, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.what = what
        self.log = log
        self._rest = b""
        with log.open("ab") as errors:
            self.process = process.start(
                command,
                supervised=False,
                options=process.ProcessOptions(
                    env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                ),
            )

    def tell(self, order: dict[str, Any]) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise RackError(self._obituary()) from None

    def hear(self, limit_s: float) -> dict[str, Any]:
        """Its next line. Raises :class:`RackError` for none, or one that tells of an error."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise RackError(lines.PART_SILENT.of(part=self.what, limit_s=limit_s))
            data = os.read(descriptor, _READ)
            if not data:
                raise RackError(self._obituary())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise RackError(lines.PART_FAILED.of(part=self.what, why=said["error"]))
        return said

    def _obituary(self) -> LineText:
        status = process.exit_status(self.process.wait())
        said = self.log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        return lines.PART_ENDED.of(part=self.what, status=status, last_words=said[-1])

    def end(self) -> None:
        """Stop it."""
        process.end(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Round:
    """One all-reduce. ``mbit`` and ``frames_s`` are of the flood that went on meanwhile."""

    seconds: float
    retransmitted: float
    mbit: float = 0.0
    frames_s: float = 0.0


class Scene:
    """The rack with its job and its attacker; use as a context manager."""

    def __init__(self, rack: Rack, workers: int, *, priority: bool) -> None:
        self.rack = rack
        self.workers = workers
        self._seed = 0
        self._exits = ExitStack()
        try:
            if priority:
                prefer_switch(rack)
            self._make_nowhere()
            session = self._exits.enter_context(
                Session(
                    JobOptions(
                        controller=rack.controller,
                        name="flooded",
                        slots=SlotRequest(SLOTS),
                        token=rack.token,
                    )
                )
            )
            self._victims = [self._victim(rank, session) for rank in range(workers)]
            said = [victim.hear(START_S) for victim in self._victims]
        except BaseException:
            self._exits.close()
            raise
        self._target = {
            "switch": [_mac(SWITCH_IP), SWITCH_IP, UDP_PORT],
            "workers": [each["address"] for each in said],
            "attacker": [_mac(worker_ip(workers)), worker_ip(workers), UDP_PORT],
            "job": said[0]["job"], "epoch": said[0]["epoch"], "lanes": rack.options.lanes,
        }  # fmt: skip

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    @property
    def attacker(self) -> str:
        """The host that floods."""
        return f"w{self.workers}"

    def _enter(self, node: str) -> tuple[str, ...]:
        return enter(self.rack.record.nodes[node].namespace)

    def _make_nowhere(self) -> None:
        """A link as fast as the others, both ends of which are on the attacker's host."""
        here = self._enter(self.attacker)
        run(*here, "ip", "link", "add", NOWHERE, "type", "veth", "peer", "name", "nowhere1")
        for name in (NOWHERE, "nowhere1"):
            run(*here, "ip", "link", "set", name, "up")
        rate = self.rack.options.rate_mbit
        if rate is not None:
            shape = ["tbf", "rate", f"{rate}mbit", "burst", "15kb", "latency", "50ms"]
            run(*here, "tc", "qdisc", "add", "dev", NOWHERE, "root", *shape)

    def _victim(self, rank: int, session: Session) -> Talker:
        node = f"w{rank}"
        command = [
            *self._enter(node), *process.module("wiresum.measure.attack.victim"),
            "--rank", str(rank), "--workers", str(self.workers), "--limit", str(LIMIT_S),
        ]  # fmt: skip
        env = {**self.rack.variables(node), **session.environment.variables()}
        made = Talker(f"worker {rank}", command, env, self.rack.folder / f"victim{rank}.log")
        self._exits.callback(made.end)
        return made

    def reduce(self, chunks: int) -> Round:
        """One all-reduce of so many data chunks; the slowest worker's time."""
        self._seed += 1
        for victim in self._victims:
            victim.tell({"count": chunks * self.rack.options.lanes, "seed": self._seed})
        said = [victim.hear(2 * LIMIT_S) for victim in self._victims]
        resent = sum(each["retransmissions"] for each in said)
        return Round(
            max(each["seconds"] for each in said), resent / sum(e["contributions"] for e in said)
        )

    def under(self, kind: str, chunks: int) -> Round:
        """The same, while a flood of that kind goes on."""
        if kind == "none":
            return self.reduce(chunks)
        interface = NOWHERE if kind == "elsewhere" else f"{self.attacker}-eth0"
        command = [
            *self._enter(self.attacker), *process.module("wiresum.measure.attack.sender"),
            "--interface", interface, "--kind", kind, "--target", json.dumps(self._target),
        ]  # fmt: skip
        log = self.rack.folder / "attacker.log"
        sender = Talker("the attacker", command, self.rack.variables(self.attacker), log)
        try:
            sender.hear(START_S)
            time.sleep(_SETTLE_S)
            found = self.reduce(chunks)
            process.pass_on(sender.process, signal.SIGTERM)
            sent = sender.hear(START_S)
        finally:
            sender.end()
        return Round(
            found.seconds, found.retransmitted, sent["bytes"] * 8e-6 / sent["seconds"],
            sent["frames"] / sent["seconds"],
        )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one kind of flood did, round by round: times with it, and without it just before."""

    kind: str
    rounds: list[Round]
    quiet: list[Round]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the all-reduce took."""
        pairs = zip(self.rounds, self.quiet, strict=True)
        return [flooded.seconds / quiet.seconds for flooded, quiet in pairs]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.ratios)


def measure(
    options: RackOptions, kinds: Sequence[str], repeat: int, seconds: float, *, priority: bool
) -> tuple[int, list[Found], dict[str, int]]:
    """Measure; the chunks of an all-reduce, what each kind did, and what the switch dropped.

    ``options`` are the rack's, the attacker being its last host. Raises ``WiresumError``.
    """
    rounds: dict[str, list[tuple[Round, Round]]] = {kind: [] for kind in kinds}
    with Rack(options) as rack, Scene(rack, options.workers - 1, priority=priority) as scene:
        scene.reduce(FIRST)
        chunks = max(FIRST, math.ceil(FIRST * seconds / scene.reduce(FIRST).seconds))
        for _ in range(repeat):
            for kind in kinds:
                quiet = scene.reduce(chunks)
                rounds[kind].append((scene.under(kind, chunks), quiet))
        drops = {name: count for name, count in rack.state().drops.items() if count}
    found = [
        Found(kind, [flooded for flooded, _ in pairs], [quiet for _, quiet in pairs])
        for kind, pairs in rounds.items()
    ]
    return chunks, found, drops
