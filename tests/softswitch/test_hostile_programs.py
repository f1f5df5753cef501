"""A program is data: none of its strings and numbers becomes code.

Accepted programs compile; a refusal is one line that names the place. ``WIRESUM_FUZZ`` multiplies
the number of programs.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import MARK, NUMBERS, STRINGS, exchanged, get, hostile, sites, words

from wiresum import p4
from wiresum.softswitch import Switch
from wiresum.softswitch.compiler import RUNTIME, find_compiler
from wiresum.softswitch.errors import ProgramInvalid, TranslateError, UnsupportedConstruct
from wiresum.softswitch.translate import translate

HERE = Path(__file__).resolve().parent
TIMES = int(os.environ.get("WIRESUM_FUZZ", "1"))
PROGRAMS = {
    "acl": HERE.parent / "conformance" / "programs" / "acl.json",
    "entities": HERE / "p4runtime" / "data" / "entities.json",
    "parsing": HERE / "programs" / "parsing.json",
    "state": HERE / "programs" / "state.json",
    "tables": HERE / "programs" / "tables.json",
}
Json = dict[str, Any]


def program(name: str) -> Json:
    loaded: Json = json.loads(PROGRAMS[name].read_text())
    return loaded


@pytest.fixture(scope="module")
def vocabulary() -> set[str]:
    """The words of C++ that programs of ordinary names become."""
    files = [*PROGRAMS.values(), HERE / "programs" / "values.json", p4.program(64).json]
    return set().union(*(words(translate(file.read_bytes()).cpp) for file in files))


def refused(text: bytes) -> str:
    """Why a program is refused, in one line of a bearable length; empty if it is not."""
    try:
        translate(text)
    except TranslateError as error:
        line = str(error)
        assert line.isprintable(), ascii(line)
        assert len(line) < 3000
        return line
    return ""


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_no_value_of_a_program_becomes_code(name: str, vocabulary: set[str]) -> None:
    whole = program(name)
    tried = list(hostile(whole, seed=2027, per_kind=TIMES))
    chance = random.Random(2027)
    answers = {"accepted": 0, "refused": 0}
    for site, value in chance.sample(tried, min(len(tried), 80 * TIMES)):
        text = exchanged(whole, site, value)
        if refused(text):
            answers["refused"] += 1
            continue
        answers["accepted"] += 1
        assert words(translate(text).cpp) <= vocabulary, (site, value)
    assert min(answers.values()) > 0, answers


def syntax(cpp: str) -> str:
    """The compiler's messages for C++ text, with a program's settings; empty if it compiles."""
    command = [*find_compiler(), '-DWIRESUM_ABI="x"', f"-I{RUNTIME}", "-fsyntax-only"]
    run = subprocess.run(
        [*command, "-x", "c++", "-"],
        input=cpp,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return run.stderr[:2000] if run.returncode else ""


@pytest.mark.parametrize("name", ["entities", "parsing", "tables"])
def test_accepted_programs_compile(name: str) -> None:
    # Programs that differ in nothing but comments and literals are compiled by another test.
    whole = program(name)
    chance = random.Random(7)
    seen = {_shape(translate(PROGRAMS[name].read_bytes()).cpp)}
    left = 2 * TIMES
    found = [s for s in sites(whole) if type(get(whole, s)) in (int, bool, type(None))]
    texts = [s for s in sites(whole) if isinstance(get(whole, s), str)]
    own = sorted({get(whole, s) for s in texts})
    for _ in range(400 * TIMES):
        site = chance.choice(found if chance.random() < 0.5 else texts)
        text = exchanged(whole, site, chance.choice(NUMBERS if site in found else own))
        if refused(text):
            continue
        cpp = translate(text).cpp
        shape = _shape(cpp)
        if shape in seen:
            continue
        seen.add(shape)
        assert syntax(cpp) == "", site
        left -= 1
        if left == 0:
            return


def _shape(cpp: str) -> str:
    """C++ without comments and string literals."""
    lines = (line.split("//")[0] for line in cpp.splitlines() if '"' not in line)
    return "\n".join(lines)


# Legal names, and the characters that a text for people may have.
NAMES = [s for s in STRINGS if s.isprintable() and s and len(s) < 100 and s != "default"]
FREE = [s for s in STRINGS if len(s) < 1000]


def renamed(whole: Json) -> tuple[Json, dict[str, str]]:
    """A program in which every name is hostile, the same in all places."""
    kept = {"standard_metadata", "scalars", "ingress", "egress", "start", "$valid$", ""}
    declared: list[str] = []
    for key in ("header_types", "headers", "header_stacks", "register_arrays", "counter_arrays",
                "calculations", "actions"):  # fmt: skip
        declared += [each["name"] for each in whole.get(key, [])]
    declared += [s["name"] for s in whole["parsers"][0]["parse_states"]]
    for pipeline in whole["pipelines"]:
        declared += [n["name"] for k in ("tables", "conditionals") for n in pipeline[k]]
    fields = [f[0] for t in whole["header_types"] if t["name"] not in kept for f in t["fields"]]
    declared += [f for f in fields if not f.startswith("_")]
    standard = {f[0] for t in whole["header_types"] if t["name"] in kept for f in t["fields"]}
    names = {
        name: f"{NAMES[n % len(NAMES)]}{n}"
        for n, name in enumerate(dict.fromkeys(declared))
        if name not in kept | standard and not name.startswith("tbl_")
    }

    def change(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            if key == "source_info":
                return {"filename": FREE[len(value) % len(FREE)], "line": 1,
                        "source_fragment": "\n".join(FREE)}  # fmt: skip
            # The keys of next_tables are names of actions.
            mine = names if key == "next_tables" else {}
            return {mine.get(k, k): change(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [change(v, key) for v in value]
        if isinstance(value, str) and key not in ("op", "type", "algo", "match_type"):
            return names.get(value, value)
        return value

    return change(whole), names


@pytest.mark.parametrize("name", ["state", "tables"])
def test_a_program_with_hostile_names_behaves_as_before(
    name: str,
    vocabulary: set[str],
    program_cache: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole, names = renamed(program(name))
    said = "one\ntwo\0three ??/ \\"
    for action in whole["actions"]:
        for primitive in action["primitives"]:
            if primitive["op"] == "log_msg":
                primitive["parameters"][0]["value"] = said
    text = json.dumps(whole).encode()
    assert MARK.encode() in text
    assert words(translate(text).cpp) <= vocabulary
    monkeypatch.setenv("XDG_CACHE_HOME", program_cache)
    monkeypatch.setenv("CXXFLAGS", "-O0")
    switch, plain = Switch(text), Switch(PROGRAMS[name])
    assert sorted(switch.tables()) == sorted(names.get(t, t) for t in plain.tables())
    chance = random.Random(5)
    capfd.readouterr()
    for what in range(33):
        for _ in range(5):
            frame = bytes([what]) + chance.randbytes(16) + bytes([2]) + chance.randbytes(9)
            if what not in (23, 31):
                assert switch.inject(1, frame) == plain.inject(1, frame)
    if name == "state":
        assert capfd.readouterr().err.count(said + "\n") == 5


# --- refusals and their places ---


def change(whole: Json, path: str, value: Any) -> bytes:
    """A program with another value at ``a.0.b``."""
    *steps, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    node: Any = whole
    for step in steps:
        node = node[step]
    node[last] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("name", "path", "value", "complaint"),
    [
        ("tables", "program", "x\n#include <cstdlib>", "program: .*cannot be printed"),
        ("tables", "pipelines.0.tables.1.name", "a\0b", r"tables\[1\]\.name: .*cannot be printed"),
        ("tables", "pipelines.0.tables.1.name", "", "an empty name"),
        ("tables", "pipelines.0.tables.1.name", "x" * 1025, "1025 characters"),
        ("tables", "pipelines.0.tables.1.id", 1.0, r"tables\[1\]\.id: a number with a fraction"),
        ("tables", "pipelines.0.tables.1.id", True, "true or false instead of a number"),
        ("tables", "pipelines.0.tables.1.max_size", "1024", "a string instead of a number"),
        ("tables", "pipelines.0.tables.1.max_size", -1, "-1 is not from 0"),
        ("tables", "pipelines.0.tables.1.max_size", 10**400, "a number of 1329 bits"),
        ("tables", "pipelines.0.tables.1.action_ids.0", 4000, "no action with this id"),
        ("tables", "pipelines.0.tables.1.default_entry.action_id", 1, "none of the table's"),
        ("tables", "pipelines.0.init_table", "nowhere", "no table or condition nowhere"),
        ("tables", "headers.2.metadata", 1, r"headers\[2\]\.metadata: a number instead of true"),
        ("tables", "headers.2.id", 1, "two headers have the id 1"),
        ("tables", "deparsers.0.order.0", "scalars", r"order\[0\]: the deparser emits scalars"),
        ("state", "register_arrays.0.size", 1 << 31, r"register_arrays\[0\]\.size: 2147483648"),
        ("state", "register_arrays.0.bitwidth", 0, "0 is not from 1"),
        ("state", "errors.1.1", 1.5, r"errors\[1\]\[1\]: a number with a fraction"),
        ("state", "header_stacks.0.header_ids.1", 7000, "no header with this id"),
        ("state", "calculations.0.input.0.value", ["order"], "1 elements instead of 2"),
    ],
)  # fmt: skip
def test_a_refusal_gives_the_place_of_the_fault(
    name: str, path: str, value: Any, complaint: str
) -> None:
    with pytest.raises(ProgramInvalid, match=complaint) as caught:
        translate(change(program(name), path, value))
    assert refused(change(program(name), path, value)) == str(caught.value)


def test_more_state_than_the_machine_has_is_refused() -> None:
    with pytest.raises(UnsupportedConstruct, match=r"registers and counters of \d+ MiB"):
        translate(change(program("state"), "register_arrays.0.size", (1 << 31) - 1))


def test_a_program_for_which_there_is_no_memory_is_refused(
    program_cache: str, tmp_path: Path
) -> None:
    whole = program("state")
    whole["register_arrays"][0]["size"] = 3 << 27
    (tmp_path / "large.json").write_text(json.dumps(whole))
    code = (
        "import resource, sys\n"
        "from wiresum.softswitch import Switch, load_program\n"
        "load_program(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))\n"
        "try: Switch(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.json")],
        capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"XDG_CACHE_HOME": program_cache, "CXXFLAGS": "-O0"},
    )  # fmt: skip
    assert run.stdout.startswith("LibraryUnusable"), run.stdout + run.stderr
    assert "not enough memory for its registers and counters" in run.stdout


def test_duplicate_names_are_refused() -> None:
    for key in ("headers", "header_types", "register_arrays", "calculations", "actions"):
        whole = program("state")
        whole[key].append(dict(whole[key][0], id=70000) if key != "actions" else whole[key][0])
        assert "two" in refused(json.dumps(whole).encode()), key


def test_endless_nesting_is_refused() -> None:
    assert "nested too deeply" in refused(b"[" * 100_000)
    value: Any = {"type": "hexstr", "value": "0x1"}
    for _ in range(150):
        value = {"type": "expression", "value": {"op": "~", "left": None, "right": value}}
    whole = program("state")
    primitives = [p for a in whole["actions"] for p in a["primitives"]]
    next(p for p in primitives if p["op"] == "assign")["parameters"][1] = value
    assert "more than 100 operations" in refused(json.dumps(whole).encode())


def test_a_cyclic_pipeline_is_refused() -> None:
    whole = program("tables")
    table = whole["pipelines"][0]["tables"][-1]
    table["next_tables"] = dict.fromkeys(table["next_tables"], whole["pipelines"][0]["init_table"])
    assert "goes round in a circle" in refused(json.dumps(whole).encode())


def test_an_endless_loop_drops_the_packet(
    program_cache: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = program("state")
    pipeline = whole["pipelines"][0]
    table = next(t for t in pipeline["tables"] if t["name"] == pipeline["init_table"])
    action = next(a for a in whole["actions"] if a["id"] == table["default_entry"]["action_id"])
    action["primitives"] = [{"op": "_jump", "parameters": [{"type": "hexstr", "value": "0x0"}]}]
    monkeypatch.setenv("XDG_CACHE_HOME", program_cache)
    monkeypatch.setenv("CXXFLAGS", "-O2")
    assert Switch(json.dumps(whole).encode()).inject(1, bytes(18)) == []
    assert "rounds; the packet is dropped" in capfd.readouterr().err


# --- JSON of earlier versions of p4c ---


def test_a_raw_line_end_in_a_string_loads() -> None:
    whole = program("state")
    whole["actions"][1]["source_info"] = {"filename": "a.p4", "line": 3, "column": 1,
                                          "source_fragment": "x = 1;@y = 2;\t@"}  # fmt: skip
    text = json.dumps(whole).replace("@", "\n\r\x01").replace("\\t", "\t").encode()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert "x = 1;" in translate(text).cpp


def test_a_length_expression_alone_is_no_varbit() -> None:
    whole = program("state")
    for each in whole["header_types"]:
        each |= {"length_exp": None, "max_length": None}
    assert translate(json.dumps(whole).encode()).cpp
    whole["header_types"][-1]["length_exp"] = {"type": "expression", "value": None}
    assert translate(json.dumps(whole).encode()).cpp
    whole["header_types"][-1]["fields"][-1] = ["rest", "*"]
    assert "varbit" in refused(json.dumps(whole).encode())


def test_keys_that_are_absent_null_or_unknown_do_not_matter() -> None:
    whole = program("state")
    for key in ("header_union_types", "header_unions", "header_union_stacks", "field_lists",
                "enums", "parse_vsets", "meter_arrays", "learn_lists", "force_arith"):  # fmt: skip
        whole[key] = None
        del whole["extern_instances" if key == "enums" else key]
    whole["a_key_of_next_year"] = {"x": [1.5, None]}
    whole["program"] = None
    whole["__meta__"] = {"version": [2, 23]}
    for pipeline in whole["pipelines"]:
        for table in pipeline["tables"]:
            table["support_timeout"] = table["direct_meters"] = None
            del table["type"], table["with_counters"]
    for checksum in whole["checksums"]:
        checksum.pop("verify"), checksum.pop("update")
    for each in whole["headers"]:
        if not each["metadata"]:
            del each["metadata"]
    for node in whole["actions"]:
        node["source_info"] = {"filename": None, "line": "3", "source_fragment": 7}
    assert translate(json.dumps(whole).encode()).cpp


def test_text_that_is_not_utf_8_is_refused_for_that_reason() -> None:
    text = PROGRAMS["state"].read_bytes().replace(b"state.p4", b"stat\xe9.p4", 1)
    assert "is not text in utf-8" in refused(text)
