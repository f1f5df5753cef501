"""The store in PostgreSQL, as the controller that leads has it.

It leads, so no other process writes. It keeps a copy of all rows in memory, in SQLite, and answers
all questions from the copy, also while PostgreSQL does not answer. A plan is carried out on the
copy first, which tells the writes; PostgreSQL carries the same writes out in one transaction, under
the same constraints; then both are committed.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from wiresum.controller import lines
from wiresum.controller.errors import NotLeading, StoreFailed
from wiresum.controller.state.postgres.schema import TABLES
from wiresum.controller.state.postgres.session import (
    DEFECTS,
    Session,
    SessionLost,
    Statement,
    one_line,
)
from wiresum.controller.state.sqlite.store import MEMORY, SqliteStore
from wiresum.controller.state.sqlite.transaction import Statements, Transaction
from wiresum.controller.state.store import Snapshot

log = logging.getLogger(__name__)

_FENCED = "WS001"
"""The error of ``must_lead`` in the schema: a later term has begun."""


class Term:
    """One leadership: a session that holds the lock of the store, and the number of the term.

    It ends when the session does, and by itself after the session's ``silence_s``, counted from the
    sending of the last question that the server has answered without an error. The server ends the
    session, and so frees the lock, no earlier than that: a controller that stood still or is cut
    off knows that it does not lead before another one does.
    """

    def __init__(self, session: Session, number: int, won: float) -> None:
        """``won``: a time in :func:`now` at which the session had not been silent."""
        self.number = number
        self.lost = ""
        """Why it is over, if it is."""
        self._session = session
        self._turn = threading.Lock()
        self._answered(won)

    def holds(self) -> bool:
        """Whether this controller leads."""
        if not self.lost and now() >= self._until:
            silence, why = self._session.silence_s, self._refusal or "no answer"
            self.lost = f"PostgreSQL has not confirmed the leadership for {silence:g} s: {why}"
        return not self.lost

    def confirm(self) -> bool:
        """Ask the server for an answer; whether this controller leads. In any thread."""
        with self._turn:
            if self.holds():
                began = now()
                try:
                    self._session.ask("SELECT must_lead(?)", (self.number,), limit_s=self._left())
                except (SessionLost, psycopg.Error) as error:
                    self._failed(error)
                else:
                    self._answered(began)
            return self.holds()

    def write(self, statements: Iterable[Statement]) -> None:
        """Carry out all statements, or none. Raises :class:`StoreFailed`, or ``psycopg.Error``."""
        with self._turn:
            self.check()
            began = now()
            try:
                fenced = [("SELECT must_lead(?)", (self.number,)), *statements]
                self._session.write(fenced, limit_s=self._left())
            except DEFECTS:
                raise
            except (SessionLost, psycopg.Error) as error:
                self._failed(error)
                self.check()
                raise StoreFailed(
                    "UNAVAILABLE",
                    lines.STORE_NOT_WRITTEN.of(why=one_line(error)),
                    retry_after_s=1.0,
                ) from error
            self._answered(began)

    def read(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table. Raises :class:`SessionLost` or ``psycopg.Error``."""
        with self._turn:
            began = now()
            rows = self._session.ask(f"SELECT * FROM {table}")
            self._answered(began)
            return rows

    def check(self) -> None:
        """Raise :class:`NotLeading` if this controller does not lead any more."""
        if not self.holds():
            raise NotLeading(
                "UNAVAILABLE",
                lines.NOT_LEADING.of(why=self.lost),
                retry_after_s=0.2,
            )

    def end(self, why: str) -> None:
        """Let another controller lead."""
        self.lost = self.lost or why
        self._session.close()

    def _answered(self, asked: float) -> None:
        self._until = asked + self._session.silence_s
        self._refusal = ""

    def _failed(self, error: Exception) -> None:
        self._refusal = one_line(error)
        fenced = isinstance(error, psycopg.Error) and error.sqlstate == _FENCED
        if isinstance(error, SessionLost) or fenced:
            self.lost = self.lost or self._refusal

    def _left(self) -> float:
        return max(0.0, self._until - now())


class PostgresStore(SqliteStore):
    """The store of the controller that leads; :attr:`term` says whether it still does."""

    def __init__(self, term: Term) -> None:
        """Read all rows. Raises :class:`SessionLost` or ``psycopg.Error``."""
        super().__init__(MEMORY, any_thread=True)
        self.term = term
        self._load()

    def snapshot(self) -> Snapshot:
        """What is stored now. Raises :class:`NotLeading`: another may have written since."""
        self.term.check()
        return self

    def close(self) -> None:
        """Let another controller lead."""
        self.term.end("the controller ends")
        super().close()

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        with super()._transaction():
            listener = _Listener(self._db)
            yield Transaction(listener)
            self.term.write(listener.writes)

    def _load(self) -> None:
        self._db.execute("BEGIN")
        for table in reversed(TABLES):
            self._db.execute(f"DELETE FROM {table}")
        for table in TABLES:
            rows = self.term.read(table)
            if rows:
                columns = list(rows[0])
                marks = ", ".join("?" for _ in columns)
                self._db.executemany(
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
                    [[row[column] for column in columns] for row in rows],
                )
        self._db.execute("COMMIT")


class _Listener(Statements):
    """Carries statements out on the copy, and keeps those that write."""

    def __init__(self, db: Statements) -> None:
        self.writes: list[Statement] = []
        self._db = db

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        if not sql.lstrip().startswith("SELECT"):
            self.writes.append((sql, values))
        return self._db.execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        rows = list(rows)
        self.writes += [(sql, row) for row in rows]
        return self._db.executemany(sql, rows)


def now() -> float:
    """Seconds that also go by while this process, or the machine, stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
