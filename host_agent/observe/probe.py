"""A short probe of the links between the ranks' hosts, before the training goes on.

Ranks meet in the job's store, and time messages over TCP connections between the addresses that
gloo uses. In each round every rank has one partner, so all hosts' links are in use at once, as in a
collective; a pair that cannot meet is left out. Everything together ends after :data:`LIMIT_S`,
whatever the other ranks do.
"""

import json
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import PrefixStore, Store

from wiresum.host_agent.agent.network import local_address_towards
from wiresum.host_agent.agent.peers.address import listen
from wiresum.host_agent.observe.link import Deadline, Door, Link, reach
from wiresum.host_agent.observe.rounds import members, partners

log = logging.getLogger("wiresum")

LIMIT_S = 10.0
_TARGET_S = 0.1
"""The most seconds that the largest message of one direction lasts; less with many ranks."""
_PART = 0.5
"""Of the limit, for the messages of all rounds."""
_NAMESPACE = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Place:
    """Where a rank can be reached; ``host`` differs where the network does."""

    host: str
    addresses: list[tuple[str, int]]
    secret: bytes

    def said(self) -> str:
        """For the store."""
        return json.dumps([self.host, self.addresses, self.secret.hex()])

    @classmethod
    def of(cls, said: str) -> "Place":
        """From the store."""
        host, addresses, secret = json.loads(said)
        return cls(host, [(str(at), int(port)) for at, port in addresses], bytes.fromhex(secret))


def probe(store: Store, rank: int, size: int, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """Measure the links from this rank; what all ranks measured, as far as they told in time.

    ``links``: for each direction of a pair ``from``, ``to`` and what ``Link.send`` returns;
    ``links_note``: why some are missing, or empty. Never raises.
    """
    found: list[dict[str, Any]] = []
    note = ""
    deadline = Deadline(limit_s)
    try:
        shared = PrefixStore("wiresum/measure", store)
        door, places = _meet(shared, rank, size, deadline)
        try:
            among = members([place.host for place in places])
            if rank in among:
                note = _rounds(found, door, places, among, rank, limit_s, deadline)
                shared.set(f"links/{rank}", json.dumps([found, note]))
                found, note = _gathered(shared, among, deadline)
        finally:
            door.close()
    except Exception as error:  # the store's own, of whatever kind, or the system's
        log.debug("wiresum: the links are not probed", exc_info=True)
        note = note or _why(error)
    return {"links": found, "links_note": note}


def _meet(store: Store, rank: int, size: int, deadline: Deadline) -> tuple[Door, list[Place]]:
    secret = secrets.token_bytes(16)
    listeners = listen(_towards_master())
    door = Door(listeners, secret)
    try:
        addresses = [(str(at[0]), int(at[1])) for at in (s.getsockname() for s in listeners)]
        store.set(f"at/{rank}", Place(_network(), addresses, secret).said())
        keys = [f"at/{each}" for each in range(size)]
        store.wait(keys, timedelta(seconds=deadline.left()))
        return door, [Place.of(store.get(key).decode()) for key in keys]
    except BaseException:
        door.close()
        raise


def _towards_master() -> str:
    """The address from which this host reaches the store's."""
    try:
        return local_address_towards(os.environ["MASTER_ADDR"], 9)
    except (KeyError, OSError):
        return "127.0.0.1"


def _network() -> str:
    """This host's name, with its network namespace: containers of a host are hosts of a network."""
    try:
        return f"{socket.gethostname()} {os.readlink(_NAMESPACE)}"  # noqa: PTH115 (a name)
    except OSError:
        return socket.gethostname()


def _rounds(
    found: list[dict[str, Any]],
    door: Door,
    places: list[Place],
    among: list[int],
    rank: int,
    limit_s: float,
    deadline: Deadline,
) -> str:
    """Meet all partners; why some were not reached, or empty."""
    target = min(_TARGET_S, _PART * limit_s / max(1, 4 * len(among)))
    note = ""
    for partner in partners(among, rank):
        try:
            if rank < partner:
                sock = door.admit(partner, deadline)
            else:
                place = places[partner]
                sock = reach(place.addresses, place.secret, rank, deadline)
            link = Link(sock, deadline)
            try:
                if rank < partner:
                    found.append({"from": rank, "to": partner, **link.send(target)})
                    link.receive()
                else:
                    link.receive()
                    found.append({"from": rank, "to": partner, **link.send(target)})
            finally:
                link.close()
        except OSError as error:
            note = note or f"rank {rank} and rank {partner}: {_why(error)}"
    return note


def _gathered(
    store: Store, among: list[int], deadline: Deadline
) -> tuple[list[dict[str, Any]], str]:
    """What all members have published; raises the store's error if some have not."""
    keys = [f"links/{each}" for each in among]
    store.wait(keys, timedelta(seconds=deadline.left()))
    found: list[dict[str, Any]] = []
    notes = []
    for key in keys:
        links, note = json.loads(store.get(key).decode())
        found += links
        notes += [note] if note else []
    return found, notes[0] if notes else ""


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        return "no answer in time"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
