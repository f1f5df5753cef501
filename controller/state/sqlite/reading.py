"""Answers the questions of :class:`Snapshot` from SQLite."""

import json
import sqlite3
from collections import Counter
from ipaddress import IPv4Address, IPv4Network

from wiresum.controller.on_full import OnFull
from wiresum.controller.state.model import (
    NO_LEASE,
    Change,
    HostRange,
    Job,
    JobState,
    Lease,
    Member,
    SlotRange,
    Switch,
    Tenant,
)
from wiresum.controller.state.store import Snapshot, Usage

# The jobs of a tenant that is gone must not show up among those of a later one of its name:
# no tenant's name has a blank in it.
_TENANT = "tenants.name || CASE WHEN tenants.removed IS NULL THEN '' ELSE ' (removed)' END"

_JOBS = f"""
    SELECT jobs.*, jobs.rowid AS sequence, {_TENANT} AS tenant_name, tenants.priority,
           leases.switch, leases.number, leases.base, leases.slots, leases.counters_reset,
           changes.number AS next_number, changes.base AS next_base, changes.slots AS next_slots,
           changes.epoch AS next_epoch, changes.key AS next_key,
           changes.reply_key AS next_reply_key, changes.reason AS next_reason, changes.announced,
           changes.boundary
    FROM jobs JOIN tenants ON tenants.id = jobs.tenant LEFT JOIN leases ON leases.job = jobs.id
         LEFT JOIN changes ON changes.job = jobs.id
"""

# Jobs that hold slots; those in the queue are not over, either.
_LIVE = "jobs.state IN ('waiting', 'ready')"


class Reading(Snapshot):
    """What is stored now; each question is documented in :class:`Snapshot`."""

    _db: sqlite3.Connection

    # ---- switches

    def switches(self, name: str | None = None) -> list[Switch]:
        hosts: dict[str, list[HostRange]] = {}
        query = "SELECT * FROM switch_hosts WHERE switch = COALESCE(?, switch)"
        for row in self._db.execute(f"{query} ORDER BY network, port", (name,)).fetchall():
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
            for row in self._db.execute(
                "SELECT * FROM switches WHERE name = COALESCE(?, name) ORDER BY name", (name,)
            ).fetchall()
        ]

    def switch(self, name: str) -> Switch | None:
        return next(iter(self.switches(name)), None)

    def switch_names(self) -> list[str]:
        return [row["name"] for row in self._db.execute("SELECT name FROM switches ORDER BY name")]

    def draining(self) -> set[str]:
        rows = self._db.execute("SELECT name FROM switches WHERE draining")
        return {row["name"] for row in rows}

    # ---- jobs

    def job(self, job_id: str) -> Job | None:
        return next(iter(self._jobs("WHERE jobs.id = ?", (job_id,))), None)

    def job_named(self, name: str, tenant: str | None = None) -> Job | None:
        where = f"""
            WHERE jobs.name = ? AND (? IS NULL OR {_TENANT} = ?)
            ORDER BY jobs.ended IS NULL DESC, jobs.created DESC LIMIT 1
        """
        return next(iter(self._jobs(where, (name, tenant, tenant))), None)

    def job_requested(self, tenant: str, request: str) -> Job | None:
        where = "WHERE tenants.name = ? AND tenants.removed IS NULL AND jobs.request = ?"
        return next(iter(self._jobs(where, (tenant, request))), None) if request else None

    def job_of_token(self, token: str) -> str | None:
        row = self._db.execute("SELECT job FROM job_tokens WHERE token = ?", (token,)).fetchone()
        return row["job"] if row else None

    def tenant_of_job(self, job_id: str) -> str | None:
        query = f"""
            SELECT {_TENANT} AS tenant FROM jobs JOIN tenants ON tenants.id = jobs.tenant
            WHERE jobs.id = ?
        """
        row = self._db.execute(query, (job_id,)).fetchone()
        return row["tenant"] if row else None

    def callers_of(self, tenant: str) -> int:
        query = f"""
            SELECT COUNT(*) AS jobs, TOTAL(jobs.workers) AS workers
            FROM jobs JOIN tenants ON tenants.id = jobs.tenant
            WHERE tenants.name = ? AND tenants.removed IS NULL
              AND {_LIVE}
        """
        row = self._db.execute(query, (tenant,)).fetchone()
        return 4 * int(row["jobs"]) + int(row["workers"])

    def token_count(self, job_id: str) -> int:
        query = "SELECT COUNT(*) AS count FROM job_tokens WHERE job = ?"
        return int(self._db.execute(query, (job_id,)).fetchone()["count"])

    def job_not_over(self, tenant: str, name: str) -> Job | None:
        where = """
            WHERE tenants.name = ? AND tenants.removed IS NULL
              AND jobs.name = ? AND jobs.ended IS NULL
        """
        return next(iter(self._jobs(where, (tenant, name))), None)

    def jobs(self, *, live_only: bool = False, tenant: str | None = None) -> list[Job]:
        where = f"""
            WHERE ({_LIVE} OR NOT ?) AND (? IS NULL OR {_TENANT} = ?)
            ORDER BY jobs.created DESC, jobs.rowid DESC
        """
        return self._jobs(where, (live_only, tenant, tenant))

    def job_ids_before(
        self, before: tuple[float, int] | None, limit: int, *, live_only: bool, tenant: str | None
    ) -> list[tuple[str, tuple[float, int]]]:
        one = "jobs.tenant = (SELECT id FROM tenants WHERE name = :tenant AND removed IS NULL)"
        query = f"""
            SELECT jobs.id, jobs.created, jobs.rowid AS place FROM jobs
            WHERE {one if tenant is not None else "TRUE"}
              AND {_LIVE if live_only else "jobs.state != 'queued'"}
              AND (jobs.created < :created OR (jobs.created = :created AND jobs.rowid < :place))
            ORDER BY jobs.created DESC, jobs.rowid DESC LIMIT :limit
        """
        created, place = before or (float("inf"), 0)
        values = {"tenant": tenant, "created": created, "place": place, "limit": limit}
        rows = self._db.execute(query, values).fetchall()
        return [(row["id"], (row["created"], row["place"])) for row in rows]

    def jobs_called(self, name: str) -> list[tuple[str, str]]:
        query = f"""
            SELECT {_TENANT} AS tenant, jobs.id FROM jobs JOIN tenants ON tenants.id = jobs.tenant
            WHERE jobs.name = ? AND jobs.ended IS NULL ORDER BY {_LIVE} DESC, jobs.rowid
        """
        rows = self._db.execute(query, (name,)).fetchall()
        return [(row["tenant"], row["id"]) for row in rows]

    def shrunk_jobs(self) -> list[Job]:
        where = f"WHERE {_LIVE} AND leases.slots < jobs.target ORDER BY jobs.created"
        return self._jobs(where, members=False)

    def parts(self, job_id: str) -> list[Job]:
        where = "WHERE jobs.parent = ? AND jobs.parent != '' AND jobs.ended IS NULL"
        return self._jobs(f"{where} ORDER BY jobs.rowid", (job_id,), members=False)

    def changing_jobs(self) -> list[Job]:
        return self._jobs("WHERE changes.job IS NOT NULL ORDER BY changes.announced")

    def jobs_on(self, switch: str, *, members: bool = True) -> list[Job]:
        where = "WHERE leases.held AND leases.switch = ? ORDER BY leases.base"
        return self._jobs(where, (switch,), members=members)

    def live_since(self) -> dict[str, float]:
        rows = self._db.execute(f"SELECT id, created FROM jobs WHERE {_LIVE}")
        return {row["id"]: row["created"] for row in rows}

    def waiting_members(self) -> list[tuple[str, int, int, int]]:
        query = """
            SELECT members.job, jobs.attempt, members.change, members.rank
            FROM members JOIN jobs ON jobs.id = members.job
            WHERE jobs.state != 'ready' OR members.change != jobs.change
        """
        return [tuple(row) for row in self._db.execute(query).fetchall()]

    def workers_on(self, switch: str, but: str) -> Counter[str]:
        query = f"""
            SELECT {_TENANT} AS tenant, SUM(jobs.workers) AS workers
            FROM jobs JOIN leases ON leases.job = jobs.id JOIN tenants ON tenants.id = jobs.tenant
            WHERE leases.held AND leases.switch = ? AND jobs.id != ? GROUP BY tenants.id
        """
        rows = self._db.execute(query, (switch, but))
        return Counter({row["tenant"]: row["workers"] for row in rows})

    def queue(self, tenant: str | None = None) -> list[Job]:
        where = """
            WHERE jobs.state = 'queued' AND tenants.name = COALESCE(?, tenants.name)
            ORDER BY jobs.rowid
        """
        return self._jobs(where, (tenant,), members=False)

    def queue_before(self, sequence: int | None, limit: int, tenant: str | None) -> list[Job]:
        where = """
            WHERE jobs.state = 'queued'
              AND (? IS NULL OR jobs.tenant =
                   (SELECT id FROM tenants WHERE name = ? AND removed IS NULL))
              AND (? IS NULL OR jobs.rowid < ?)
            ORDER BY jobs.rowid DESC LIMIT ?
        """
        return self._jobs(where, (tenant, tenant, sequence, sequence, limit), members=False)

    # ---- tenants

    def tenants(self) -> list[Tenant]:
        rows = self._db.execute("SELECT * FROM tenants WHERE removed IS NULL ORDER BY name")
        return [_tenant(row) for row in rows]

    def tenant(self, name: str) -> Tenant | None:
        query = "SELECT * FROM tenants WHERE name = ? AND removed IS NULL"
        row = self._db.execute(query, (name,)).fetchone()
        return _tenant(row) if row else None

    def tenant_of_token(self, token: str) -> str | None:
        query = "SELECT name FROM tenants WHERE token = ? AND removed IS NULL"
        row = self._db.execute(query, (token,)).fetchone()
        return row["name"] if row else None

    def admin_token(self) -> str | None:
        row = self._db.execute("SELECT token FROM admin").fetchone()
        return row["token"] if row else None

    def usage(self) -> dict[str, Usage]:
        live = self._db.execute(
            f"""
            SELECT tenants.name, COUNT(*) AS jobs, SUM(jobs.target) AS slots
            FROM jobs JOIN tenants ON tenants.id = jobs.tenant
            WHERE {_LIVE} AND jobs.parent = '' GROUP BY tenants.id
            """
        ).fetchall()
        waiting = self._db.execute(
            "SELECT tenants.name, COUNT(*) AS jobs FROM jobs "
            "JOIN tenants ON tenants.id = jobs.tenant "
            "WHERE jobs.state = 'queued' GROUP BY tenants.id"
        ).fetchall()
        queued = Counter({row["name"]: int(row["jobs"]) for row in waiting})
        counts = {row["name"]: (int(row["slots"]), int(row["jobs"])) for row in live}
        return {
            tenant.name: Usage(*counts.get(tenant.name, (0, 0)), queued[tenant.name])
            for tenant in self.tenants()
        }

    # ----

    def last_epoch(self) -> int:
        row = self._db.execute("SELECT last FROM epochs").fetchone()
        return int(row["last"])

    def _jobs(
        self, where: str, parameters: tuple[object, ...] = (), *, members: bool = True
    ) -> list[Job]:
        rows = self._db.execute(_JOBS + where, parameters).fetchall()
        return [self._job(row, members) for row in rows]

    def _job(self, row: sqlite3.Row, members: bool) -> Job:
        return Job(
            id=row["id"],
            tenant=row["tenant_name"],
            name=row["name"],
            state=JobState(row["state"]),
            reason=row["reason"],
            created=row["created"],
            attempt=row["attempt"],
            epoch=row["epoch"],
            key=int.from_bytes(row["key"], "big"),
            reply_key=int.from_bytes(row["reply_key"], "big"),
            workers=row["workers"],
            field=row["field"],
            lease=_lease(row),
            events=json.loads(row["events"]) if row["events"] else None,
            members=self._members(row["id"], row["change"]) if members else (),
            target=row["target"],
            min_slots=row["min_slots"],
            on_full=OnFull(row["on_full"]),
            wanted_switch=row["wanted_switch"],
            request=row["request"],
            parent=row["parent"],
            parked=bool(row["parked"]),
            lent=row["lent"],
            sequence=row["sequence"],
            priority=row["priority"],
            change=row["change"],
            last_change=row["last_change"],
            pending=self._change(row, members) if row["next_number"] is not None else None,
        )

    def _change(self, row: sqlite3.Row, members: bool) -> Change:
        return Change(
            number=row["next_number"],
            range=SlotRange(row["next_base"], row["next_slots"]),
            epoch=row["next_epoch"],
            key=int.from_bytes(row["next_key"], "big"),
            reply_key=int.from_bytes(row["next_reply_key"], "big"),
            reason=row["next_reason"],
            announced=row["announced"],
            boundary=row["boundary"],
            members=self._members(row["id"], row["next_number"]) if members else (),
        )

    def _members(self, job_id: str, change: int) -> tuple[Member, ...]:
        query = "SELECT * FROM members WHERE job = ? AND change = ? ORDER BY rank"
        return tuple(
            Member(
                rank=row["rank"],
                ip=IPv4Address(row["ip"]),
                udp_port=row["udp_port"],
                mac=row["mac"],
                port=row["port"],
            )
            for row in self._db.execute(query, (job_id, change)).fetchall()
        )


def _lease(row: sqlite3.Row) -> Lease:
    if row["switch"] is None:
        return NO_LEASE
    return Lease(
        switch=row["switch"],
        number=row["number"],
        range=SlotRange(row["base"], row["slots"]),
        counters_reset=bool(row["counters_reset"]),
    )


def _tenant(row: sqlite3.Row) -> Tenant:
    return Tenant(
        name=row["name"],
        slot_quota=row["slot_quota"],
        max_jobs=row["max_jobs"],
        priority=row["priority"],
        created=row["created"],
        served=row["served"],
    )
