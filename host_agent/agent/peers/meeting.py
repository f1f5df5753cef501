"""The ranks find each other: rank 0 listens, and publishes its addresses in the group's store."""

import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from wiresum.host_agent.agent.peers.address import listen
from wiresum.host_agent.agent.peers.judge import host_name
from wiresum.host_agent.agent.peers.wire import new_secret
from wiresum.host_agent.agent.worker import Store

log = logging.getLogger("wiresum")

FIND_S = 10.0
"""How long to look for the addresses that rank 0 has published; seconds."""


def here() -> str:
    """This host's name, for people."""
    return host_name(socket.gethostname())


@dataclass
class Meeting:
    """Where the ranks meet, and the secret by which they know each other."""

    secret: str = field(repr=False)
    host: str
    """Rank 0's."""
    addresses: list[tuple[str, int]]
    """To be tried in turn."""
    listeners: list[socket.socket] = field(default_factory=list)
    """On rank 0."""

    def close(self) -> None:
        """Listen no more."""
        for sock in self.listeners:
            sock.close()


def arrange(store: Store, key: str, towards_switch: str) -> Meeting | None:
    """For rank 0, before it joins: listen, and publish where.

    None, and a warning, if this host cannot listen: the ranks then have no link.
    """
    try:
        listeners = listen(towards_switch)
    except OSError as error:
        log.warning(
            "wiresum: no link between the ranks (%s): a rank that dies is noticed late", error
        )
        store.set(key, "{}")
        return None
    addresses = [(str(name[0]), int(name[1])) for name in (s.getsockname() for s in listeners)]
    meeting = Meeting(new_secret(), here(), addresses, listeners)
    said = {"secret": meeting.secret, "host": meeting.host, "addresses": addresses}
    store.set(key, json.dumps(said))
    return meeting


def find(store: Store, key: str) -> Meeting | None:
    """For the others, once they have joined; None if rank 0 does not listen."""
    try:
        store.wait([key], timedelta(seconds=FIND_S))
        return _meeting(json.loads(store.get(key)))
    except Exception as error:  # the store's own, of whatever kind, or nonsense in it
        log.warning("wiresum: no link to rank 0: its address is not known (%s)", error)
        return None


def _meeting(said: Mapping[str, Any]) -> Meeting | None:
    if not said:
        return None
    addresses = [(str(host), int(port)) for host, port in said["addresses"]]
    return Meeting(str(said["secret"]), host_name(said["host"]), addresses)
