"""The files committed beside the P4 sources match the sources."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wiresum import p4
from wiresum.p4 import packet

ROOT = Path(__file__).resolve().parents[2]


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "p4" / script), "--check"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("script", ["compile.py", "generate.py"])
def test_committed_files_match_the_sources(script):
    done = run(script)
    assert done.returncode == 0, done.stdout


def test_the_check_notices_a_changed_source(tmp_path):
    copy = tmp_path / "p4"
    shutil.copytree(ROOT / "p4", copy)
    (tmp_path / "host_agent" / "engine").mkdir(parents=True)
    headers = copy / "headers.p4"
    headers.write_text(headers.read_text().replace("UDP_PORT = 22355", "UDP_PORT = 22356"))
    for script in ("compile.py", "generate.py"):
        done = subprocess.run(
            [sys.executable, str(copy / script), "--check"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        assert "run" in done.stdout


def test_a_bitmap_has_a_bit_for_each_worker():
    assert p4.MAX_WORKERS == 8 * packet.CONTRIBUTORS_BYTES


@pytest.mark.parametrize("lanes", p4.LANE_COUNTS)
def test_p4c_still_makes_the_committed_files(lanes, tmp_path):
    if shutil.which("p4c-bm2-ss") is None:
        pytest.skip("p4c-bm2-ss is not on PATH: the hash of the sources was compared instead")
    sys.path.insert(0, str(ROOT / "p4"))
    try:
        import compile as compiler
    finally:
        sys.path.pop(0)
    json_file, p4info = compiler.compile_program(lanes, tmp_path)
    program = p4.program(lanes)
    assert json_file.read_text() == program.json.read_text()
    assert p4info.read_text() == program.p4info.read_text()


@pytest.mark.parametrize("lanes", p4.LANE_COUNTS)
def test_the_json_has_the_header_that_the_constants_describe(lanes):
    program = json.loads(p4.program(lanes).json.read_text())
    types = {t["name"]: t["fields"] for t in program["header_types"]}
    assert [name for name, *_ in types["wiresum_t"]] == list(packet.HEADER_FIELDS)
    assert sum(bits for _, bits, *_ in types["wiresum_t"]) == 8 * packet.HEADER_BYTES
    assert [bits for _, bits, *_ in types["lanes_t"]] == [32] * lanes
    registers = {r["name"]: (r["size"], r["bitwidth"]) for r in program["register_arrays"]}
    assert registers["lanes"] == (packet.SLOTS * lanes, 32)
    counters = {c["name"]: c.get("size") for c in program["counter_arrays"]}
    assert counters["drops"] == packet.DROP_REASONS == len(packet.DropReason)
    assert counters["events"] == packet.JOBS * packet.EVENTS


def test_every_drop_reason_has_a_number_of_its_own():
    assert sorted(packet.DropReason) == list(range(packet.DROP_REASONS))


def test_unknown_lane_counts_are_refused():
    with pytest.raises(p4.UnknownProgram, match="96 lanes: choose 64 or 256"):
        p4.program(96)
