"""The controller's memory: one SQLite file, written in transactions only.

Everything here is synchronous and belongs to one thread: the statements take microseconds.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wiresum.common import private
from wiresum.common.errors import WiresumError
from wiresum.controller.errors import StoreError
from wiresum.controller.reading import Reading
from wiresum.controller.schema import MIGRATIONS
from wiresum.controller.tokens import hashed
from wiresum.controller.transaction import Transaction

MEMORY = ":memory:"
"""The path of a store that is gone with its controller."""


class Store(Reading):
    """An open store. Raises :class:`StoreError` if another controller has it open."""

    def __init__(self, path: Path | str = MEMORY) -> None:
        self._path = str(path)
        self._lock: IO[str] | None = None
        try:
            if self._path != MEMORY:
                self._prepare(Path(self._path))
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            # An epoch that was handed out must be known after a power cut, too.
            self._db.execute("PRAGMA synchronous = FULL")
            # What is deleted is overwritten: older stores held tokens as they are.
            self._db.execute("PRAGMA secure_delete = ON")
            self._migrate()
            # Only now: a step may rebuild a table that others refer to.
            self._db.execute("PRAGMA foreign_keys = ON")
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            raise StoreError(f"store {self._path} cannot be opened: {error}") from error
        except WiresumError:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the file and let another controller have it."""
        self._db.close()
        self._unlock()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All writes inside happen, or none does."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield Transaction(self._db)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # ---- opening

    def _prepare(self, path: Path) -> None:
        private.folder(path.parent)
        # The store holds keys and tokens: nobody else may read it, nor its journal, which SQLite
        # makes with the store's own mode. A backup may have come back with any.
        private.touch(path, "store")
        for ending in ("-wal", "-shm", "-journal"):
            private.tighten(path.with_name(path.name + ending), "store")
        lock_path = path.with_name(path.name + ".lock")
        # Whoever can open it can hold it, and so keep a controller from starting.
        private.touch(lock_path, "lock of the store")
        self._lock = lock_path.open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"store {path} is in use by another controller: stop that one, or give --store"
            ) from None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _migrate(self) -> None:
        done = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if done > len(MIGRATIONS):
            raise StoreError(
                f"store {self._path} is of schema {done}, made by a later wiresum "
                f"(this one knows up to {len(MIGRATIONS)}): upgrade, or give --store"
            )
        self._db.create_function("sha256", 1, hashed, deterministic=True)
        for version, script in enumerate(MIGRATIONS[done:], start=done + 1):
            self._db.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
