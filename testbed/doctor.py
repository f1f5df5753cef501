"""``wiresum testbed doctor``: what racks and BMv2 need, what is missing here, what that costs."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.testbed import lines
from wiresum.testbed.errors import RackError

BMV2_LIMIT_S = 20.0
_COMMAND_LIMIT_S = 20.0
_MOMENT_S = 0.5
"""BMv2 with Thrift serves P4Runtime for a moment before it finds that a port is taken."""
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104

Check = Callable[[], tuple[bool, str]]
"""Whether it is there, and what it says or what is wrong."""


@dataclass(frozen=True)
class Finding:
    """One thing that is there or missing."""

    name: str
    there: bool
    said: str
    cost: str
    """What does not work without it."""

    def line(self) -> str:
        """For people."""
        if self.there:
            return f"ok       {self.name}: {self.said}"
        return f"MISSING  {self.name}: {self.said}\n         without it: {self.cost}"


def root() -> tuple[bool, str]:
    """Root's rights."""
    there = os.geteuid() == 0
    return there, "this is root" if there else "this is an ordinary user: sudo"


def mininet() -> tuple[bool, str]:
    """Mininet and the commands that it uses."""
    from wiresum.testbed import find_mininet

    reason = find_mininet.not_installed()
    return reason is None, reason or "it and its commands are installed"


def in_namespace(script: str, there: str) -> Check:
    """Whether a shell script works in a network namespace of its own; ``there``: if it does."""

    def check() -> tuple[bool, str]:
        if os.geteuid() != 0:
            return False, "not tried: only root can"
        try:
            done = subprocess.run(
                ["unshare", "--net", "sh", "-ec", script],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=_COMMAND_LIMIT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            return False, str(error)
        said = [each.strip() for each in done.stderr.splitlines() if each.strip()]
        if done.returncode != 0:
            return False, (said or [f"exit status {done.returncode}"])[0]
        return True, there

    return check


_PAIR = "ip link add d0 type veth peer name d1; "
links = in_namespace(
    _PAIR + "ip link add b0 type bridge; ip link set d0 master b0; ip link set d0 up",
    "veth pairs and bridges can be made",
)
rates = in_namespace(
    _PAIR + "tc qdisc add dev d0 root handle 1: htb default 1; "
    "tc class add dev d0 parent 1: classid 1:1 htb rate 100mbit quantum 1514; "
    "tc qdisc add dev d0 parent 1:1 handle 2: netem limit 10 || "
    "tc qdisc add dev d0 parent 1:1 handle 2: pfifo limit 10",
    "tc limits links (sch_htb)",
)
offloads = in_namespace(
    _PAIR + "ethtool -K d0 tso off gso off gro off tx off rx off",
    "ethtool turns them off",
)
_FRAME_LOSS = in_namespace(
    "nft add table bridge d; "
    "nft 'add chain bridge d c { type filter hook forward priority 0; }'; "
    "nft add rule bridge d c numgen random mod 100 '<' 1 counter drop",
    "nftables drops frames on bridges",
)
_NETEM = in_namespace(_PAIR + "tc qdisc add dev d0 root netem loss 1%", "netem drops frames")


def loss() -> tuple[bool, str]:
    """Something that loses frames at random."""
    by_rule = _FRAME_LOSS()
    if by_rule[0]:
        return by_rule
    by_netem = _NETEM()
    return by_netem if by_netem[0] else by_rule


def trains() -> tuple[bool, str]:
    """UDP_SEGMENT and UDP_GRO: a train of datagrams in one system call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(_SOL_UDP, _UDP_SEGMENT, 1400)
            probe.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError as error:
            return False, f"UDP_SEGMENT or UDP_GRO: {error.strerror} (Linux 5.0 has both)"
    return True, "UDP_SEGMENT and UDP_GRO"


def bmv2() -> tuple[bool, str]:
    """BMv2: starts it, and waits until it serves P4Runtime."""
    from wiresum.common.children.child import ChildError
    from wiresum.common.temporary import PrivateFolder
    from wiresum.testbed import find_bmv2

    where = shutil.which(find_bmv2.BINARY)
    reason = find_bmv2.why_not()
    if reason is not None:
        return False, reason
    with PrivateFolder("doctor", for_sockets=True) as private:
        control, data = private.path / "p4rt.sock", private.path / "dp.sock"
        child = find_bmv2.Bmv2Process(
            find_bmv2.BINARY, find_bmv2.command(control, data), private.path / "bmv2.log"
        )
        try:
            child.serves(control, BMV2_LIMIT_S)
            child.serves(data, BMV2_LIMIT_S)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(_MOMENT_S)
            child.check()
        except ChildError as error:
            return False, str(error)
        finally:
            child.end()
    return True, f"{find_bmv2.version()}, {where} serves P4Runtime and takes frames"


def p4c() -> tuple[bool, str]:
    """The compiler."""
    from wiresum.testbed import find_bmv2

    where = shutil.which(find_bmv2.P4C)
    if where is None:
        return False, f"{find_bmv2.P4C} is not on PATH"
    try:
        return True, f"{find_bmv2.version(find_bmv2.P4C)}, {where}"
    except RackError as error:
        return False, str(error)


_RACKS = "no racks: testbed up, train and soak, bench switch --against"
CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("root", root, f"{_RACKS}; no bench allreduce. Conformance needs no root"),
    ("Mininet", mininet, _RACKS),
    ("links in network namespaces", links, f"{_RACKS}; no bench allreduce"),
    ("limited rates", rates, "no --rate"),
    ("loss", loss, "no --loss on racks"),
    ("offloads", offloads, "no racks with BMv2, which takes a train of frames for one frame"),
    ("trains of datagrams", trains, "all works, with a system call for each chunk: slower"),
    (
        "BMv2",
        bmv2,
        "no --switch bmv2, no --against bmv2, no conformance, and the tests marked bmv2 are "
        "skipped. All else runs on the embedded switch",
    ),
    (
        "p4c",
        p4c,
        "no `make p4`, and no P4 program of your own from its source; the compiled programs of "
        "wiresum are in the package",
    ),
)


def doctor(
    as_json: Annotated[bool, Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What racks and BMv2 need, what is missing here, and what that costs.

    Changes nothing. Exits with 0 if all is there and with 1 if something is missing.
    """
    started = time.monotonic()
    missing = []
    for name, check, cost in CHECKS:
        finding = Finding(name, *check(), cost)
        print(json.dumps(asdict(finding)) if as_json else finding.line(), flush=True)
        if not finding.there:
            missing.append(name)
    if not as_json:
        print(f"{len(CHECKS)} checks in {time.monotonic() - started:.0f} s")
    sys.stdout.flush()
    if missing:
        raise RackError(lines.NOT_ALL_HERE.of(names=", ".join(missing)))
