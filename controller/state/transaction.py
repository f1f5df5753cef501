"""What may be written to the store; :meth:`Store.transaction` is the only way to get one."""

import json
import sqlite3
from collections.abc import Mapping

from wiresum.controller.state.epochs import blind_start
from wiresum.controller.state.model import (
    Change,
    Job,
    JobState,
    Member,
    SlotRange,
    Switch,
    Tenant,
)


class Transaction:
    """Writes that happen together or not at all."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # ---- switches

    def put_switch(self, switch: Switch, now: float) -> None:
        """Add a switch, or replace what is known of the one of that name."""
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
                switch.name,
                switch.p4runtime,
                switch.device_id,
                str(switch.ip),
                switch.udp_port,
                switch.mac,
                switch.lanes,
                switch.slots,
                int(switch.shared_address),
                now,
            ),
        )
        self._db.execute("DELETE FROM switch_hosts WHERE switch = ?", (switch.name,))
        self._db.executemany(
            "INSERT INTO switch_hosts (switch, network, port) VALUES (?, ?, ?)",
            [(switch.name, str(host.network), host.port) for host in switch.hosts],
        )

    def remove_switch(self, name: str) -> None:
        """Forget a switch; jobs that ended on it keep its name."""
        self._db.execute("DELETE FROM switches WHERE name = ?", (name,))

    def set_draining(self, name: str, draining: bool) -> None:
        """Whether a switch takes no new jobs."""
        self._db.execute("UPDATE switches SET draining = ? WHERE name = ?", (int(draining), name))

    # ---- tenants

    def set_admin_token(self, token: str) -> None:
        """Keep the hash of the admin's token."""
        self._db.execute("INSERT OR REPLACE INTO admin (id, token) VALUES (1, ?)", (token,))

    def add_tenant(self, tenant: Tenant, token: str) -> None:
        """Add a tenant, and the hash of its token."""
        self._db.execute(
            """
            INSERT INTO tenants (name, token, slot_quota, max_jobs, priority, served, created)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            (
                tenant.name,
                token,
                tenant.slot_quota,
                tenant.max_jobs,
                tenant.priority,
                tenant.served,
                tenant.created,
            ),
        )

    def set_tenant(self, tenant: Tenant) -> None:
        """Change a tenant's limits and priority."""
        self._db.execute(
            """
            UPDATE tenants SET slot_quota = ?, max_jobs = ?, priority = ?
            WHERE name = ? AND removed IS NULL
            """,
            (tenant.slot_quota, tenant.max_jobs, tenant.priority, tenant.name),
        )

    def set_tenant_token(self, name: str, token: str) -> None:
        """Keep the hash of a tenant's new token instead of the one before."""
        self._db.execute(
            "UPDATE tenants SET token = ? WHERE name = ? AND removed IS NULL", (token, name)
        )

    def remove_tenant(self, name: str, now: float) -> None:
        """Forget a tenant; jobs of it that ended keep its name."""
        self._db.execute(
            "UPDATE tenants SET token = NULL, removed = ? WHERE name = ? AND removed IS NULL",
            (now, name),
        )

    def set_served(self, name: str) -> None:
        """A tenant has got slots for a job: it was the last one."""
        self._db.execute(
            "UPDATE tenants SET served = (SELECT MAX(served) + 1 FROM tenants) "
            "WHERE name = ? AND removed IS NULL",
            (name,),
        )

    # ---- jobs

    def new_epoch(self, at_least: int) -> int:
        """An epoch that no job on any switch has had: at least ``at_least``, never 0.

        If ``at_least`` is 0, which says that the time is not known, a new store starts anywhere
        above all times. Raises OverflowError when all 2**32 are used up.
        """
        last = int(self._db.execute("SELECT last FROM epochs").fetchone()["last"])
        epoch = max(last + 1, at_least)
        if last == 0 and at_least == 0:
            epoch = blind_start()
        if epoch > 0xFFFFFFFF:
            raise OverflowError("all 2**32 epochs have been used")
        self._db.execute("UPDATE epochs SET last = ?", (epoch,))
        return epoch

    def add_job(self, job: Job) -> None:
        """A job comes into the queue; its ``sequence`` is chosen here."""
        self._db.execute(
            """
            INSERT INTO jobs (id, tenant, name, state, created, heartbeat, target, min_slots,
                              request, on_full, wanted_switch)
            VALUES (?, (SELECT id FROM tenants WHERE name = ? AND removed IS NULL), ?, 'queued',
                    ?, ?, ?, ?, ?, ?, ?)
            """,
            (
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
            ),
        )

    def grant(
        self,
        job_id: str,
        *,
        switch: str,
        number: int,
        slots: SlotRange,
        min_slots: int,
        now: float,
    ) -> None:
        """A job in the queue gets its slots, and waits for its ranks."""
        self._db.execute(
            """
            UPDATE jobs SET state = 'waiting', created = ?, heartbeat = ?, target = ?, min_slots = ?
            WHERE id = ? AND state = 'queued'
            """,
            (now, now, slots.slots, min_slots, job_id),
        )
        self._db.execute(
            "INSERT INTO leases (job, switch, number, base, slots) VALUES (?, ?, ?, ?, ?)",
            (job_id, switch, number, slots.base, slots.slots),
        )

    def add_job_token(self, job_id: str, token: str) -> None:
        """Keep the hash of one more token of a job."""
        self._db.execute("INSERT INTO job_tokens (token, job) VALUES (?, ?)", (token, job_id))

    def start_attempt(
        self,
        job_id: str,
        *,
        attempt: int,
        epoch: int,
        key: int,
        reply_key: int,
        workers: int,
        field: int,
    ) -> None:
        """Begin an attempt: nobody has joined it, and the members of the one before are gone.

        If the lease was about to change, the attempt begins under the new one.
        """
        self._db.execute("DELETE FROM members WHERE job = ?", (job_id,))
        self._move_to_next(job_id)
        self._db.execute(
            """
            UPDATE jobs SET state = 'waiting', attempt = ?, epoch = ?, key = ?,
                            reply_key = ?, workers = ?, field = ?, change = 0, last_change = 0
            WHERE id = ?
            """,
            (attempt, epoch, _blob(key), _blob(reply_key), workers, field, job_id),
        )

    def add_member(self, job_id: str, member: Member, change: int = 0) -> None:
        """A rank has joined the current attempt, or waits for the lease's ``change``."""
        self._db.execute(
            """
            INSERT INTO members (job, change, rank, ip, udp_port, mac, port)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            (
                job_id,
                change,
                member.rank,
                int(member.ip),
                member.udp_port,
                member.mac,
                member.port,
            ),
        )

    def remove_member(self, job_id: str, rank: int, change: int = 0) -> None:
        """A rank has given up waiting for the others."""
        self._db.execute(
            "DELETE FROM members WHERE job = ? AND change = ? AND rank = ?", (job_id, change, rank)
        )

    def remove_waiting_members(self) -> None:
        """Forget all ranks that were waiting for others when the controller stopped."""
        self._db.execute(
            """
            DELETE FROM members WHERE (job, change) NOT IN
                (SELECT id, change FROM jobs WHERE state = 'ready')
            """
        )

    def set_ready(self, job_id: str) -> None:
        """All ranks of the current attempt have joined."""
        self._db.execute("UPDATE jobs SET state = 'ready' WHERE id = ?", (job_id,))

    # ---- changes of leases

    def announce(
        self,
        job: Job,
        slots: SlotRange,
        epoch: int,
        key: int,
        reply_key: int,
        reason: str,
        now: float,
    ) -> Change:
        """A job shall change over to other slots of its switch; returns the change."""
        number = job.last_change + 1
        self._db.execute(
            """
            INSERT INTO changes
                (job, switch, number, base, slots, epoch, key, reply_key, reason, announced)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                job.id,
                job.lease.switch,
                number,
                slots.base,
                slots.slots,
                epoch,
                _blob(key),
                _blob(reply_key),
                reason,
                now,
            ),
        )
        self._db.execute("UPDATE jobs SET last_change = ? WHERE id = ?", (number, job.id))
        return Change(number, slots, epoch, key, reply_key, reason, now, None)

    def set_boundary(self, job_id: str, boundary: int) -> None:
        """All ranks have agreed on the last collective under the lease in use."""
        self._db.execute("UPDATE changes SET boundary = ? WHERE job = ?", (boundary, job_id))

    def set_announced(self, job_id: str, now: float) -> None:
        """Give the ranks of a changing job their whole time again."""
        self._db.execute("UPDATE changes SET announced = ? WHERE job = ?", (now, job_id))

    def cancel_change(self, job_id: str) -> None:
        """A job keeps the lease that it has."""
        self._db.execute("DELETE FROM changes WHERE job = ?", (job_id,))

    def finish_change(self, job_id: str, change: Change) -> None:
        """All ranks are under the new lease: the old one is gone, and its slots are free."""
        self._db.execute(
            "DELETE FROM members WHERE job = ? AND change != ?", (job_id, change.number)
        )
        self._move_to_next(job_id)
        self._db.execute(
            "UPDATE jobs SET change = ?, epoch = ?, key = ?, reply_key = ? WHERE id = ?",
            (change.number, change.epoch, _blob(change.key), _blob(change.reply_key), job_id),
        )

    def move_job(self, job_id: str, slots: SlotRange, epoch: int, key: int, reply_key: int) -> None:
        """Give a job that has no entries on its switch other slots, and with them another epoch.

        ``epoch`` 0: nobody has joined yet.
        """
        self._db.execute(
            "UPDATE leases SET base = ?, slots = ? WHERE job = ?",
            (slots.base, slots.slots, job_id),
        )
        self._db.execute(
            "UPDATE jobs SET epoch = ?, key = ?, reply_key = ? WHERE id = ?",
            (epoch, _blob(key), _blob(reply_key), job_id),
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

    # ---- the queue

    def remove_impatient_jobs(self) -> None:
        """Forget the queued jobs whose callers would not have waited: they are gone."""
        self._db.execute("DELETE FROM jobs WHERE state = 'queued' AND on_full != 'wait'")

    def set_created(self, job_id: str, now: float) -> None:
        """A job in the queue has waited from ``now`` on."""
        self._db.execute(
            "UPDATE jobs SET created = ?, heartbeat = ? WHERE id = ?", (now, now, job_id)
        )

    def remove_from_queue(self, job_id: str) -> None:
        """A job has left the queue, and holds nothing."""
        self._db.execute("DELETE FROM jobs WHERE id = ? AND state = 'queued'", (job_id,))

    # ---- life and death

    def set_counters_reset(self, job_id: str) -> None:
        """The switch's counters of the job's number have been set to zero."""
        self._db.execute("UPDATE leases SET counters_reset = 1 WHERE job = ?", (job_id,))

    def write_nothing_new(self) -> None:
        """Find out whether the store can be written."""
        self._db.execute("UPDATE tenants SET served = served")

    def end_job(
        self,
        job_id: str,
        state: JobState,
        reason: str,
        now: float,
        events: Mapping[str, int] | None,
    ) -> None:
        """Release, expire or evict a job: its slots and its number are free again."""
        assert not state.live
        self._db.execute("DELETE FROM members WHERE job = ?", (job_id,))
        self._db.execute("DELETE FROM changes WHERE job = ?", (job_id,))
        self._db.execute("UPDATE leases SET held = 0 WHERE job = ?", (job_id,))
        self._db.execute(
            "UPDATE jobs SET state = ?, reason = ?, ended = ?, events = ? WHERE id = ?",
            (state.value, reason, now, json.dumps(events) if events is not None else None, job_id),
        )

    def forget_jobs_ended_before(self, time: float) -> None:
        """Drop the history before ``time``, and the tenants that only it knew."""
        self._db.execute("DELETE FROM jobs WHERE ended < ?", (time,))
        self._db.execute(
            "DELETE FROM tenants WHERE removed IS NOT NULL AND id NOT IN (SELECT tenant FROM jobs)"
        )

    def forget_jobs_before(self, job_id: str, keep: int) -> None:
        """Drop the history of a job's tenant but for that job and the last ``keep`` others."""
        self._db.execute(
            """
            DELETE FROM jobs WHERE id IN (
                SELECT id FROM jobs
                WHERE tenant = (SELECT tenant FROM jobs WHERE id = ?1)
                  AND ended IS NOT NULL AND id != ?1
                ORDER BY ended DESC, rowid DESC LIMIT -1 OFFSET ?2
            )
            """,
            (job_id, keep),
        )


def _blob(key: int) -> bytes:
    # SQLite has no unsigned integers of 64 bits.
    return key.to_bytes(8, "big")
