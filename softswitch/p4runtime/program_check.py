"""Does a P4Info belong to a program? Checked before the program replaces the running one."""

import json
from collections.abc import Iterator
from typing import Any

from wiresum.softswitch.p4runtime.dataplane import MatchKind
from wiresum.softswitch.p4runtime.schema import Counter, Schema, Table
from wiresum.softswitch.p4runtime.status import invalid


def _tables(program: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for pipeline in program.get("pipelines", []):
        yield from pipeline.get("tables", [])


def _check_table(table: Table, found: dict[str, Any] | None) -> None:
    if found is None:
        raise invalid(f"P4Info has the table {table.name!r}, the program has not")
    kinds = [key["match_type"] for key in found["key"]]
    # p4c writes an optional field as a ternary one.
    optional = MatchKind.OPTIONAL
    expected = [
        "ternary" if field.kind is optional and kind != optional.value else field.kind.value
        for field, kind in zip(table.fields, kinds, strict=False)
    ]
    expected += [field.kind.value for field in table.fields[len(kinds) :]]
    if kinds != expected:
        raise invalid(
            f"P4Info and the program differ in the key of table {table.name!r}: "
            f"{expected} and {kinds}"
        )
    actions = set(found["actions"])
    for action, _ in table.actions.values():
        if action.name not in actions:
            raise invalid(
                f"P4Info has the action {action.name!r} in table {table.name!r}, "
                "the program has not"
            )


def _check_counter(counter: Counter, sizes: dict[str, int]) -> None:
    if counter.name not in sizes:
        raise invalid(f"P4Info has the counter {counter.name!r}, the program has not")
    if sizes[counter.name] != counter.size:
        raise invalid(
            f"P4Info and the program differ in the size of counter {counter.name!r}: "
            f"{counter.size} and {sizes[counter.name]}"
        )


def check_program(schema: Schema, device_config: bytes) -> None:
    """Raise INVALID_ARGUMENT where ``device_config`` is no BMv2 JSON of this P4Info's program."""
    try:
        program = json.loads(device_config)
        tables = {table["name"]: table for table in _tables(program)}
        sizes = {
            counter["name"]: counter["size"]
            for counter in program.get("counter_arrays", [])
            if not counter["is_direct"]
        }
        params = {
            action["name"]: [param["bitwidth"] for param in action["runtime_data"]]
            for action in program.get("actions", [])
        }
        for table in schema.tables.values():
            _check_table(table, tables.get(table.name))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise invalid(f"p4_device_config is not a BMv2 JSON as p4c writes it: {error}") from error
    for counter in schema.counters.values():
        _check_counter(counter, sizes)
    for action in schema.actions.values():
        widths = [param.width for param in action.params]
        if params.get(action.name, widths) != widths:
            raise invalid(
                f"P4Info and the program differ in the parameters of action {action.name!r}"
            )
