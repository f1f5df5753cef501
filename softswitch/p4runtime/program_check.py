"""Does a P4Info belong to a program? Checked before the program replaces the running one."""

from wiresum.softswitch.p4runtime.dataplane import MatchKind
from wiresum.softswitch.p4runtime.schema import Counter, Schema, Table
from wiresum.softswitch.p4runtime.status import invalid
from wiresum.softswitch.translate.errors import ProgramInvalid
from wiresum.softswitch.translate.node import U31, Node, parse


def _check_table(table: Table, found: Node | None) -> None:
    if found is None:
        raise invalid(f"P4Info has the table {table.name!r}, the program has not")
    kinds = [key["match_type"].name() for key in found.each("key")]
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
    actions = {action.name() for action in found.each("actions")}
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


def _is_direct(counter: Node) -> bool:
    direct = counter.get("is_direct")
    return direct is not None and direct.flag()


def check_program(schema: Schema, device_config: bytes) -> None:
    """Raise INVALID_ARGUMENT where ``device_config`` is no BMv2 JSON of this P4Info's program."""
    try:
        program = Node(parse(device_config))
        tables = {
            table["name"].name(): table
            for pipeline in program.each("pipelines")
            for table in pipeline.each("tables")
        }
        sizes = {
            counter["name"].name(): counter["size"].whole(0, U31)
            for counter in program.each("counter_arrays")
            if not _is_direct(counter)
        }
        params = {
            action["name"].name(): [
                p["bitwidth"].whole(1, U31) for p in action.each("runtime_data")
            ]
            for action in program.each("actions")
        }
        for table in schema.tables.values():
            _check_table(table, tables.get(table.name))
    except ProgramInvalid as error:
        raise invalid(f"p4_device_config is not a BMv2 JSON as p4c writes it: {error}") from error
    for counter in schema.counters.values():
        _check_counter(counter, sizes)
    for action in schema.actions.values():
        widths = [param.width for param in action.params]
        if params.get(action.name, widths) != widths:
            raise invalid(
                f"P4Info and the program differ in the parameters of action {action.name!r}"
            )
