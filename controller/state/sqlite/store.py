"""The store in one SQLite file, written in transactions only.

Everything here is synchronous and belongs to one thread: the statements take microseconds.

A file that cannot be read or written (disk full, locked, a broken disk) makes every question and
every transaction raise :class:`StoreFailed`, and changes nothing. Signs of life are not stored, so
that running jobs do not depend on it.
"""

import fcntl
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from wiresum.common import private
from wiresum.common.errors import WiresumError
from wiresum.controller import lines
from wiresum.controller.errors import StoreError, StoreFailed
from wiresum.controller.state.plan import Plan
from wiresum.controller.state.sqlite.reading import Reading
from wiresum.controller.state.sqlite.schema import INDEXES, MIGRATIONS
from wiresum.controller.state.sqlite.transaction import Transaction
from wiresum.controller.state.store import Snapshot
from wiresum.controller.tokens import hashed

log = logging.getLogger(__name__)

MEMORY = ":memory:"
"""The path of a store that is gone with its controller."""

# Seconds that a write waits for another process's lock on the file; the controller stands still.
_BUSY_S = 0.1

# The errors of SQLite that concern the file, and not a statement.
_OF_THE_FILE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


class SqliteStore(Reading):
    """An open store. Raises :class:`StoreError` if another controller has it open."""

    def __init__(self, path: Path | str = MEMORY, *, any_thread: bool = False) -> None:
        """``any_thread``: it may be handed to another thread than the one that has opened it."""
        self._path = str(path)
        self._lock: IO[str] | None = None
        self.trouble = ""
        """Why the store cannot be written; empty while it can."""
        try:
            if self._path != MEMORY:
                self._prepare(Path(self._path))
            self._db = sqlite3.connect(
                self._path,
                isolation_level=None,
                timeout=_BUSY_S,
                factory=_Connection,
                check_same_thread=not any_thread,
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            # An epoch that was handed out must be known after a power cut, too.
            self._db.execute("PRAGMA synchronous = FULL")
            # What is deleted is overwritten: older stores held tokens as they are.
            self._db.execute("PRAGMA secure_delete = ON")
            self._migrate()
            for index in INDEXES:
                self._db.execute(index)
            # Only now: a step may rebuild a table that others refer to.
            self._db.execute("PRAGMA foreign_keys = ON")
        except (OSError, sqlite3.Error, StoreFailed) as error:
            self._unlock()
            raise StoreError(
                lines.STORE_NOT_OPENED.of(store=self._path, why=_cause(error))
            ) from error
        except WiresumError:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the file and let another controller have it."""
        self._db.close()
        self._unlock()

    def snapshot(self) -> Snapshot:
        """What is stored now, and until the next plan is committed."""
        return self

    def commit(self, plan: Plan) -> None:
        """Write all of a plan, or nothing. Raises :class:`StoreFailed`."""
        if plan:
            with self._transaction() as transaction:
                transaction.carry_out(plan)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """All writes inside happen, or none does. Raises :class:`StoreFailed`."""
        before = self._db.total_changes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield Transaction(self._db)
            self._db.execute("COMMIT")
        except BaseException as error:
            # Some errors end the transaction, and a COMMIT that fails may leave it open.
            if self._db.in_transaction:
                with suppress(sqlite3.Error):  # it is rolled back all the same
                    self._db.rollback()
            if isinstance(error, StoreFailed):
                self._set_trouble(str(error))
            raise
        if self._db.total_changes > before:
            self._set_trouble("")

    @property
    def version(self) -> int:
        """Another number after every write."""
        return self._db.total_changes

    def probe(self) -> None:
        """Write, if the last attempt to has failed. Raises :class:`StoreFailed` if this does."""
        if self.trouble:
            with self._transaction() as transaction:
                transaction.write_nothing_new()

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.error("%s", trouble)
        elif self.trouble and not trouble:
            log.warning("the store can be written again")
        self.trouble = trouble

    # ---- opening

    def _prepare(self, path: Path) -> None:
        private.folder(path.parent)
        # The store holds keys and tokens: nobody else may read it, nor its journal, which SQLite
        # makes with the store's own mode. A backup may have come back with any.
        private.touch(path, "store")
        for ending in ("-wal", "-shm", "-journal"):
            private.tighten(path.with_name(path.name + ending), "store")
        lock_path = path.with_name(path.name + ".lock")
        # A process that can open it can lock it, and so keep a controller from starting.
        private.touch(lock_path, "lock of the store")
        self._lock = lock_path.open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(lines.STORE_IN_USE.of(store=path)) from None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _migrate(self) -> None:
        done = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if done > len(MIGRATIONS):
            raise StoreError(
                lines.STORE_TOO_NEW.of(store=self._path, schema=done, known=len(MIGRATIONS))
            )
        self._db.create_function("sha256", 1, hashed, deterministic=True)
        self._db.create_function("secret", 1, secrets.token_bytes)
        for version, script in enumerate(MIGRATIONS[done:], start=done + 1):
            self._db.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")


class _Cursor(sqlite3.Cursor):
    """Turns errors of the file into :class:`StoreFailed`."""

    def execute(self, *arguments: Any) -> "_Cursor":
        try:
            super().execute(*arguments)
        except sqlite3.Error as error:
            self._raise(error)
        return self

    def executemany(self, *arguments: Any) -> "_Cursor":
        try:
            super().executemany(*arguments)
        except sqlite3.Error as error:
            self._raise(error)
        return self

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as error:
            self._raise(error)

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            self._raise(error)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as error:
            self._raise(error)

    def _raise(self, error: sqlite3.Error) -> NoReturn:
        # The traceback refers to this object: what it holds would keep the file from being closed.
        self.close()
        # The lowest byte is the primary code; errors of the module itself have none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_FILE:
            raise StoreFailed(
                "UNAVAILABLE",
                lines.STORE_UNUSABLE.of(why=error),
                retry_after_s=1.0,
            ) from error
        raise error


class _Connection(sqlite3.Connection):
    def execute(self, *arguments: Any) -> _Cursor:
        return self.cursor(_Cursor).execute(*arguments)

    def executemany(self, *arguments: Any) -> _Cursor:
        return self.cursor(_Cursor).executemany(*arguments)


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error
