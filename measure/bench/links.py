"""The benchmark's links: a namespace for each worker, with one veth pair to the switch's namespace,
where a plain bridge joins them.

The bridge's own address is where the softswitch listens on a udp port; workers reach each other
through the same bridge over the same links. Segmentation and receive offloads stay on: trains of
segments cross whole, and the shapers charge every segment's headers. Built with ``ip`` and ``tc``
alone.
"""

import json
from dataclasses import dataclass

from wiresum.measure.bench.loss import FrameLoss
from wiresum.testbed import lines as rack_lines
from wiresum.testbed import state
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter, inode, run
from wiresum.testbed.rack import SWITCH, SWITCH_IP
from wiresum.testbed.state import Node, Record

INTERFACE = "eth0"
"""Of every worker."""
_BURST = "32768"  # bytes


def worker_ip(rank: int) -> str:
    """The address of a worker."""
    return f"10.0.0.{rank + 1}"


@dataclass(frozen=True)
class Traffic:
    """Bytes and frames on one link so far, headers included, from the worker's side."""

    sent: int
    received: int

    def since(self, before: "Traffic") -> "Traffic":
        """What has been added."""
        return Traffic(self.sent - before.sent, self.received - before.received)


class Star:
    """The network of one benchmark; use as a context manager. Everything raises ``RackError``."""

    def __init__(self, name: str, workers: int, mtu: int = 1500) -> None:
        self.workers = workers
        self.mtu = mtu
        self.record: Record = state.create(name)
        self._shaped = False
        self._losses: list[FrameLoss] = []

    def __enter__(self) -> "Star":
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, and end all processes in it."""
        while self._losses:
            self._losses.pop().close()
        state.remove(self.record)

    # ---- building

    def namespace(self, node: str) -> str:
        """The namespace of ``w0``, ``w1``, … or the switch."""
        return self.record.nodes[node].namespace

    def enter(self, node: str) -> tuple[str, ...]:
        """The prefix that runs a command on a node."""
        return enter(self.namespace(node))

    def _add_namespace(self, node: str) -> None:
        namespace = f"wiresum-{self.record.name}-{node}"
        if inode(namespace) is not None:
            raise RackError(rack_lines.NAMESPACE_LEFT.of(namespace=namespace))
        run("ip", "netns", "add", namespace)
        found = inode(namespace)
        assert found is not None
        self.record.nodes[node] = Node(namespace, found)
        self.record.save()
        for where in ("all", "default"):
            run(*enter(namespace), "sysctl", "-qw", f"net.ipv6.conf.{where}.disable_ipv6=1")
        run("ip", "-n", namespace, "link", "set", "lo", "up")

    def _build(self) -> None:
        self._add_namespace(SWITCH)
        switch = self.namespace(SWITCH)
        bridge = ("name", "br0", "mtu", str(self.mtu), "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", switch, "link", "add", *bridge)
        run("ip", "-n", switch, "addr", "add", f"{SWITCH_IP}/24", "dev", "br0")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        # A bridge has the offloads that any of its ports has. While frames get lost the links have
        # none, but what the switch sends shall reach its queues in trains, as elsewhere.
        run("ip", "-n", switch, "link", "add", "spare", "mtu", str(self.mtu), "type", "veth")
        run("ip", "-n", switch, "link", "set", "spare", "master", "br0")
        for rank in range(self.workers):
            self._add_namespace(f"w{rank}")
            worker, port, mtu = self.namespace(f"w{rank}"), f"p{rank}", str(self.mtu)
            peer = ("peer", "name", port, "mtu", mtu, "netns", switch)
            run("ip", "-n", worker, "link", "add", INTERFACE, "mtu", mtu, "type", "veth", *peer)
            run("ip", "-n", worker, "addr", "add", f"{worker_ip(rank)}/24", "dev", INTERFACE)
            run("ip", "-n", worker, "link", "set", INTERFACE, "up")
            run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")

    def _ends(self) -> list[tuple[str, str]]:
        """Namespace and interface of every sending side."""
        ends = [(self.namespace(f"w{rank}"), INTERFACE) for rank in range(self.workers)]
        return ends + [(self.namespace(SWITCH), f"p{rank}") for rank in range(self.workers)]

    # ---- rate and loss

    def shape(self, rate_mbit: float | None) -> None:
        """Limit each direction of each link; None: no limit, only a queue that counts bytes."""
        for namespace, interface in self._ends():
            tc = ("tc", "-n", namespace)
            if self._shaped:
                run(*tc, "qdisc", "del", "dev", interface, "root")
            root = ("qdisc", "add", "dev", interface, "root", "handle", "1:")
            if rate_mbit is None:
                run(*tc, *root, "pfifo", "limit", "1000")
                continue
            run(*tc, *root, "htb", "default", "1")
            # What a link may make up for after it has been idle: about what it carries between two
            # looks of the kernel's timer at 1 Gbit/s. With less the shaper itself costs up to 5 %;
            # with more a small tensor would cross without a limit. (A train goes out whole when
            # its first byte may; what it took is charged to the next one.)
            limit = ("rate", f"{round(rate_mbit * 1e6)}bit", "burst", _BURST, "cburst", _BURST)
            whose = ("class", "add", "dev", interface, "parent", "1:", "classid", "1:1")
            run(*tc, *whose, "htb", *limit, "quantum", "1514")
        self._shaped = True

    def lose(self, share: float | None) -> None:
        """Lose this share of frames on each link, in each direction, each by itself.

        None leaves trains of frames whole; with 0 they are cut as with any share.
        """
        while self._losses:
            self._losses.pop().close()
        for namespace, interface in self._ends():
            gro = "off" if share is None else "on"
            run(*enter(namespace), "ethtool", "-K", interface, "gro", gro)
            if share is not None:
                self._losses.append(FrameLoss(namespace, interface, share))

    def lost(self) -> int:
        """Frames lost since the share was set."""
        return sum(each.lost() for each in self._losses)

    def use_tcp(self, congestion_control: str) -> None:
        """What TCP connections that workers make from now on shall use."""
        for rank in range(self.workers):
            setting = f"net.ipv4.tcp_congestion_control={congestion_control}"
            run(*self.enter(f"w{rank}"), "sysctl", "-qw", setting)

    # ---- counting

    def traffic(self) -> list[Traffic]:
        """What has crossed each worker's link since the rates were set."""
        sides = {
            (namespace, entry["dev"]): int(entry["bytes"])
            for namespace in (node.namespace for node in self.record.nodes.values())
            for entry in json.loads(run("tc", "-n", namespace, "-s", "-j", "qdisc", "show"))
            if entry.get("root") and entry["dev"] != "lo"
        }
        switch = self.namespace(SWITCH)
        return [
            Traffic(sides[self.namespace(f"w{rank}"), INTERFACE], sides[switch, f"p{rank}"])
            for rank in range(self.workers)
        ]
