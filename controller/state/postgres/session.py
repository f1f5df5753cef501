"""One session with PostgreSQL. No answer is awaited for longer than the caller says.

A session is also how a controller leads: the advisory lock that makes it the leader belongs to the
session. The server ends a session whose client is silent for ``silence_s``, and frees its lock.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from wiresum.controller import lines
from wiresum.controller.errors import StoreError

SILENCE_S = 5.0
"""After this many seconds without a message from its client, the server ends a session."""

SCHEMA = "wiresum"
"""The schema that has all tables: the database may have others of other programs."""

Statement = tuple[str, Sequence[Any]]
"""SQL with ``?`` for each of the values."""

# The first server that can end a silent session has this version: 14.
_OLDEST = 14_00_00

_CONNECT_S = 3

# A statement that waits for another's lock, or takes this long, fails and changes nothing.
_LOCK_MS, _STATEMENT_MS = 2000, 4000

_SETTINGS = {
    "search_path": SCHEMA,
    "lock_timeout": str(_LOCK_MS),
    "statement_timeout": str(_STATEMENT_MS),
    # Also a session that waits for a lock must end when its client has gone.
    "client_connection_check_interval": "1000",
}

DEFECTS: tuple[type[psycopg.Error], ...] = (
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.DataError,
)
"""What the server says of wrong statements; all else concerns the server or the network."""


class SessionLost(Exception):
    """The session has ended, or its server does not answer; the message is one line."""


class _Connection(psycopg.Connection[DictRow]):
    """Stops waiting for an answer at a given time; psycopg itself would wait for ever."""

    give_up = float("inf")
    """In ``time.monotonic()``."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        left = max(0.0, self.give_up - time.monotonic())
        try:
            return super().wait(gen, interval, left if timeout is None else min(left, timeout))
        except psycopg.Error:
            if time.monotonic() >= self.give_up:
                # Its answer may still come, and must not be taken for that to another question.
                self.pgconn.finish()
                with suppress(Exception):  # or it would complain on stderr, later
                    gen.close()
            raise


class Session:
    """An open session. Methods raise :class:`SessionLost`, and ``psycopg.Error`` otherwise."""

    def __init__(self, url: str, silence_s: float = SILENCE_S) -> None:
        """Connect. Raises :class:`SessionLost`, or :class:`StoreError` for too old a server."""
        self.silence_s = silence_s
        try:
            conninfo_to_dict(url)
        except psycopg.Error:
            # The message may contain a part of the password.
            raise StoreError(lines.NOT_A_STORE_URL.of()) from None
        try:
            self._db = _Connection.connect(
                url,
                autocommit=True,
                row_factory=cast(Any, dict_row),
                connect_timeout=_CONNECT_S,
                application_name="wiresum controller",
            )
        except psycopg.Error as error:
            raise SessionLost(one_line(error)) from error
        version = self._db.info.server_version
        if version < _OLDEST:
            self.close()
            raise StoreError(lines.POSTGRES_TOO_OLD.of(store=shown(url), version=version // 10_000))
        try:
            silent = f"{silence_s * 1000:.0f}"
            timeouts = ("idle_session_timeout", "idle_in_transaction_session_timeout")
            for name, value in (_SETTINGS | dict.fromkeys(timeouts, silent)).items():
                self.ask("SELECT set_config(?, ?, false)", (name, value))
            # An epoch that was handed out must be known after a power cut, too.
            self.ask(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session; the server frees its lock."""
        # Not Connection.close(): another thread may be waiting for an answer on it.
        self._db.pgconn.finish()

    def ask(
        self, sql: str, values: Sequence[Any] = (), *, limit_s: float = SILENCE_S
    ) -> list[dict[str, Any]]:
        """Carry out one statement and return its rows."""
        try:
            self._db.give_up = time.monotonic() + limit_s
            cursor = self._db.execute(_text(sql), values)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            self._check(error)
            raise

    def script(self, sql: str) -> None:
        """Carry out statements without values, all or none."""
        try:
            self._db.give_up = time.monotonic() + SILENCE_S
            with self._db.transaction():
                self._db.execute(sql.encode())
        except psycopg.Error as error:
            self._check(error)
            raise

    def write(self, statements: Iterable[Statement], *, limit_s: float) -> None:
        """Carry out all statements in one transaction, or none; it takes two round trips.

        After :class:`SessionLost` it is not known which.
        """
        try:
            self._db.give_up = time.monotonic() + limit_s
            with self._db.pipeline(), self._db.transaction():
                for sql, values in statements:
                    self._db.execute(_text(sql), values)
        except psycopg.Error as error:
            self._check(error)
            raise

    def _check(self, error: psycopg.Error) -> None:
        if time.monotonic() >= self._db.give_up:
            self.close()
            raise SessionLost("the server does not answer") from error
        if self._db.closed or self._db.broken:
            raise SessionLost(one_line(error)) from error


def shown(url: str) -> str:
    """The address of a store without its password, for messages."""
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        return "postgresql://…"
    host = found.get("host") or found.get("hostaddr") or ""
    port = f":{found['port']}" if found.get("port") else ""
    return f"postgresql://{host}{port}/{found.get('dbname') or ''}"


def one_line(error: BaseException) -> str:
    """What PostgreSQL or psycopg says, in one line."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _text(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
