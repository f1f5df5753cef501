"""A rack's record: another process can use the rack by it, or remove it after a crash."""

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wiresum.testbed import lines, namespaces
from wiresum.testbed.errors import RackError
from wiresum.testbed.options import check_name
from wiresum.testbed.processes import Mark, end, mark

FOLDER = Path("/run/wiresum/testbed")
VARIABLE = "WIRESUM_TESTBED_STATE"
_OWNER_LIMIT_S = 30.0


@dataclass
class Node:
    """One namespace of a rack, by name and inode."""

    namespace: str
    inode: int
    variables: dict[str, str] = field(default_factory=dict)
    """What commands find in their environment there."""


@dataclass
class Record:
    """One rack: who built it, its namespaces by node, its processes by what they are."""

    name: str
    owner: Mark
    nodes: dict[str, Node] = field(default_factory=dict)
    processes: dict[str, Mark] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Sockets and logs of the rack, and this record."""
        return folder_of(self.name)

    def save(self) -> None:
        """Write the record; a reader sees all of it or nothing."""
        temporary = self.folder / ".rack.json"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(self.folder / "rack.json")


@dataclass(frozen=True)
class Removed:
    """What was removed: ended processes and namespaces."""

    processes: int
    namespaces: int


def root() -> Path:
    """Where records are."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def folder_of(name: str) -> Path:
    """The folder of one rack."""
    return root() / check_name(name)


def names() -> list[str]:
    """The racks on record."""
    try:
        return sorted(entry.name for entry in root().iterdir() if entry.is_dir())
    except OSError:
        return []


def create(name: str) -> Record:
    """Begin a record for a rack of this process.

    The remains of a crashed rack of that name are removed first. Raises :class:`RackError` if the
    rack is up.
    """
    with _lock():
        before = load(name)
        if before is not None and before.owner.alive():
            raise RackError(lines.IS_UP.of(name=name, pid=before.owner.pid))
        _remove(name, before)
        folder_of(name).mkdir(parents=True, mode=0o700)
        owner = mark(os.getpid())
        assert owner is not None
        record = Record(name, owner)
        record.save()
        return record


def load(name: str) -> Record | None:
    """The record of a rack; None if there is none."""
    try:
        values: dict[str, Any] = json.loads((folder_of(name) / "rack.json").read_text())
        return Record(
            name=values["name"],
            owner=Mark(**values["owner"]),
            nodes={key: Node(**node) for key, node in values["nodes"].items()},
            processes={key: Mark(**each) for key, each in values["processes"].items()},
        )
    except OSError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RackError(lines.NO_RECORD.of(folder=folder_of(name), why=error)) from None


def down(name: str) -> Removed | None:
    """Remove a rack: ask its owner to, then remove what is left. None: there is no such rack.

    Only what is on record is touched: processes with the recorded start time, namespaces with the
    recorded inode and the processes in them.
    """
    record = load(name)
    if record is not None and record.owner.pid != os.getpid():
        record.owner.send(signal.SIGTERM)
        if not record.owner.wait(_OWNER_LIMIT_S):
            record.owner.send(signal.SIGKILL)
            record.owner.wait(_OWNER_LIMIT_S)
    with _lock():
        left = load(name)
        if left is None and not folder_of(name).exists():
            # Its owner has removed it all.
            return None if record is None else Removed(len(record.processes), len(record.nodes))
        return _remove(name, left)


def remove(record: Record) -> Removed:
    """Remove what is on record of a rack of this process."""
    with _lock():
        return _remove(record.name, record)


def remove_left(name: str, owner: Mark) -> None:
    """Remove what a rack's process has left that was killed; nothing if the name is another's."""
    owner.wait(_OWNER_LIMIT_S)
    with _lock():
        record = load(name)
        if record is not None and record.owner == owner and not owner.alive():
            _remove(name, record)


def _remove(name: str, record: Record | None) -> Removed:
    processes = removed = 0
    if record is not None:
        ours = [
            node.namespace
            for node in record.nodes.values()
            if namespaces.inode(node.namespace) == node.inode
        ]
        processes += end(record.processes.values())
        processes += namespaces.evict(ours)
        for namespace in ours:
            namespaces.remove(namespace)
            removed += 1
    shutil.rmtree(folder_of(name), ignore_errors=True)
    return Removed(processes, removed)


@contextmanager
def _lock() -> Iterator[None]:
    """One process at a time makes and removes racks."""
    try:
        root().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RackError(lines.FOLDER_UNUSABLE.of(folder=root(), why=error.strerror)) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
