"""A construct outside of the subset is refused by name, with its place in the P4 source."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wiresum.common.errors import WiresumError
from wiresum.softswitch.errors import ProgramInvalid, UnsupportedConstruct
from wiresum.softswitch.translate import translate

HERE = Path(__file__).resolve().parent
REFUSED = HERE / "refused"

# Program → the construct's name, and text of the source line that is named (None: p4c's JSON does
# not say where parser value sets are).
CONSTRUCTS = {
    "clone": ("clone", "clone("),
    "digest": ("digest", "digest<"),
    "hash": ("crc32_custom", "crc32_custom"),
    "meter": ("meters", "meter("),
    "recirculate": ("recirculate", "recirculate_"),
    "resubmit": ("resubmit", "resubmit_"),
    "selector": ("action profiles and selectors", "action_selector"),
    "timeout": ("entry timeouts", "table aging"),
    "union": ("header unions", "hdr.either"),
    "value_set": ("parser value sets", None),
    "varbit": ("varbit", "hdr.options"),
}


def test_every_program_is_listed() -> None:
    assert {p.stem for p in REFUSED.glob("*.p4")} == set(CONSTRUCTS)


@pytest.mark.parametrize("name", sorted(CONSTRUCTS))
def test_refused_by_name_and_line(name: str) -> None:
    construct, text = CONSTRUCTS[name]
    with pytest.raises(UnsupportedConstruct) as caught:
        translate((REFUSED / f"{name}.json").read_bytes())
    assert construct in str(caught.value)
    assert isinstance(caught.value, WiresumError)
    assert "\n" not in str(caught.value)
    if text is not None:
        place = re.match(rf"{name}\.p4:(\d+): ", str(caught.value))
        assert place is not None
        lines = (REFUSED / f"{name}.p4").read_text().splitlines()
        assert text in lines[int(place[1]) - 1]


def minimal() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / "programs" / "state.json").read_text())
    return loaded


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "not a JSON"),
        (b"\xff\xfe", "not a JSON"),
        (b"[]", "not a BMv2 JSON"),
        (b"{}", "not a BMv2 JSON"),
        (b'{"pipelines": 3, "header_types": [{}]}', "not a valid BMv2 JSON"),
    ],
)
def test_text_that_is_no_program_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(ProgramInvalid, match=complaint):
        translate(text)


def test_an_old_json_without_the_third_member_of_a_field_is_the_same_program() -> None:
    program = minimal()
    for header in program["header_types"]:
        assert not any(field[2] for field in header["fields"])
        header["fields"] = [field[:2] for field in header["fields"]]
    old = translate(json.dumps(program).encode()).cpp.splitlines()
    new = translate(json.dumps(minimal()).encode()).cpp.splitlines()
    differ = [a for a, b in zip(old, new, strict=True) if a != b]
    assert all("SHA-256" in line or "program_spec" in line for line in differ), differ


def test_an_old_json_is_refused_with_what_made_it() -> None:
    program = minimal()
    del program["pipelines"][0]["tables"][0]["default_entry"]
    with pytest.raises(UnsupportedConstruct, match=r"without a default action .*p4c-bm2-ss --std"):
        translate(json.dumps(program).encode())
    program = minimal()
    action = next(a for a in program["actions"] if a["primitives"])
    action["primitives"][0]["op"] = "add_to_field"
    with pytest.raises(UnsupportedConstruct, match=r"primitive add_to_field .*p4c-bm2-ss --std"):
        translate(json.dumps(program).encode())


def test_a_saturating_field_is_refused() -> None:
    program = minimal()
    program["header_types"][0]["fields"][0] += [True]
    with pytest.raises(UnsupportedConstruct, match="saturating fields"):
        translate(json.dumps(program).encode())


def test_unknown_primitive() -> None:
    program = minimal()
    action = next(a for a in program["actions"] if a["primitives"])
    action["primitives"][0]["op"] = "teleport"
    with pytest.raises(UnsupportedConstruct, match=r"state\.p4:\d+: .*the primitive teleport"):
        translate(json.dumps(program).encode())


def test_unknown_operation() -> None:
    program = minimal()
    text = json.dumps(program).replace('"op": "<<"', '"op": "<<<"')
    assert '"<<<"' in text
    with pytest.raises(UnsupportedConstruct, match="the operation <<<"):
        translate(text.encode())


def test_other_architectures() -> None:
    program = minimal()
    program["pipelines"][0]["name"] = "MyPipe"
    with pytest.raises(UnsupportedConstruct, match="v1model only"):
        translate(json.dumps(program).encode())


def test_field_wider_than_2048_bits() -> None:
    program = minimal()
    program["header_types"][2]["fields"][0][1] = 2056
    with pytest.raises(UnsupportedConstruct, match="2056 bits"):
        translate(json.dumps(program).encode())


@pytest.mark.parametrize("where", ["register", "header", "state", "node"])
def test_dangling_names_are_refused(where: str) -> None:
    program = minimal()
    if where == "register":
        program["register_arrays"][0]["name"] = "renamed"
    elif where == "header":
        program["headers"] = [h for h in program["headers"] if h["name"] != "order"]
    elif where == "state":
        program["parsers"][0]["parse_states"][0]["transitions"][-1]["next_state"] = "nowhere"
    else:
        program["pipelines"][0]["init_table"] = "nowhere"
    with pytest.raises(ProgramInvalid):
        translate(json.dumps(program).encode())
