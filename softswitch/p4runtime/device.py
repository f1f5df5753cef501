"""One device: its forwarding-pipeline config and how that is replaced while packets flow."""

import asyncio
from dataclasses import dataclass

from finsy.proto import p4r

from wiresum.common.errors import WiresumError
from wiresum.softswitch.p4runtime.dataplane import SwitchTarget
from wiresum.softswitch.p4runtime.pipeline import Pipeline
from wiresum.softswitch.p4runtime.program_check import check_program
from wiresum.softswitch.p4runtime.schema import Schema, build_schema
from wiresum.softswitch.p4runtime.status import (
    P4RuntimeError,
    invalid,
    not_found,
    precondition,
)
from wiresum.softswitch.p4runtime.table_codec import check_entries

_Set = p4r.SetForwardingPipelineConfigRequest
_Get = p4r.GetForwardingPipelineConfigRequest

NO_PIPELINE = "No forwarding pipeline config set for this device"
"""BMv2's words; finsy recognises them."""


@dataclass(frozen=True)
class _Prepared:
    config: p4r.ForwardingPipelineConfig
    schema: Schema
    program: object


class Device:
    """The device behind a P4Runtime server."""

    def __init__(self, device_id: int, target: SwitchTarget) -> None:
        self.device_id = device_id
        self.target = target
        self._pipeline: Pipeline | None = None
        self._saved: _Prepared | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The running program; raises FAILED_PRECONDITION where there is none."""
        if self._pipeline is None:
            raise precondition(NO_PIPELINE)
        return self._pipeline

    @property
    def schema(self) -> Schema | None:
        """The names in the running program's P4Info."""
        return None if self._pipeline is None else self._pipeline.schema

    @property
    def program(self) -> tuple[str, str] | None:
        """Name and version of the running program, as its P4Info says; None without one."""
        if self._pipeline is None:
            return None
        info = self._pipeline.config.p4info.pkg_info
        return info.name, info.version

    # -- Set -----------------------------------------------------------------------------------

    async def prepare(self, config: p4r.ForwardingPipelineConfig) -> _Prepared:
        """Check a config and make its program runnable, off the event loop.

        Raises INVALID_ARGUMENT with the reason; nothing has changed then.
        """
        if not config.p4_device_config:
            raise invalid("p4_device_config is empty: it must be the BMv2 JSON that p4c wrote")
        kept = p4r.ForwardingPipelineConfig()
        kept.CopyFrom(config)

        def work() -> _Prepared:
            schema = build_schema(kept.p4info)
            check_program(schema, kept.p4_device_config)
            try:
                program = self.target.prepare(kept.p4_device_config)
            except WiresumError as error:
                raise invalid(str(error)) from error
            return _Prepared(kept, schema, program)

        return await asyncio.to_thread(work)

    def commit(self, prepared: _Prepared) -> None:
        """Run a prepared program, with nothing written into it yet."""
        dataplane = self.target.commit(prepared.program)
        self._pipeline = Pipeline(prepared.config, prepared.schema, dataplane)
        self._saved = None

    def reconcile(self, prepared: _Prepared) -> None:
        """Run a prepared program with what was written into the one before it.

        Raises INVALID_ARGUMENT, with the old program still running, where something that was
        written has no place in the new program.
        """
        entities = [] if self._pipeline is None else self._pipeline.snapshot()
        kept = [entity for entity in entities if _matters(prepared.schema, entity)]
        try:
            check_entries(
                prepared.schema, [e.table_entry for e in kept if e.HasField("table_entry")]
            )
        except P4RuntimeError as error:
            raise invalid(f"the forwarding state cannot be kept: {error.message}") from error
        self.commit(prepared)
        self.pipeline.restore(kept)

    def save(self, prepared: _Prepared) -> None:
        """Keep a prepared program for :meth:`commit_saved`."""
        self._saved = prepared

    def commit_saved(self) -> None:
        """Run the saved program; raises NOT_FOUND where there is none."""
        if self._saved is None:
            raise not_found("no saved config to commit: VERIFY_AND_SAVE comes first")
        self.commit(self._saved)

    # -- Get -----------------------------------------------------------------------------------

    def config(self, what: "_Get.ResponseType.ValueType") -> p4r.ForwardingPipelineConfig:
        """Return the parts of the running config that ``what`` asks for, the cookie always."""
        stored = self.pipeline.config
        answer = p4r.ForwardingPipelineConfig()
        if what not in (
            _Get.ALL,
            _Get.COOKIE_ONLY,
            _Get.P4INFO_AND_COOKIE,
            _Get.DEVICE_CONFIG_AND_COOKIE,
        ):
            raise invalid(f"unknown response_type {what}")
        if what in (_Get.ALL, _Get.P4INFO_AND_COOKIE):
            answer.p4info.CopyFrom(stored.p4info)
        if what in (_Get.ALL, _Get.DEVICE_CONFIG_AND_COOKIE):
            answer.p4_device_config = stored.p4_device_config
        if stored.HasField("cookie"):
            answer.cookie.CopyFrom(stored.cookie)
        return answer


def _matters(schema: Schema, entity: p4r.Entity) -> bool:
    """Whether the new program has something for an entity of the one before it.

    Direct counters that are gone are taken out of their entries.
    """
    if entity.HasField("counter_entry"):
        counter = schema.counters.get(entity.counter_entry.counter_id)
        return counter is not None and entity.counter_entry.index.index < counter.size
    if entity.HasField("table_entry"):
        table = schema.tables.get(entity.table_entry.table_id)
        if table is not None and table.counter is None:
            entity.table_entry.ClearField("counter_data")
    return True
