"""TableEntry messages, to keys and actions and back; checked against P4Info on the way in.

Rules: P4Runtime specification, "Match Format", "Action Specification", "Default Entry".
"""

from collections import Counter
from collections.abc import Sequence

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.dataplane import ActionCall, CounterValue, EntryKey
from wiresum.softswitch.p4runtime.schema import Schema, Scope, Table
from wiresum.softswitch.p4runtime.status import denied, exhausted, invalid
from wiresum.softswitch.p4runtime.values import decode, decode_match, encode_match, wildcard


def decode_key(table: Table, entry: p4r.TableEntry) -> EntryKey:
    """Return the key that ``entry`` names; raises INVALID_ARGUMENT."""
    given = {}
    known = {field.id for field in table.fields}
    for match in entry.match:
        if match.field_id not in known:
            raise invalid(f"table {table.name!r} has no match field {match.field_id}")
        if match.field_id in given:
            raise invalid(f"match field {match.field_id} of table {table.name!r} is given twice")
        given[match.field_id] = match
    fields = tuple(
        decode_match(field, given[field.id]) if field.id in given else wildcard(field)
        for field in table.fields
    )
    if table.needs_priority and entry.priority <= 0:
        raise invalid(f"an entry of table {table.name!r} needs a priority above zero")
    if not table.needs_priority and entry.priority != 0:
        raise invalid(f"table {table.name!r} has no ternary field: the priority must be zero")
    return EntryKey(fields, entry.priority)


def decode_action(table: Table, entry: p4r.TableEntry) -> ActionCall:
    """Return the action call in ``entry``; raises INVALID_ARGUMENT or PERMISSION_DENIED."""
    kind = entry.action.WhichOneof("type")
    if kind != "action":
        raise invalid(f"table {table.name!r} takes a direct action, not {kind or 'an empty one'}")
    message = entry.action.action
    reference = table.actions.get(message.action_id)
    if reference is None:
        raise invalid(f"table {table.name!r} has no action with the id {message.action_id}")
    action, scope = reference
    if scope is Scope.TABLE_ONLY and entry.is_default_action:
        raise denied(f"action {action.name!r} cannot be the default of table {table.name!r}")
    if scope is Scope.DEFAULT_ONLY and not entry.is_default_action:
        raise denied(f"action {action.name!r} can only be the default of table {table.name!r}")
    given = {param.param_id: param.value for param in message.params}
    if len(message.params) != len(action.params) or len(given) != len(action.params):
        raise invalid(
            f"action {action.name!r} takes {len(action.params)} parameters, "
            f"not {len(message.params)}"
        )
    args = []
    for param in action.params:
        if param.id not in given:
            raise invalid(f"parameter {param.name!r} of action {action.name!r} is missing")
        what = f"parameter {param.name!r} of action {action.name!r}"
        args.append(decode(given[param.id], param.width, what))
    return ActionCall(action.name, tuple(args))


def decode_counter_data(data: p4r.CounterData) -> CounterValue:
    """Return a counter's value; raises INVALID_ARGUMENT for a negative one."""
    if data.packet_count < 0 or data.byte_count < 0:
        raise invalid("a counter cannot be negative")
    return CounterValue(data.packet_count, data.byte_count)


def check_entries(schema: Schema, entries: Sequence[p4r.TableEntry]) -> None:
    """Raise where entries that were read from another program have no place in this one."""
    counts: Counter[int] = Counter()
    for entry in entries:
        table = schema.table(entry.table_id)
        decode_action(table, entry)
        if entry.is_default_action:
            if table.const_default:
                raise denied(f"table {table.name!r} has a const default action now")
            continue
        decode_key(table, entry)
        if table.const:
            raise denied(f"table {table.name!r} has const entries now")
        counts[table.id] += 1
    for table_id, count in counts.items():
        table = schema.table(table_id)
        if count > table.size:
            raise exhausted(f"table {table.name!r} holds {table.size} entries, not {count}")


def encode_key(table: Table, key: EntryKey) -> p4r.TableEntry:
    """Return an entry that has nothing but its key, in the canonical form."""
    message = p4r.TableEntry(table_id=table.id, priority=key.priority)
    for field, value in zip(table.fields, key.fields, strict=True):
        match = encode_match(field, value)
        if match is not None:
            message.match.append(match)
    return message


def encode_counter(value: CounterValue) -> p4r.CounterData:
    """Return a counter's value: packets and bytes for every unit in P4Info, as in BMv2."""
    return p4r.CounterData(packet_count=value.packets, byte_count=value.bytes)
