"""P4Runtime bytestrings and match fields, to integers and back.

Rules: P4Runtime specification, "Bytestrings" and "Match Format". A receiver accepts any number of
leading zero bytes; a sender uses the shortest string.
"""

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.dataplane import KeyField, MatchKind
from wiresum.softswitch.p4runtime.schema import MatchField
from wiresum.softswitch.p4runtime.status import invalid


def decode(data: bytes, width: int, what: str) -> int:
    """Return the integer that ``data`` encodes; raises where it is empty or wider than ``width``.

    ``what`` names the value in the error.
    """
    if not data:
        raise invalid(f"{what}: an empty bytestring is no value")
    value = int.from_bytes(data, "big")
    if value.bit_length() > width:
        raise invalid(f"{what}: 0x{value:x} does not fit within {width} bits")
    return value


def encode(value: int) -> bytes:
    """Return the canonical (shortest) bytestring of a non-negative integer."""
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def prefix_mask(length: int, width: int) -> int:
    """Return the ``width``-bit mask whose ``length`` highest bits are set."""
    return ((1 << length) - 1) << (width - length)


def _decode_lpm(field: MatchField, match: p4r.FieldMatch, what: str) -> KeyField:
    value = decode(match.lpm.value, field.width, what)
    length = match.lpm.prefix_len
    if length < 0 or length > field.width:
        raise invalid(f"{what}: prefix length {length} is not from 1 to {field.width}")
    if length == 0:
        raise invalid(f"{what}: omit the field instead of using a prefix length of 0")
    mask = prefix_mask(length, field.width)
    if value & ~mask:
        raise invalid(f"{what}: bits of 0x{value:x} are set behind the prefix of {length} bits")
    return KeyField(value, mask)


def _decode_ternary(field: MatchField, match: p4r.FieldMatch, what: str) -> KeyField:
    value = decode(match.ternary.value, field.width, what)
    mask = decode(match.ternary.mask, field.width, f"{what} (mask)")
    if mask == 0:
        raise invalid(f"{what}: omit the field instead of using a mask of 0")
    if value & ~mask:
        raise invalid(f"{what}: bits of 0x{value:x} are set outside the mask 0x{mask:x}")
    return KeyField(value, mask)


def _decode_range(field: MatchField, match: p4r.FieldMatch, what: str) -> KeyField:
    low = decode(match.range.low, field.width, f"{what} (low)")
    high = decode(match.range.high, field.width, f"{what} (high)")
    if low > high:
        raise invalid(f"{what}: low 0x{low:x} is above high 0x{high:x}")
    if low == 0 and high == field.all_ones:
        raise invalid(f"{what}: omit the field instead of using the whole range")
    return KeyField(low, high)


def decode_match(field: MatchField, match: p4r.FieldMatch) -> KeyField:
    """Return what a ``FieldMatch`` asks of ``field``; raises INVALID_ARGUMENT."""
    what = f"match field {field.name!r}"
    kind = match.WhichOneof("field_match_type")
    if kind != field.kind.value:
        raise invalid(f"{what} is matched {field.kind.value}, not {kind or 'by nothing'}")
    if field.kind is MatchKind.EXACT:
        return KeyField(decode(match.exact.value, field.width, what), field.all_ones)
    if field.kind is MatchKind.OPTIONAL:
        return KeyField(decode(match.optional.value, field.width, what), field.all_ones)
    if field.kind is MatchKind.LPM:
        return _decode_lpm(field, match, what)
    if field.kind is MatchKind.TERNARY:
        return _decode_ternary(field, match, what)
    return _decode_range(field, match, what)


def wildcard(field: MatchField) -> KeyField:
    """Return the key of a field that the controller left out; raises for an exact field."""
    if field.kind is MatchKind.EXACT:
        raise invalid(f"match field {field.name!r} is exact and must be given")
    return KeyField(0, field.all_ones if field.kind is MatchKind.RANGE else 0)


def encode_match(field: MatchField, key: KeyField) -> p4r.FieldMatch | None:
    """Return the canonical ``FieldMatch``, None for "don't care"."""
    match = p4r.FieldMatch(field_id=field.id)
    if field.kind is MatchKind.EXACT:
        match.exact.value = encode(key.value)
        return match
    if key == wildcard(field):
        return None
    if field.kind is MatchKind.OPTIONAL:
        match.optional.value = encode(key.value)
    elif field.kind is MatchKind.LPM:
        match.lpm.value = encode(key.value)
        match.lpm.prefix_len = key.mask.bit_count()
    elif field.kind is MatchKind.TERNARY:
        match.ternary.value = encode(key.value)
        match.ternary.mask = encode(key.mask)
    else:
        match.range.low = encode(key.value)
        match.range.high = encode(key.mask)
    return match
