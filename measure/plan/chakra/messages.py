"""The messages of Chakra's ``et_def.proto``, as far as a plan needs them, compatible on the wire.

A file (``NAME.RANK.et``) is a ``GlobalMetadata`` and then one ``Node`` after the other, each behind
its length as a varint. Fields that are not declared here are kept as they are by protobuf.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

_PACKAGE = "wiresum.chakra"
_TYPE = descriptor_pb2.FieldDescriptorProto
_FIELDS: dict[str, list[tuple[str, int, Any, bool]]] = {
    # message: (field, number, type or message, repeated)
    "Attribute": [
        ("name", 1, _TYPE.TYPE_STRING, False),
        ("double_val", 3, _TYPE.TYPE_DOUBLE, False),
        ("float_val", 5, _TYPE.TYPE_FLOAT, False),
        ("int32_val", 7, _TYPE.TYPE_INT32, False),
        ("int64_val", 9, _TYPE.TYPE_INT64, False),
        ("uint32_val", 11, _TYPE.TYPE_UINT32, False),
        ("uint64_val", 13, _TYPE.TYPE_UINT64, False),
        ("bool_val", 27, _TYPE.TYPE_BOOL, False),
        ("string_val", 29, _TYPE.TYPE_STRING, False),
    ],
    "Metadata": [
        ("version", 1, _TYPE.TYPE_STRING, False),
        ("attr", 2, "Attribute", True),
    ],
    "Node": [
        ("id", 1, _TYPE.TYPE_UINT64, False),
        ("name", 2, _TYPE.TYPE_STRING, False),
        ("type", 3, _TYPE.TYPE_INT32, False),  # an enum is an int32 on the wire
        ("ctrl_deps", 4, _TYPE.TYPE_UINT64, True),
        ("data_deps", 5, _TYPE.TYPE_UINT64, True),
        ("start_time_micros", 6, _TYPE.TYPE_UINT64, False),
        ("duration_micros", 7, _TYPE.TYPE_UINT64, False),
        ("attr", 10, "Attribute", True),
    ],
}

COMPUTE, COLLECTIVE = 4, 7
"""Types of nodes: COMP_NODE, COMM_COLL_NODE."""

KINDS = (
    "all_reduce", "reduce", "all_gather", "gather", "scatter", "broadcast", "all_to_all",
    "reduce_scatter", "reduce_scatter_block", "barrier",
)  # fmt: skip
"""Collectives by their number in ``comm_type``."""

VERSION = "0.0.4"
MOST_MESSAGE = 16 << 20
"""Bytes of one message; protobuf takes several times as much memory for it."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="wiresum/chakra.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        # A set value of zero differs from none only within a oneof.
        chosen = any(each.endswith("_val") for each, *_ in fields)
        if chosen:
            message.oneof_decl.add(name="value")
        for field, number, kind, many in fields:
            made = message.field.add(
                name=field, number=number, label=3 if many else 1,
                type=_TYPE.TYPE_MESSAGE if isinstance(kind, str) else kind,
            )  # fmt: skip
            if isinstance(kind, str):
                made.type_name = f".{_PACKAGE}.{kind}"
            if chosen and field.endswith("_val"):
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_MADE = _classes()
Metadata: Any = _MADE["Metadata"]
Node: Any = _MADE["Node"]


def attribute(node: Any, name: str) -> Any:
    """The value of an attribute of a node; None if it has none of this name."""
    for each in node.attr:
        if each.name == name:
            kind = each.WhichOneof("value")
            return None if kind is None else getattr(each, kind)
    return None


def parse(content: bytes) -> Iterator[Any]:
    """The nodes of a file's content. Raises ``ValueError`` if it is no such file."""
    position, first = 0, True
    while position < len(content):
        size, position = _varint(content, position)
        end = position + size
        if size > MOST_MESSAGE:
            raise ValueError(f"a message in it is larger than {MOST_MESSAGE >> 20} MiB")
        if end > len(content):
            raise ValueError("it ends within a message")
        message = Metadata() if first else Node()
        try:
            message.ParseFromString(content[position:end])
        except DecodeError:
            raise ValueError("a message in it is no node") from None
        position = end
        if not first:
            yield message
        first = False
    if first:
        raise ValueError("it is empty")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(content) or shift > 63:
            raise ValueError("it ends within a length")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def pack(message: Message) -> bytes:
    """A message behind its length."""
    content = message.SerializeToString()
    size, head = len(content), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content
