"""Mininet's links with what a rack needs: ordinary frames, checked rates.

Import it after ``bring_mininet()`` only.
"""

from typing import Any

from mininet.link import TCIntf, TCLink  # type: ignore[import-not-found]

from wiresum.testbed import lines
from wiresum.testbed.errors import RackError
from wiresum.testbed.options import MAX_MBIT

# With these on, a host hands over up to 64 KiB as one frame with an unfinished checksum and leaves
# the rest to hardware that a veth pair does not have. (A kernel without one of them says so.)
_OFFLOADS = ("tso", "gso", "gro", "tx-udp-segmentation", "rx-gro-list", "rx-udp-gro-forwarding")


class RackInterface(TCIntf):  # type: ignore[misc]
    """An interface whose rate is limited with HTB, and that says so when that fails."""

    bwParamMax = MAX_MBIT

    def bwCmds(self, **parameters: Any) -> tuple[list[str], str]:
        """Mininet's commands; HTB would guess a quantum, find it too big, and warn."""
        commands, parent = super().bwCmds(**parameters)
        return [f"{c} quantum 1514" if " htb rate " in c else c for c in commands], parent

    def config(self, offloads: bool = False, **parameters: Any) -> Any:
        """Set it up; ``offloads``: leave segmentation and checksums to the other end."""
        parameters = {"txo": offloads, "rxo": offloads, **parameters}
        result = super().config(**parameters)
        said = [text.strip() for text in (result or {}).get("tcoutputs", ()) if text.strip()]
        if said:
            raise RackError(
                lines.LINK_NOT_LIMITED.of(
                    interface=self.name, node=self.node, said=" ".join(said[0].split())
                )
            )
        if not offloads:
            for name in _OFFLOADS:
                self.cmd("ethtool", "-K", self.name, name, "off")
        return result


class RackLink(TCLink):  # type: ignore[misc]
    """A veth pair of such interfaces, made inside its nodes' namespaces."""

    def __init__(self, *nodes: Any, **parameters: Any) -> None:
        super().__init__(*nodes, **{"cls1": RackInterface, "cls2": RackInterface, **parameters})
