"""A switch under test: frames in, frames and state out, whichever switch it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from support.frames import SWITCH_IP, SWITCH_MAC, Host
from wiresum.p4 import packet


class Target(Protocol):
    """The interface of a switch that runs our program, for the tests."""

    lanes: int

    def insert(
        self, table: str, match: dict[str, int], action: str, params: dict[str, int]
    ) -> None:
        """Add an exact-match entry."""

    def remove(self, table: str, match: dict[str, int]) -> None:
        """Remove an entry."""

    def group(self, number: int, replicas: list[tuple[int, int]]) -> None:
        """Set a multicast group's (port, instance) pairs."""

    def inject(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Feed one frame; all frames that leave because of it, in any order."""

    def counter(self, name: str, index: int) -> int:
        """Packets counted."""


@dataclass(frozen=True)
class Lease:
    """A job's place on the switch, as the controller would program it."""

    job: int
    epoch: int
    key: int
    slot_base: int
    slots: int
    hosts: tuple[Host, ...]
    reply_key: int = 0xA115_3EED_0DD5_0A17

    def match(self, rank: int) -> dict[str, int]:
        """The membership key of ``rank``."""
        member = self.hosts[rank]
        return {
            "ingress_port": member.port,
            "ip": int.from_bytes(member.ip),
            "udp_port": member.udp_port,
            "job": self.job,
            "epoch": self.epoch,
            "key": self.key,
        }

    def install(self, switch: Target) -> None:
        """Program the lease."""
        full = (1 << len(self.hosts)) - 1
        group = packet.JOB_GROUPS + self.job
        switch.group(group, [(h.port, rank + 1) for rank, h in enumerate(self.hosts)])
        for rank, member in enumerate(self.hosts):
            switch.insert(
                "deliver",
                {"job": self.job, "worker": rank},
                "deliver_to",
                {
                    "mac": int.from_bytes(member.mac),
                    "ip": int.from_bytes(member.ip),
                    "udp_port": member.udp_port,
                },
            )
            switch.insert(
                "membership",
                self.match(rank),
                "member",
                {
                    "worker": rank,
                    "worker_bit": 1 << rank,
                    "full": full,
                    "slot_base": self.slot_base,
                    "slot_count": self.slots,
                    "group": group,
                    "reply_key": self.reply_key,
                },
            )

    def withdraw(self, switch: Target) -> None:
        """Remove the entries of :meth:`install`; the group stays (installing again replaces it)."""
        for rank in range(len(self.hosts)):
            switch.remove("membership", self.match(rank))
            switch.remove("deliver", {"job": self.job, "worker": rank})


def install_switch(switch: Target, ports: list[int]) -> None:
    """Program the switch's own address and the group of all ports."""
    ip = int.from_bytes(SWITCH_IP)
    switch.insert("addresses", {"ip": ip}, "switch_address", {"mac": int.from_bytes(SWITCH_MAC)})
    switch.insert("own_source", {"ip": ip}, "spoofed_source", {})
    switch.group(packet.FLOOD_GROUP, [(port, port) for port in ports])


def install_hosts(switch: Target, hosts: Iterable[Host]) -> None:
    """Program the port that each of these hosts' addresses come from and go to."""
    for place in hosts:
        match = {"ip": int.from_bytes(place.ip)}
        switch.insert("hosts", match, "behind", {"port": place.port})
        switch.insert("routes", match, "to_port", {"port": place.port})


def remove_hosts(switch: Target, hosts: Iterable[Host]) -> None:
    """Remove the entries of :func:`install_hosts`."""
    for place in hosts:
        for table in ("hosts", "routes"):
            switch.remove(table, {"ip": int.from_bytes(place.ip)})
