"""A PostgreSQL server for tests: Debian's, in a temporary folder, as an unprivileged user.

It listens on a Unix socket in that folder only. Behind a :class:`Proxy`, it can be cut off.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from wiresum.controller.errors import StoreFailed
from wiresum.controller.state.sqlite import SqliteStore

if TYPE_CHECKING:
    from wiresum.controller.state.postgres.election import Candidate
    from wiresum.controller.state.postgres.store import PostgresStore

LIMIT_S = 60.0
_FILES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)


def why_not() -> str:
    """Why there is no PostgreSQL store here; empty: there is one."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'wiresum[postgres]')"
    if _folder() is None:
        return "PostgreSQL is not installed (apt install postgresql)"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no user nobody"
    return ""


def _folder() -> Path | None:
    found = shutil.which("initdb")
    return Path(found).parent if found else (_FILES[-1] if _FILES else None)


def _unprivileged() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return None


class Postgres:
    """A server with one database, which :meth:`empty` makes as new."""

    def __init__(self) -> None:
        folder = _folder()
        assert folder is not None, why_not()
        self._binaries = folder
        # A short path: that of a socket has little room.
        self.folder = Path(tempfile.mkdtemp(prefix="ws-pg-", dir="/tmp"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = _unprivileged()
            assert nobody is not None
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._initialize()
            self.start()
        except BaseException:
            self.close()
            raise

    def _initialize(self) -> None:
        done = subprocess.run(
            [
                self._binaries / "initdb", "-D", self.folder / "data", "--auth=trust",
                "--username=wiresum", "--no-sync", "--encoding=UTF8", "--locale=C",
            ],
            capture_output=True, text=True, timeout=LIMIT_S, cwd=self.folder, check=False,
            **self._user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the server, or start it again with what it has."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres", "-D", self.folder / "data", "-k", self.folder,
                    "-c", "listen_addresses=", "-c", "fsync=off",
                ],
                stdout=log, stderr=log, cwd=self.folder, **self._user,
            )  # fmt: skip
        deadline = time.monotonic() + LIMIT_S
        while True:
            with contextlib.suppress(Exception), self.connect():
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, and all sessions; what is committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(LIMIT_S)
            self._process = None

    def close(self) -> None:
        """End the server and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://wiresum@/postgres?host={self.folder}"

    def empty(self) -> str:
        """End all sessions and remove all tables; the database's URL."""
        self.hang_up()
        with self.connect() as db:
            db.execute("DROP SCHEMA IF EXISTS wiresum CASCADE")
        return self.url

    def hang_up(self) -> None:
        """End all sessions, as an operator may."""
        with self.connect() as db:
            db.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
            )

    def connect(self) -> Any:
        """A connection of the test's own, among the controllers' tables."""
        import psycopg

        return psycopg.connect(self.url, autocommit=True, options="-c search_path=wiresum")

    @property
    def socket(self) -> str:
        """Where it listens."""
        return str(self.folder / ".s.PGSQL.5432")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def patient(url: str, address: str = "here:7500") -> "Candidate":
    """A candidate that may say nothing for as long as a test takes, and lets others do so."""
    from wiresum.controller.state.postgres.election import Candidate

    return Candidate(url, address, silence_s=3600.0)


def lead(url: str) -> "PostgresStore":
    """The store of a leader that is :func:`patient`."""
    return led(patient(url))


def led(candidate: "Candidate") -> "PostgresStore":
    """The store of a candidate that will lead; it tries again, as a controller does.

    The server needs a moment to free the lock, and a busy machine may let a session end.
    """
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            store, why = candidate.run(), "another controller leads"
        except StoreFailed as error:
            store, why = None, str(error)
        if store is not None:
            return store
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


SLOW = pytest.mark.parametrize(
    "store_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
)
"""For tests with thousands of transactions."""


def rows(store: SqliteStore) -> dict[str, list[str]]:
    """All that the store knows, by table."""
    from wiresum.controller.state.postgres.schema import TABLES

    return {
        table: sorted(repr(tuple(row)) for row in store._db.execute(f"SELECT * FROM {table}"))
        for table in TABLES
    }


class Proxy:
    """A TCP port in front of a server. ``freeze`` holds all data back; nobody is told."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the server's database through this port."""
        return f"postgresql://wiresum@127.0.0.1:{self._listener.getsockname()[1]}/postgres"

    def freeze(self) -> None:
        """Hold all data back, in both directions, and what connects from now on."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let it flow again, what was held back first."""
        self._flows.set()

    def close(self) -> None:
        """Hang up."""
        self._flows.set()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        self._flows.wait()
        server = socket.socket(socket.AF_UNIX)
        self._sockets.append(server)
        with contextlib.suppress(OSError):
            server.connect(self._server.socket)
        for ends in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                target.sendall(data)
            self._flows.wait()
            target.shutdown(socket.SHUT_WR)
