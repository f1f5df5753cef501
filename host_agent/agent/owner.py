"""The name by which a process group claims its job: the same when it is made anew.

Two groups in one environment (a helper's, a second training's) have different names, whatever
variables one has inherited from the other; a group that is made again, by the same processes or at
the same store, has the same one.
"""

import os
import secrets
import socket

_mine: str | None = None


def owner(endpoint: str) -> str:
    """The name for a group whose rank 0 is this process.

    ``endpoint``: ``HOST:PORT`` of the store through which its ranks meet; empty if it has none.
    """
    if _mine is not None:
        return _mine
    name = endpoint or secrets.token_hex(16)
    return remember(f"{socket.gethostname()[:64]}/{name[:60]}")


def remember(name: str) -> str:
    """Keep the name: a group that this process makes later is the same group."""
    global _mine
    _mine = name
    return name


def _forget() -> None:
    """A forked child's groups are its own."""
    global _mine
    _mine = None


os.register_at_fork(after_in_child=_forget)
