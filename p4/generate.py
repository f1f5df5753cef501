"""Makes the packet format's Python and C++ constants from the P4 headers, their one source.

Run as ``python p4/generate.py`` (writes) or ``--check`` (exits 1 where a file differs).
It reads the plain declarations that ``headers.p4`` keeps to: ``const``, ``enum bit<W>``,
``header``; nothing else of P4.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = ("lane_list.p4", "headers.p4", "counters.p4")
PYTHON = HERE / "packet.py"
CPP = HERE.parent / "host_agent" / "engine" / "packet.hpp"

CONSTANTS = (
    "UDP_PORT",
    "VERSION",
    "SLOTS",
    "JOBS",
    "EVENTS",
    "DROP_REASONS",
    "FLOOD_GROUP",
    "JOB_GROUPS",
    "ETHERNET_BYTES",
    "IPV4_BYTES",
    "UDP_BYTES",
    "HEADER_BYTES",
    "CONTRIBUTORS_BYTES",
    "READER_BITS",
)
ENUMS = ("Kind", "Op", "Readers", "DropReason", "Event")
STRUCT_CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


@dataclass
class Format:
    """The facts that the P4 headers state."""

    constants: dict[str, int] = field(default_factory=dict)
    enums: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    fields: list[tuple[str, int]] = field(default_factory=list)  # of wiresum_t: name, bits


def parse(text: str) -> Format:
    """Read the declarations in ``text``; raises ``ValueError`` where one is missing."""
    result = Format()
    for name, value in re.findall(r"^const bit<\d+> (\w+) = (0x[0-9a-fA-F]+|\d+);", text, re.M):
        result.constants[name] = int(value, 0)
    for name, body in re.findall(r"^enum bit<\d+> (\w+) \{(.*?)^\}", text, re.M | re.S):
        result.enums[name] = [
            (member, int(value, 0), comment.strip())
            for member, value, comment in re.findall(
                r"(\w+) = (0x[0-9a-fA-F]+|\d+),?[ \t]*(?://(.*))?", body
            )
        ]
    header = re.search(r"^header wiresum_t \{(.*?)^\}", text, re.M | re.S)
    if header is None:
        raise ValueError("headers.p4 declares no wiresum_t")
    result.fields = [
        (name, int(bits)) for bits, name in re.findall(r"bit<(\d+)> (\w+);", header.group(1))
    ]
    missing = [n for n in CONSTANTS if n not in result.constants]
    missing += [n for n in ENUMS if n not in result.enums]
    if missing:
        raise ValueError(f"the P4 headers declare no {', '.join(missing)}")
    size = sum(bits for _, bits in result.fields) // 8
    if size != result.constants["HEADER_BYTES"]:
        raise ValueError(f"wiresum_t has {size} bytes, HEADER_BYTES says otherwise")
    return result


def python(fmt: Format) -> str:
    """The text of ``packet.py``."""
    lines = [
        '"""The packet format, made by generate.py from the P4 headers: do not edit."""',
        "",
        "from enum import IntEnum",
        "",
    ]
    lines += [f"{name} = {fmt.constants[name]}" for name in CONSTANTS]
    codes = "".join(STRUCT_CODES[bits] for _, bits in fmt.fields)
    lines += [
        "",
        "# The wiresum header for the struct module, and its fields in order.",
        f'HEADER_FORMAT = "!{codes}"',
        "HEADER_FIELDS = (",
        *(f'    "{name}",' for name, _ in fmt.fields),
        ")",
    ]
    for name in ENUMS:
        lines += ["", "", f"class {name}(IntEnum):", f'    """``{name}`` of the P4 headers."""', ""]
        for member, value, comment in fmt.enums[name]:
            lines.append(f"    {member} = {value}" + (f"  # {comment}" if comment else ""))
    return "\n".join(lines) + "\n"


def camel(name: str) -> str:
    """``UDP_PORT`` → ``UdpPort``."""
    return "".join(part.capitalize() for part in name.split("_"))


def cpp(fmt: Format) -> str:
    """The text of ``packet.hpp``."""
    lines = [
        "// The packet format, made by p4/generate.py from the P4 headers: do not edit.",
        "#pragma once",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "",
        "namespace wiresum::packet {",
        "",
    ]
    lines += [
        f"inline constexpr std::uint32_t k{camel(name)} = {fmt.constants[name]};"
        for name in CONSTANTS
    ]
    for name, underlying in [(each, "std::uint8_t") for each in ("Kind", "Op", "Readers")]:
        members = ", ".join(f"k{camel(m)} = {v}" for m, v, _ in fmt.enums[name])
        lines += ["", f"enum class {name} : {underlying} {{ {members} }};"]
    lines += ["", "// Offsets in bytes from the start of the wiresum header."]
    lines.append("namespace offset {")
    at = 0
    for name, bits in fmt.fields:
        lines.append(f"inline constexpr std::size_t k{camel(name)} = {at};")
        at += bits // 8
    lines += ["}  // namespace offset", "", "}  // namespace wiresum::packet"]
    return "\n".join(lines) + "\n"


def outputs() -> dict[Path, str]:
    """Each generated file and the text it must have."""
    fmt = parse("\n".join((HERE / name).read_text() for name in SOURCES))
    return {PYTHON: python(fmt), CPP: cpp(fmt)}


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` say which differ."""
    status = 0
    for path, text in outputs().items():
        if "--check" in arguments:
            if not path.exists() or path.read_text() != text:
                print(f"{path} is not what the P4 headers say: run python p4/generate.py")
                status = 1
        else:
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
