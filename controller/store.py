"""The controller's memory: one SQLite file, written in transactions only.

Everything here is synchronous and belongs to one thread: the statements take microseconds.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import IO

from wiresum.controller.errors import StoreError
from wiresum.controller.model import HostRange, Job, JobState, Lease, Member, Switch
from wiresum.controller.schema import MIGRATIONS
from wiresum.controller.slots import SlotRange
from wiresum.controller.transaction import Transaction

MEMORY = ":memory:"
"""The path of a store that is gone with its controller."""

_JOBS = """
    SELECT jobs.*, tenants.name AS tenant_name,
           leases.switch, leases.number, leases.base, leases.slots, leases.counters_reset
    FROM jobs JOIN tenants ON tenants.id = jobs.tenant JOIN leases ON leases.job = jobs.id
"""


def default_path() -> Path:
    """``$XDG_STATE_HOME/wiresum/controller.sqlite``."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "wiresum" / "controller.sqlite"


class Store:
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
            self._db.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            raise StoreError(f"store {self._path} cannot be opened: {error}") from error
        except StoreError:
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

    # ---- reading

    def switches(self) -> list[Switch]:
        """All switches by name."""
        hosts: dict[str, list[HostRange]] = {}
        for row in self._db.execute("SELECT * FROM switch_hosts ORDER BY network, port"):
            network = IPv4Network(row["network"])
            hosts.setdefault(row["switch"], []).append(HostRange(network, row["port"]))
        return [
            Switch(
                name=row["name"],
                p4runtime=row["p4runtime"],
                device_id=row["device_id"],
                ip=IPv4Address(row["ip"]),
                udp_port=row["udp_port"],
                mac=row["mac"],
                lanes=row["lanes"],
                slots=row["slots"],
                hosts=tuple(hosts.get(row["name"], ())),
                shared_address=bool(row["shared_address"]),
            )
            for row in self._db.execute("SELECT * FROM switches ORDER BY name")
        ]

    def switch(self, name: str) -> Switch | None:
        """The switch of that name, if any."""
        return next((switch for switch in self.switches() if switch.name == name), None)

    def job(self, job_id: str) -> Job | None:
        """The job of that id, if any, live or not."""
        return next(iter(self._jobs("WHERE jobs.id = ?", (job_id,))), None)

    def job_named(self, name: str) -> Job | None:
        """The live job of that name, or else the latest one that had it."""
        where = "WHERE jobs.name = ? ORDER BY jobs.ended IS NULL DESC, jobs.created DESC LIMIT 1"
        return next(iter(self._jobs(where, (name,))), None)

    def live_job_named(self, tenant: str, name: str) -> Job | None:
        """The tenant's live job of that name, if any."""
        where = "WHERE tenants.name = ? AND jobs.name = ? AND jobs.ended IS NULL"
        return next(iter(self._jobs(where, (tenant, name))), None)

    def jobs(self, *, live_only: bool = False) -> list[Job]:
        """Jobs, newest first."""
        where = "WHERE jobs.ended IS NULL" if live_only else ""
        return self._jobs(f"{where} ORDER BY jobs.created DESC, jobs.rowid DESC")

    def jobs_on(self, switch: str) -> list[Job]:
        """The live jobs on a switch, by slot."""
        return self._jobs("WHERE leases.held AND leases.switch = ? ORDER BY leases.base", (switch,))

    def silent_jobs(self, since: float) -> list[Job]:
        """The live jobs without a heartbeat at or after ``since``."""
        return self._jobs("WHERE jobs.ended IS NULL AND jobs.heartbeat < ?", (since,))

    def workers_on(self, switch: str, but: str) -> int:
        """How many workers the live jobs on a switch have, without those of job ``but``."""
        query = """
            SELECT COALESCE(SUM(jobs.workers), 0) AS workers
            FROM jobs JOIN leases ON leases.job = jobs.id
            WHERE leases.held AND leases.switch = ? AND jobs.id != ?
        """
        return int(self._db.execute(query, (switch, but)).fetchone()["workers"])

    def member_elsewhere(
        self, switch: str, mac: int, port: int, but: str
    ) -> tuple[str, int, int] | None:
        """Who has ``mac`` behind another port than ``port`` of a switch: job, rank, port.

        Members of job ``but`` do not matter. None if there is nobody.
        """
        query = """
            SELECT members.job, members.rank, members.port
            FROM members JOIN leases ON leases.job = members.job
            WHERE members.mac = ? AND members.port != ? AND leases.held AND leases.switch = ?
              AND members.job != ? LIMIT 1
        """
        row = self._db.execute(query, (mac, port, switch, but)).fetchone()
        return (row["job"], row["rank"], row["port"]) if row else None

    def has_tenant(self, name: str) -> bool:
        """Whether there is such a tenant."""
        return bool(self._db.execute("SELECT 1 FROM tenants WHERE name = ?", (name,)).fetchone())

    def last_epoch(self) -> int:
        """The last epoch that was handed out; 0 if none ever was."""
        row = self._db.execute("SELECT last FROM epochs").fetchone()
        return int(row["last"])

    def _jobs(self, where: str, parameters: tuple[object, ...] = ()) -> list[Job]:
        return [self._job(row) for row in self._db.execute(_JOBS + where, parameters).fetchall()]

    def _job(self, row: sqlite3.Row) -> Job:
        members = self._db.execute(
            "SELECT * FROM members WHERE job = ? ORDER BY rank", (row["id"],)
        )
        return Job(
            id=row["id"],
            tenant=row["tenant_name"],
            name=row["name"],
            token=row["token"],
            state=JobState(row["state"]),
            reason=row["reason"],
            created=row["created"],
            heartbeat=row["heartbeat"],
            attempt=row["attempt"],
            epoch=row["epoch"],
            key=int.from_bytes(row["key"], "big"),
            workers=row["workers"],
            field=row["field"],
            lease=Lease(
                switch=row["switch"],
                number=row["number"],
                range=SlotRange(row["base"], row["slots"]),
                counters_reset=bool(row["counters_reset"]),
            ),
            events=json.loads(row["events"]) if row["events"] else None,
            members=tuple(
                Member(
                    rank=member["rank"],
                    ip=IPv4Address(member["ip"]),
                    udp_port=member["udp_port"],
                    mac=member["mac"],
                    port=member["port"],
                )
                for member in members
            ),
        )

    # ---- opening

    def _prepare(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The store holds keys and tokens: nobody else may read it (nor, hence, its journal).
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        lock_path = path.with_name(path.name + ".lock")
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
        for version, script in enumerate(MIGRATIONS[done:], start=done + 1):
            self._db.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
