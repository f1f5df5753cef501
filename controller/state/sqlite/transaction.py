"""Carries out plans as SQL, inside the transaction of :meth:`SqliteStore.commit`.

The questions are SQLite's. The writes have no parameters but values, use only SQL that PostgreSQL
understands, too, and have the same effect wherever the same rows are: a store in PostgreSQL repeats
them (``state/postgres/``).
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from functools import singledispatchmethod
from typing import Any, Protocol

from wiresum.controller.state import plan as plans
from wiresum.controller.state.epochs import epoch_floor, next_epoch
from wiresum.controller.state.model import JobState


class Statements(Protocol):
    """Carries out SQL with ``?`` for each value: a connection of SQLite, or what listens to one."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        """Carry out one statement; the result has the rows."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Carry out a write once for each row of values."""
        ...


class Transaction:
    """Writes that happen together or not at all."""

    def __init__(self, db: Statements) -> None:
        self._db = db

    def carry_out(self, plan: plans.Plan) -> None:
        """Write all of a plan."""
        for write in plan.writes:
            self._write(write, plan.now)

    def write_nothing_new(self) -> None:
        """Find out whether the store can be written."""
        self._db.execute("UPDATE tenants SET served = served")

    @singledispatchmethod
    def _write(self, write: object, now: float) -> None:
        raise TypeError(f"no plan has a {type(write).__name__}")

    @_write.register
    def _put_switch(self, write: plans.PutSwitch, now: float) -> None:
        self._db.execute(
            """
            INSERT INTO switches
                (name, p4runtime, device_id, ip, udp_port, mac, lanes, slots, shared_address, added)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET
                p4runtime = excluded.p4runtime, device_id = excluded.device_id,
                ip = excluded.ip, udp_port = excluded.udp_port, mac = excluded.mac,
                lanes = excluded.lanes, slots = excluded.slots,
                shared_address = excluded.shared_address
            """,
            (
                write.switch.name,
                write.switch.p4runtime,
                write.switch.device_id,
                str(write.switch.ip),
                write.switch.udp_port,
                write.switch.mac,
                write.switch.lanes,
                write.switch.slots,
                int(write.switch.shared_address),
                now,
            ),
        )
        self._db.execute("DELETE FROM switch_hosts WHERE switch = ?", (write.switch.name,))
        self._db.executemany(
            "INSERT INTO switch_hosts (switch, network, port) VALUES (?, ?, ?)",
            [(write.switch.name, str(host.network), host.port) for host in write.switch.hosts],
        )

    @_write.register
    def _remove_switch(self, write: plans.RemoveSwitch, now: float) -> None:
        self._db.execute("DELETE FROM switches WHERE name = ?", (write.name,))

    @_write.register
    def _set_draining(self, write: plans.SetDraining, now: float) -> None:
        self._db.execute(
            "UPDATE switches SET draining = ? WHERE name = ?", (int(write.draining), write.name)
        )

    @_write.register
    def _set_admin_token(self, write: plans.SetAdminToken, now: float) -> None:
        self._db.execute(
            "INSERT INTO admin (id, token) VALUES (1, ?) "
            "ON CONFLICT (id) DO UPDATE SET token = excluded.token",
            (write.token,),
        )

    @_write.register
    def _add_tenant(self, write: plans.AddTenant, now: float) -> None:
        self._db.execute(
            """
            INSERT INTO tenants (id, name, token, slot_quota, max_jobs, priority, served, created)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                self._next("SELECT MAX(id) AS last FROM tenants"),
                write.tenant.name,
                write.token,
                write.tenant.slot_quota,
                write.tenant.max_jobs,
                write.tenant.priority,
                write.tenant.served,
                write.tenant.created,
            ),
        )

    @_write.register
    def _set_tenant(self, write: plans.SetTenant, now: float) -> None:
        self._db.execute(
            """
            UPDATE tenants SET slot_quota = ?, max_jobs = ?, priority = ?
            WHERE name = ? AND removed IS NULL
            """,
            (
                write.tenant.slot_quota,
                write.tenant.max_jobs,
                write.tenant.priority,
                write.tenant.name,
            ),
        )

    @_write.register
    def _set_tenant_token(self, write: plans.SetTenantToken, now: float) -> None:
        self._db.execute(
            "UPDATE tenants SET token = ? WHERE name = ? AND removed IS NULL",
            (write.token, write.name),
        )

    @_write.register
    def _remove_tenant(self, write: plans.RemoveTenant, now: float) -> None:
        self._db.execute(
            "UPDATE tenants SET token = NULL, removed = ? WHERE name = ? AND removed IS NULL",
            (now, write.name),
        )

    @_write.register
    def _add_job_token(self, write: plans.AddJobToken, now: float) -> None:
        self._db.execute(
            "INSERT INTO job_tokens (token, job) VALUES (?, ?)", (write.token, write.job)
        )

    # ---- the queue

    @_write.register
    def _enqueue(self, write: plans.Enqueue, now: float) -> None:
        job = write.job
        self._db.execute(
            """
            INSERT INTO jobs (rowid, id, tenant, name, state, created, heartbeat, target, min_slots,
                              request, on_full, wanted_switch, parent)
            VALUES (?, ?, (SELECT id FROM tenants WHERE name = ? AND removed IS NULL), ?, 'queued',
                    ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                self._next("SELECT MAX(rowid) AS last FROM jobs"),
                job.id,
                job.tenant,
                job.name,
                job.created,
                job.created,
                job.target,
                job.min_slots,
                job.request,
                job.on_full.value,
                job.wanted_switch,
                job.parent,
            ),
        )

    @_write.register
    def _restart_wait(self, write: plans.RestartWait, now: float) -> None:
        self._db.execute(
            "UPDATE jobs SET created = ?, heartbeat = ? WHERE id = ?", (now, now, write.job)
        )

    @_write.register
    def _leave_queue(self, write: plans.LeaveQueue, now: float) -> None:
        self._db.execute("DELETE FROM jobs WHERE id = ? AND state = 'queued'", (write.job,))

    @_write.register
    def _grant(self, write: plans.Grant, now: float) -> None:
        slots = write.range.slots
        self._db.execute(
            """
            UPDATE jobs SET state = 'waiting', created = ?, heartbeat = ?, target = ?,
                            min_slots = CASE WHEN min_slots < ? THEN min_slots ELSE ? END
            WHERE id = ? AND state = 'queued'
            """,
            (now, now, slots, slots, slots, write.job),
        )
        self._db.execute(
            "INSERT INTO leases (job, switch, number, base, slots) VALUES (?, ?, ?, ?, ?)",
            (write.job, write.switch, write.number, write.range.base, slots),
        )
        self._db.execute(
            "UPDATE tenants SET served = (SELECT MAX(served) + 1 FROM tenants) "
            "WHERE id = (SELECT tenant FROM jobs WHERE id = ? AND parent = '')",
            (write.job,),
        )

    # ---- joining

    @_write.register
    def _start_attempt(self, write: plans.StartAttempt, now: float) -> None:
        self._db.execute("DELETE FROM members WHERE job = ?", (write.job,))
        self._move_to_next(write.job)
        self._db.execute(
            """
            UPDATE jobs SET state = 'waiting', attempt = ?, epoch = ?, key = ?, reply_key = ?,
                            workers = ?, field = ?, change = 0, last_change = 0,
                            parked = 0
            WHERE id = ?
            """,
            (
                write.attempt,
                self._new_epoch(now),
                _new_key(),
                _new_key(),
                write.workers,
                write.field,
                write.job,
            ),
        )
        self._forget_lent(write.job)

    @_write.register
    def _add_member(self, write: plans.AddMember, now: float) -> None:
        member = write.member
        self._db.execute(
            """
            INSERT INTO members (job, change, rank, ip, udp_port, mac, port)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            (
                write.job,
                write.change,
                member.rank,
                int(member.ip),
                member.udp_port,
                member.mac,
                member.port,
            ),
        )

    @_write.register
    def _remove_member(self, write: plans.RemoveMember, now: float) -> None:
        self._db.execute(
            "DELETE FROM members WHERE job = ? AND change = ? AND rank = ?",
            (write.job, write.change, write.rank),
        )

    @_write.register
    def _remove_waiting_members(self, write: plans.RemoveWaitingMembers, now: float) -> None:
        self._db.execute(
            """
            DELETE FROM members WHERE (job, change) NOT IN
                (SELECT id, change FROM jobs WHERE state = 'ready')
            """
        )

    @_write.register
    def _set_ready(self, write: plans.SetReady, now: float) -> None:
        self._db.execute("UPDATE jobs SET state = 'ready' WHERE id = ?", (write.job,))

    # ---- changes of leases

    @_write.register
    def _announce_change(self, write: plans.AnnounceChange, now: float) -> None:
        self._db.execute("UPDATE jobs SET last_change = last_change + 1 WHERE id = ?", (write.job,))
        self._db.execute(
            """
            INSERT INTO changes
                (job, switch, number, base, slots, epoch, key, reply_key, reason, announced)
            SELECT jobs.id, leases.switch, jobs.last_change, ?, ?, ?, ?, ?, ?, ?
            FROM jobs JOIN leases ON leases.job = jobs.id WHERE jobs.id = ?
            """,
            (
                write.range.base,
                write.range.slots,
                self._new_epoch(now),
                _new_key(),
                _new_key(),
                write.reason,
                now,
                write.job,
            ),
        )

    @_write.register
    def _move_lease(self, write: plans.MoveLease, now: float) -> None:
        self._db.execute(
            "UPDATE leases SET base = ?, slots = ? WHERE job = ?",
            (write.range.base, write.range.slots, write.job),
        )
        self._forget_lent(write.job)
        row = self._db.execute("SELECT epoch FROM jobs WHERE id = ?", (write.job,)).fetchone()
        if row["epoch"]:
            self._db.execute(
                "UPDATE jobs SET epoch = ?, key = ?, reply_key = ? WHERE id = ?",
                (self._new_epoch(now), _new_key(), _new_key(), write.job),
            )

    @_write.register
    def _move_to_switch(self, write: plans.MoveToSwitch, now: float) -> None:
        self._db.execute("DELETE FROM members WHERE job = ?", (write.job,))
        self._db.execute("DELETE FROM changes WHERE job = ?", (write.job,))
        self._db.execute(
            """
            UPDATE leases SET switch = ?, number = ?, base = ?, slots = ?, counters_reset = 0
            WHERE job = ?
            """,
            (write.switch, write.number, write.range.base, write.range.slots, write.job),
        )
        # Nobody on another switch has what it lent.
        self._db.execute("UPDATE jobs SET state = 'waiting', lent = 0 WHERE id = ?", (write.job,))

    @_write.register
    def _set_boundary(self, write: plans.SetBoundary, now: float) -> None:
        self._db.execute(
            "UPDATE changes SET boundary = ? WHERE job = ?", (write.boundary, write.job)
        )

    @_write.register
    def _restart_change(self, write: plans.RestartChange, now: float) -> None:
        self._db.execute("UPDATE changes SET announced = ? WHERE job = ?", (now, write.job))

    @_write.register
    def _cancel_change(self, write: plans.CancelChange, now: float) -> None:
        self._db.execute("DELETE FROM changes WHERE job = ?", (write.job,))

    @_write.register
    def _finish_change(self, write: plans.FinishChange, now: float) -> None:
        change = self._db.execute("SELECT * FROM changes WHERE job = ?", (write.job,)).fetchone()
        self._db.execute(
            "DELETE FROM members WHERE job = ? AND change != ?", (write.job, change["number"])
        )
        self._move_to_next(write.job)
        self._db.execute(
            "UPDATE jobs SET change = ?, epoch = ?, key = ?, reply_key = ? WHERE id = ?",
            (change["number"], change["epoch"], change["key"], change["reply_key"], write.job),
        )
        self._forget_lent(write.job)

    @_write.register
    def _park(self, write: plans.Park, now: float) -> None:
        self._db.execute(
            "UPDATE jobs SET parked = 1, lent = ? WHERE id = ?", (write.lent, write.job)
        )

    @_write.register
    def _unpark(self, write: plans.Unpark, now: float) -> None:
        self._db.execute("UPDATE jobs SET parked = 0 WHERE id = ?", (write.job,))
        self._forget_lent(write.job)

    # ---- the ends of jobs

    @_write.register
    def _counters_reset(self, write: plans.CountersReset, now: float) -> None:
        self._db.execute("UPDATE leases SET counters_reset = 1 WHERE job = ?", (write.job,))

    @_write.register
    def _end_job(self, write: plans.EndJob, now: float) -> None:
        assert write.state in (JobState.RELEASED, JobState.EXPIRED, JobState.EVICTED)
        events = json.dumps(dict(write.events)) if write.events is not None else None
        self._db.execute("DELETE FROM members WHERE job = ?", (write.job,))
        self._db.execute("DELETE FROM changes WHERE job = ?", (write.job,))
        self._db.execute("UPDATE leases SET held = 0 WHERE job = ?", (write.job,))
        self._db.execute(
            "UPDATE jobs SET state = ?, reason = ?, ended = ?, events = ? WHERE id = ?",
            (write.state.value, write.reason, now, events, write.job),
        )
        if write.keep is not None:
            old = self._db.execute(
                """
                SELECT id FROM jobs
                WHERE tenant = (SELECT tenant FROM jobs WHERE id = ?1)
                  AND (parent = '') = (SELECT parent = '' FROM jobs WHERE id = ?1)
                  AND ended IS NOT NULL AND id != ?1
                ORDER BY ended DESC, rowid DESC LIMIT -1 OFFSET ?2
                """,
                (write.job, write.keep),
            ).fetchall()
            self._db.executemany("DELETE FROM jobs WHERE id = ?", [(row["id"],) for row in old])

    @_write.register
    def _forget_history(self, write: plans.ForgetHistory, now: float) -> None:
        self._db.execute("DELETE FROM jobs WHERE ended < ?", (write.before,))
        self._db.execute(
            "DELETE FROM tenants WHERE removed IS NOT NULL AND id NOT IN (SELECT tenant FROM jobs)"
        )

    # ----

    def _new_epoch(self, now: float) -> int:
        """An epoch that no job on any switch has had. Raises OverflowError when all are used."""
        last = int(self._db.execute("SELECT last FROM epochs").fetchone()["last"])
        epoch = next_epoch(last, epoch_floor(now))
        self._db.execute("UPDATE epochs SET last = ?", (epoch,))
        return epoch

    def _next(self, query: str) -> int:
        """The number after the ``last`` that the query finds; 1 if it finds none."""
        return int(self._db.execute(query).fetchone()["last"] or 0) + 1

    def _forget_lent(self, job_id: str) -> None:
        """A job that is not parked and has all of its slots is owed none."""
        self._db.execute(
            """
            UPDATE jobs SET lent = 0 WHERE id = ? AND parked = 0 AND lent != 0
                AND target <= (SELECT slots FROM leases WHERE job = jobs.id)
            """,
            (job_id,),
        )

    def _move_to_next(self, job_id: str) -> None:
        row = self._db.execute(
            "SELECT base, slots FROM changes WHERE job = ?", (job_id,)
        ).fetchone()
        if row is not None:
            self._db.execute("DELETE FROM changes WHERE job = ?", (job_id,))
            self._db.execute(
                "UPDATE leases SET base = ?, slots = ? WHERE job = ?",
                (row["base"], row["slots"], job_id),
            )


def _new_key() -> bytes:
    return secrets.token_bytes(8)
