"""The C++ that the translator writes: readable, and rolled up where the program repeats itself."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from wiresum import p4
from wiresum.softswitch.translate import translate
from wiresum.softswitch.translate.translator import json_digest

PROGRAMS = Path(__file__).resolve().parent / "programs"


def test_committed_programs_were_made_from_the_present_sources() -> None:
    manifest = json.loads((PROGRAMS / "manifest.json").read_text())
    folders = (PROGRAMS, PROGRAMS.parent / "refused")
    sources = {p.stem: p for folder in folders for p in folder.glob("*.p4")}
    assert set(manifest) == set(sources)
    for name, source in sources.items():
        made_from = hashlib.sha256(source.read_bytes()).hexdigest()
        assert manifest[name] == made_from, f"{source.name} changed: run programs/compile.py"


@pytest.mark.parametrize("lanes", p4.LANE_COUNTS)
def test_lane_loops_are_rolled_up(lanes: int) -> None:
    cpp = translate(p4.program(lanes).json.read_bytes()).cpp
    # Blanking, claiming, adding, taking the larger, reading.
    assert len(re.findall(rf"void loop_\d+\(.*\) {{\n  for \(.*i < {lanes}; \+\+i\)", cpp)) == 5
    # No lane is left outside of a loop.
    code = re.sub(r"//[^\n]*", "", cpp)
    assert not re.search(r"\.run\d+\[\d+\]", code)
    assert len(cpp.splitlines()) < 2500


def test_comments_lead_back_to_the_source() -> None:
    cpp = translate((PROGRAMS / "state.json").read_bytes()).cpp
    line = next(
        n
        for n, text in enumerate((PROGRAMS / "state.p4").read_text().splitlines(), 1)
        if "v = v + hdr.order.y;" in text
    )
    assert f"// state.p4:{line}  v = v + hdr.order.y" in cpp


def test_translation_is_deterministic() -> None:
    text = (PROGRAMS / "tables.json").read_bytes()
    assert translate(text) == translate(text)


def test_digest_ignores_white_space_and_order() -> None:
    assert json_digest(b'{"a": 1, "b": [2]}') == json_digest(b'{"b":[2],"a":1}')
    assert json_digest(b'{"a": 1}') != json_digest(b'{"a": 2}')
