"""The files committed beside the suite's sources match the sources."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from scenarios import ALL, PROGRAMS


def load_compiler(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite_compile", folder / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_program_is_fed_and_compiled_from_its_present_source() -> None:
    compiler = load_compiler(PROGRAMS)
    assert compiler.names() == sorted(ALL)
    assert compiler.source_hashes() == json.loads((PROGRAMS / "manifest.json").read_text())
    assert compiler.main(["--check"]) == 0


def test_the_check_notices_a_changed_source(tmp_path: Path) -> None:
    copy = tmp_path / "programs"
    shutil.copytree(PROGRAMS, copy)
    common = copy / "common.p4"
    common.write_text(common.read_text().replace("0x0800", "0x0801"))
    assert load_compiler(copy).main(["--check"]) == 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_p4c_still_makes_the_committed_files(name: str, tmp_path: Path) -> None:
    if shutil.which("p4c-bm2-ss") is None:
        pytest.skip("p4c-bm2-ss is not on PATH: the hash of the sources was compared instead")
    made = load_compiler(PROGRAMS).compile_program(name, tmp_path)
    for path in made:
        assert path.read_text() == (PROGRAMS / path.name).read_text()
