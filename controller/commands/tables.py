"""The controller's answers as tables for people, and as JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wiresum.controller.carriers import RANKS, carrier_of
from wiresum.controller.text import format_ranks
from wiresum.controller.v1 import controller_pb2 as pb

# Output that goes to no terminal must not be cut to a terminal's width.
_PIPE_WIDTH = 240

_STATE_COLORS = {
    "up": "green",
    "ready": "green",
    "connecting": "yellow",
    "waiting": "yellow",
    "down": "red",
    "expired": "red",
    "evicted": "red",
    "queued": "cyan",
}


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def print_json(messages: Iterable[Message] | Message, *, secrets: bool = False) -> None:
    """Print a message, or a list of them, as JSON; a token only with ``secrets``."""
    if isinstance(messages, Message):
        values = plain(messages)
        if secrets and isinstance(messages, pb.Tenant):
            values["token"] = messages.token
        print(json.dumps(values, indent=2))
    else:
        print(json.dumps([plain(message) for message in messages], indent=2))


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON values: numbers stay numbers, states are plain words."""
    values = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if "state" in values:
        values["state"] = state_name(values["state"])
    # Protobuf's own JSON writes 64-bit numbers as strings.
    if "device_id" in values:
        values["device_id"] = int(values["device_id"])
    for name in ("drops", "events"):
        if name in values:
            values[name] = {key: int(count) for key, count in sorted(values[name].items())}
    for secret in ("token", "attached"):
        values.pop(secret, None)
    return values


def state_name(enum_name: str) -> str:
    """``JOB_STATE_READY`` → ``ready``."""
    return enum_name.partition("_STATE_")[2].lower()


def switch_table(switches: Iterable[pb.Switch]) -> Table:
    """One row for each switch."""
    table = _table("switch", "state", "P4Runtime", "address", "lanes", "hosts", "jobs")
    table.add_column("free slots", justify="right")
    table.add_column("dropped", justify="right")
    table.add_column("reason", overflow="fold")
    for switch in switches:
        hosts = " ".join(f"{host.cidr}={host.port}" for host in switch.hosts)
        table.add_row(
            switch.name,
            _state(state_name(pb.SwitchState.Name(switch.state)))
            + (" [yellow]draining[/yellow]" if switch.draining else ""),
            escape(f"{switch.p4runtime} #{switch.device_id}"),
            f"{switch.ip}:{switch.udp_port}",
            str(switch.lanes),
            hosts,
            str(switch.jobs),
            f"{switch.free_slots}/{switch.slots}",
            "?" if switch.counters_error else str(sum(switch.drops.values())),
            escape(switch.reason),
        )
    return table


def tenant_table(tenants: Iterable[pb.Tenant]) -> Table:
    """One row for each tenant."""
    table = _table("tenant")
    for column in ("priority", "slots", "quota", "jobs", "limit", "queued"):
        table.add_column(column, justify="right")
    for tenant in tenants:
        table.add_row(
            tenant.name,
            str(tenant.priority),
            str(tenant.slots),
            str(tenant.slot_quota or "-"),
            str(tenant.jobs),
            str(tenant.max_jobs or "-"),
            str(tenant.queued),
        )
    return table


def parts_below(jobs: Iterable[pb.Job]) -> list[pb.Job]:
    """The jobs in their order, each followed by its parts in the order in which they were made."""
    listed = list(jobs)
    known = {job.id for job in listed}
    parts: dict[str, list[pb.Job]] = {}
    for job in listed:
        if job.parent in known:
            parts.setdefault(job.parent, []).append(job)
    return [
        each
        for job in listed
        if job.parent not in known
        for each in (job, *sorted(parts.get(job.id, ()), key=lambda part: part.created))
    ]


def name_below(name: str, parent: str) -> str:
    """The name of a job as a row shows it: of a part, so that one sees that it is one."""
    return f"└ {name}" if parent else name


def job_table(jobs: Iterable[pb.Job]) -> Table:
    """One row for each job, with its parts below it."""
    table = _table(
        "job", "name", "tenant", "state", "switch", "slots", "epoch", "workers", "missing"
    )
    table.add_column("chunks summed", justify="right")
    table.add_column("reason", overflow="fold")
    for job in parts_below(jobs):
        table.add_row(
            job.id,
            name_below(job.name, job.parent),
            job.tenant,
            _job_state(job),
            job.switch,
            _slots(job),
            str(job.epoch or "-"),
            f"{len(job.joined)}/{job.workers}" if job.slots else str(job.workers or "-"),
            format_ranks(job.missing),
            "?" if job.counters_error else str(job.events.get("completed", 0)),
            escape(_reason(job)),
        )
    return table


def _reason(job: pb.Job) -> str:
    if job.state == pb.JOB_STATE_QUEUED and job.started:
        return f"{job.reason}; its ranks sum meanwhile"
    return job.reason or _by_the_ranks(job)


def _by_the_ranks(job: pb.Job) -> str:
    found = carrier_of(job)
    return f"summed by the {found}" if found.name == RANKS else ""


def job_details(job: pb.Job) -> Table:
    """All about one job, one fact a row."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    facts = {
        "job": job.id,
        "name": job.name,
        "part of": job.parent,
        "tenant": job.tenant,
        "state": _job_state(job),
        "reason": escape(job.reason),
        "switch": f"{job.switch} ({job.switch_ip}:{job.switch_udp_port}), job number {job.number}",
        "carrier": escape(str(carrier_of(job))),
        "slots": _slots(job) + _slots_story(job),
        "lanes": str(job.lanes),
        "attempt": str(job.attempt) if job.HasField("attempt") else "",
        "epoch": str(job.epoch or ""),
        "workers": str(job.workers or ""),
        "field": f"{job.field} bits" if job.field else "",
        "joined": format_ranks(job.joined),
        "missing": format_ranks(job.missing),
        "last heartbeat": f"{job.heartbeat_age_s:.1f} s ago" if job.slots else "",
        "events": _counts(job.events) or escape(job.counters_error),
    }
    for name, fact in facts.items():
        if fact:
            table.add_row(name, fact)
    return table


def slots_table(switches: Iterable[pb.SwitchSlots]) -> Table:
    """One row for each range of slots, held or free."""
    table = _table("switch", "slots", "size", "held by", "job", "number")
    for switch in switches:
        for held in switch.ranges:
            table.add_row(
                switch.switch,
                f"{held.base}-{held.base + held.slots - 1}",
                str(held.slots),
                _holder(held),
                held.job_id,
                str(held.number or ""),
            )
        table.add_section()
    return table


def _holder(slots: pb.SlotRange) -> str:
    if not slots.held:
        return "[dim]free[/dim]"
    if not slots.job_id:
        return "[dim]another tenant[/dim]"
    coming = " (coming)" if slots.next else ""
    return f"{slots.tenant}/{slots.job_name}{coming}"


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _state(name: str) -> str:
    color = _STATE_COLORS.get(name)
    return f"[{color}]{name}[/{color}]" if color else name


def _job_state(job: pb.Job) -> str:
    parked = " [yellow]parked[/yellow]" if job.parked and job.slots else ""
    return _state(state_name(pb.JobState.Name(job.state))) + parked


def _slots_story(job: pb.Job) -> str:
    """Where they come from and where they are going."""
    told = []
    if 0 < job.slots < job.slots_target:
        told.append(f"shrunk from {job.slots_target}")
    if job.change_wanted:
        told.append(f"about to be {job.slots_next}")
    return f" ({', '.join(told)})" if told else ""


def _slots(job: pb.Job) -> str:
    if not job.slots:
        return "-"
    return f"{job.slot_base}-{job.slot_base + job.slots - 1}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
