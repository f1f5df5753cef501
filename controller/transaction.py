"""What may be written to the store; :meth:`Store.transaction` is the only way to get one."""

import json
import sqlite3
from collections.abc import Mapping

from wiresum.controller.model import JobState, Member, Switch
from wiresum.controller.slots import SlotRange


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

    # ---- jobs

    def new_epoch(self, at_least: int) -> int:
        """An epoch that no job on any switch has had: at least ``at_least``, never 0.

        Raises OverflowError when all 2**32 are used up.
        """
        row = self._db.execute("SELECT last FROM epochs").fetchone()
        epoch = max(int(row["last"]) + 1, at_least)
        if epoch > 0xFFFFFFFF:
            raise OverflowError("all 2**32 epochs have been used")
        self._db.execute("UPDATE epochs SET last = ?", (epoch,))
        return epoch

    def add_job(
        self,
        job_id: str,
        *,
        tenant: str,
        name: str,
        token: str,
        now: float,
        switch: str,
        number: int,
        slots: SlotRange,
    ) -> None:
        """Create a job together with its lease of a range of slots."""
        self._db.execute(
            """
            INSERT INTO jobs (id, tenant, name, token, state, created, heartbeat)
            VALUES (?, (SELECT id FROM tenants WHERE name = ?), ?, ?, 'waiting', ?, ?)
            """,
            (job_id, tenant, name, token, now, now),
        )
        self._db.execute(
            "INSERT INTO leases (job, switch, number, base, slots) VALUES (?, ?, ?, ?, ?)",
            (job_id, switch, number, slots.base, slots.slots),
        )

    def start_attempt(
        self, job_id: str, *, attempt: int, epoch: int, key: int, workers: int, field: int
    ) -> None:
        """Begin an attempt: nobody has joined it, and the members of the one before are gone."""
        self._db.execute("DELETE FROM members WHERE job = ?", (job_id,))
        self._db.execute(
            """
            UPDATE jobs SET state = 'waiting', attempt = ?, epoch = ?, key = ?, workers = ?,
                            field = ?
            WHERE id = ?
            """,
            (attempt, epoch, key.to_bytes(8, "big"), workers, field, job_id),
        )

    def add_member(self, job_id: str, member: Member) -> None:
        """A rank has joined the current attempt."""
        self._db.execute(
            "INSERT INTO members (job, rank, ip, udp_port, mac, port) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, member.rank, int(member.ip), member.udp_port, member.mac, member.port),
        )

    def remove_member(self, job_id: str, rank: int) -> None:
        """A rank has given up waiting for the others."""
        self._db.execute("DELETE FROM members WHERE job = ? AND rank = ?", (job_id, rank))

    def remove_members_of_incomplete_attempts(self) -> None:
        """Forget all ranks that were waiting for others when the controller stopped."""
        self._db.execute(
            "DELETE FROM members WHERE job IN (SELECT id FROM jobs WHERE state = 'waiting')"
        )

    def set_ready(self, job_id: str) -> None:
        """All ranks of the current attempt have joined."""
        self._db.execute("UPDATE jobs SET state = 'ready' WHERE id = ?", (job_id,))

    def set_counters_reset(self, job_id: str) -> None:
        """The switch's counters of the job's number have been set to zero."""
        self._db.execute("UPDATE leases SET counters_reset = 1 WHERE job = ?", (job_id,))

    def set_heartbeat(self, job_id: str, now: float) -> None:
        """The job has shown a sign of life."""
        self._db.execute("UPDATE jobs SET heartbeat = ? WHERE id = ?", (now, job_id))

    def set_all_heartbeats(self, now: float) -> None:
        """Give every live job the whole expiry time from ``now`` on."""
        self._db.execute("UPDATE jobs SET heartbeat = ? WHERE ended IS NULL", (now,))

    def end_job(
        self,
        job_id: str,
        state: JobState,
        reason: str,
        now: float,
        events: Mapping[str, int] | None,
    ) -> None:
        """Release or expire a job: its slots and its number are free again."""
        assert not state.live
        self._db.execute("DELETE FROM members WHERE job = ?", (job_id,))
        self._db.execute("UPDATE leases SET held = 0 WHERE job = ?", (job_id,))
        self._db.execute(
            "UPDATE jobs SET state = ?, reason = ?, ended = ?, events = ? WHERE id = ?",
            (state.value, reason, now, json.dumps(events) if events is not None else None, job_id),
        )

    def forget_jobs_ended_before(self, time: float) -> None:
        """Drop the history before ``time``."""
        self._db.execute("DELETE FROM jobs WHERE ended < ?", (time,))
