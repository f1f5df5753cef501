"""What a command says of the nodes that train together: how many, and where they meet.

torchrun's options and variables say it, or those of ``env://`` for a command that is one rank.
torch itself is not imported: a launcher has no use for it.
"""

import hashlib
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_MODULES = ("torch.distributed.run", "torch.distributed.launch")

# All others of torchrun's options take a value.
_FLAGS = frozenset(
    f"--{name}"
    for name in ("standalone", "module", "no-python", "run-path", "use-env", "virtual-local-rank")
) | {"-m"}

_LONGEST_NAME = 63
_ALONE = ("", "0", "1")


@dataclass(frozen=True)
class Rendezvous:
    """Where several nodes, or ranks of their own, meet."""

    count: str
    """How many, as the command says it: ``3``, ``1:4``."""
    place: str
    """Where: ``HOST:PORT``, behind the id of the run if there is one. Alike on all nodes."""

    @property
    def name(self) -> str:
        """A name for the job that they share: what it is made of can be read in it."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", self.place).strip("-._")
        if readable == self.place.replace(":", "-") and len(readable) <= _LONGEST_NAME:
            return readable
        mark = hashlib.sha256(self.place.encode()).hexdigest()[:8]
        return f"{readable[: _LONGEST_NAME - len(mark) - 1]}-{mark}".strip("-")


def rendezvous(command: Sequence[str], env: Mapping[str, str]) -> Rendezvous | None:
    """Where ``command`` meets others of its kind; None: it trains alone, or does not say."""
    at = _torchrun(command)
    if at is None:
        return _of_a_rank(env)
    given = _options(command[at:])

    def option(name: str, default: str = "") -> str:
        return given.get(f"--{name}") or env.get(f"PET_{name.replace('-', '_').upper()}") or default

    count = option("nnodes", "1")
    if count.rpartition(":")[2] in _ALONE or "--standalone" in given or option("standalone") == "1":
        return None
    endpoint = option("rdzv-endpoint")
    if not endpoint:
        endpoint = f"{option('master-addr', '127.0.0.1')}:{option('master-port', '29500')}"
    run = option("rdzv-id", "none")
    return Rendezvous(count, _place(endpoint, "" if run == "none" else run))


def _of_a_rank(env: Mapping[str, str]) -> Rendezvous | None:
    """For ``env://``: the command is one of several ranks that somebody else starts."""
    count, host, port = (env.get(n, "") for n in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if count in _ALONE or not host or not port or "RANK" not in env:
        return None
    return Rendezvous(count, _place(f"{host}:{port}", ""))


def _place(endpoint: str, run: str) -> str:
    endpoint = endpoint.lower()
    host, _, port = endpoint.rpartition(":")
    host = host or port
    if _loopback(host):  # so all are on this host, and others may meet there, too
        endpoint = f"{socket.gethostname()}:{port}"
    return f"{run}:{endpoint}" if run else endpoint


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _torchrun(command: Sequence[str]) -> int | None:
    """Where torchrun's options begin in ``command``, which may start it through other programs."""
    for at, word in enumerate(command):
        if PurePath(word).name == "torchrun":
            return at + 1
        if word in _MODULES and command[at - 1] == "-m":
            return at + 1
    return None


def _options(words: Sequence[str]) -> dict[str, str]:
    """torchrun's options in ``words``, up to the script; with ``-`` where some have ``_``."""
    found: dict[str, str] = {}
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            break
        name, given, value = word.partition("=")
        name = name.replace("_", "-")
        found[name] = value if given or name in _FLAGS else next(left, "")
    return found
