"""Which of the controllers of one store leads: the one whose session has the advisory lock."""

import logging

import psycopg

from wiresum.controller import lines
from wiresum.controller.errors import StoreError, StoreFailed
from wiresum.controller.state.postgres.schema import BEGINNING, STEPS
from wiresum.controller.state.postgres.session import (
    DEFECTS,
    SCHEMA,
    SILENCE_S,
    Session,
    SessionLost,
    one_line,
    shown,
)
from wiresum.controller.state.postgres.store import PostgresStore, Term, now

log = logging.getLogger(__name__)

# The lock's number. Advisory locks belong to a database, and so does a store.
_LOCK = int.from_bytes(b"wiresum", "big")


class Candidate:
    """A controller that tries to lead. Methods block; call them in a thread of their own."""

    def __init__(self, url: str, address: str, silence_s: float = SILENCE_S) -> None:
        """``url`` is the store's; ``address`` tells users where this controller can be asked."""
        self.leader = ""
        """The address of the controller that led when this one last ran; empty: not known."""
        self._url = url
        self._address = address
        self._silence_s = silence_s
        self._session: Session | None = None

    def run(self) -> PostgresStore | None:
        """Lead, if no other controller does. The store ends the leadership when it is closed.

        Raises :class:`StoreFailed` while the server cannot be asked, and :class:`StoreError` if
        this controller can never lead.
        """
        try:
            try:
                store = self._run()
            except SessionLost:
                if self._session is None:
                    raise
                # If the session was ended while this process stood still, that says nothing about
                # the server.
                self.close()
                store = self._run()
        except DEFECTS as error:
            self.close()
            raise StoreError(
                lines.STORE_NOT_OPENED.of(store=shown(self._url), why=one_line(error))
            ) from error
        except (SessionLost, psycopg.Error) as error:
            self.close()
            raise StoreFailed(
                "UNAVAILABLE",
                lines.STORE_NOT_REACHED.of(store=shown(self._url), why=one_line(error)),
                retry_after_s=1.0,
            ) from error
        except BaseException:
            self.close()
            raise
        if store is not None:
            self._session = None  # the store's from now on
            self.leader = self._address
        return store

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _run(self) -> PostgresStore | None:
        if self._session is None:
            self._session = Session(self._url, self._silence_s)
        before = now()
        (row,) = self._session.ask("SELECT pg_try_advisory_lock(?) AS won", (_LOCK,))
        if row["won"]:
            return self._lead(self._session, before)
        _end_a_silent_leader(self._session)
        self.leader = _leader(self._session)
        return None

    def _lead(self, session: Session, won: float) -> PostgresStore:
        if not session.ask("SELECT to_regclass(?) AS found", (f"{SCHEMA}.store",))[0]["found"]:
            session.script(BEGINNING)
        (row,) = session.ask("SELECT steps FROM store")
        if row["steps"] > len(STEPS):
            raise StoreError(
                lines.STORE_TOO_NEW.of(
                    store=shown(self._url), schema=row["steps"], known=len(STEPS)
                )
            )
        for number, step in enumerate(STEPS[row["steps"] :], start=row["steps"] + 1):
            session.script(f"{step}; UPDATE store SET steps = {number};")
        # Not before the end of what an earlier leader may still be writing: it holds the row.
        (row,) = session.ask(
            "UPDATE store SET term = term + 1, leader = ? RETURNING term", (self._address,)
        )
        return PostgresStore(Term(session, int(row["term"]), won))


def _end_a_silent_leader(session: Session) -> None:
    """End the session that has the lock if its client is silent in the middle of a transaction.

    The server itself ends sessions that are idle; one that waits for the rest of a pipeline is not.
    By then the leader counts its term as over: it calls the server much more often.
    """
    session.ask(
        """
        SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
          AND (classid::bigint << 32) + objid::bigint = ?
          AND clock_timestamp() - state_change > make_interval(secs => ?)
        """,
        (_LOCK, session.silence_s),
    )


def _leader(session: Session) -> str:
    try:
        rows = session.ask("SELECT leader FROM store")
    except psycopg.ProgrammingError:
        return ""  # the first leader is just about to make the table
    return str(rows[0]["leader"]) if rows else ""
