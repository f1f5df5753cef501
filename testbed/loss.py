"""Random loss on the rack's links, frame by frame.

A worker's kernel keeps trains of segments together until they leave its interface, and a switch
that reads an interface sees frames before any filter there does. So lossy links have a node in
their middle, the cable: one bridge for each link, and a rule that drops what crosses.
"""

import json
import shutil
from typing import Any

from wiresum.testbed import lines
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter, run

SCALE = 1_000_000
_RULE = (
    "add table bridge loss; "
    "add chain bridge loss cross {{ type filter hook forward priority 0; }}; "
    "add rule bridge loss cross numgen random mod {scale} < {drop} counter drop"
)


class Cable:
    """The node in the middle of all lossy links.

    nftables does the dropping, and where it cannot, netem does if the kernel has it.
    """

    def __init__(self, node: Any, namespace: str, loss: float) -> None:
        """``node`` is a Mininet node without interfaces whose namespace has that name."""
        self.node = node
        self._namespace = namespace
        self._rule = _RULE.format(scale=SCALE, drop=round(loss * SCALE))
        self.by = self._choose()
        self.netem_percent = 100 * loss if self.by == "netem" else None
        """The value for Mininet's own ``loss=`` on the cable's interfaces; None: no loss."""

    def _choose(self) -> str:
        reasons = []
        if shutil.which("nft") is None:
            reasons.append("there is no command nft")
        else:
            try:
                self._nft(self._rule)
                self._nft("delete table bridge loss")
                return "nftables"
            except RackError as error:
                reasons.append(f"nftables cannot filter bridges ({error})")
        try:
            run(*enter(self._namespace), "tc", "qdisc", "add", "dev", "lo", "root", "netem")
            run(*enter(self._namespace), "tc", "qdisc", "del", "dev", "lo", "root")
            return "netem"
        except RackError:
            reasons.append("the kernel has no netem")
        raise RackError(lines.LOSS_IMPOSSIBLE.of(reasons=", and ".join(reasons)))

    def join(self, number: int, ends: tuple[str, str]) -> None:
        """Make one link of the cable's two interfaces ``ends``."""
        bridge = f"br{number}"
        here = (*enter(self._namespace), "ip", "link")
        run(*here, "add", bridge, "type", "bridge", "mcast_snooping", "0")
        for end in ends:
            run(*here, "set", end, "master", bridge)
        run(*here, "set", bridge, "up")

    def begin(self) -> None:
        """Lose frames from now on: call it when all links are made.

        A rule that is older than the bridges is never asked (seen with Linux 6.18).
        """
        if self.by == "nftables":
            self._nft(self._rule)

    def _nft(self, *command: str) -> str:
        return run(*enter(self._namespace), "nft", *command)

    def lost(self) -> int | None:
        """Frames lost so far on all links; None if they are not counted."""
        if self.by != "nftables":
            return None
        listed = self._nft("-j", "list", "chain", "bridge", "loss", "cross")
        return sum(
            int(part["counter"]["packets"])
            for item in json.loads(listed)["nftables"]
            for part in item.get("rule", {}).get("expr", ())
            if "counter" in part
        )
