"""Compiling at run time: the cache, and what is said when it cannot be done."""

import concurrent.futures
import os
import stat
from pathlib import Path

import pytest

from wiresum import p4
from wiresum.common.errors import WiresumError
from wiresum.softswitch import Switch, load_program
from wiresum.softswitch.errors import (
    CompileFailed,
    InvalidArgument,
    LibraryUnusable,
    NoCompiler,
    ProgramInvalid,
)

PROGRAM = Path(__file__).resolve().parent / "programs" / "parsing.json"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a fast compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXXFLAGS", "-O0")
    return tmp_path / "cache" / "wiresum" / "programs"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def one_line(error: BaseException) -> str:
    assert isinstance(error, WiresumError)
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("lanes", p4.LANE_COUNTS)
def test_our_own_programs_need_no_compiler(
    lanes: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    Switch(lanes=lanes)
    assert not cache.exists()


def test_compiled_once_for_all_that_ask_at_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    counting = script(
        tmp_path / "cxx",
        f'case "$*" in *--version*) ;; *) echo x >> {calls} ;; esac\nexec c++ "$@"',
    )
    monkeypatch.setenv("CXX", counting)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(load_program, [PROGRAM] * 4))
    libraries.append(load_program(PROGRAM.read_bytes()))
    assert len(set(libraries)) == 1
    assert calls.read_text().splitlines() == ["x"]
    assert [p.name for p in cache.glob("*.tmp")] == []
    assert Switch(PROGRAM).inject(1, b"\x40\0\0\0") != []


def test_flags_are_part_of_the_key(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A compiler that writes any file will do here.
    write = 'while [ $# -gt 1 ]; do shift; done; [ "$1" = --version ] || echo x > "$1"'
    fake = script(tmp_path / "cxx", write)
    monkeypatch.setenv("CXX", fake)
    first = load_program(PROGRAM)
    monkeypatch.setenv("CXXFLAGS", "-O1")
    assert load_program(PROGRAM) != first
    with pytest.raises(LibraryUnusable, match="cannot load") as caught:
        Switch(PROGRAM)
    one_line(caught.value)


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoCompiler, match="install g"):
        load_program(PROGRAM)


def test_cxx_that_is_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    with pytest.raises(NoCompiler, match="no-such-compiler"):
        load_program(PROGRAM)


def test_compile_error_is_one_line_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path / "cxx", 'echo "x.cpp:1: note"; echo "x.cpp:2: error: no" >&2; exit 1')
    monkeypatch.setenv("CXX", broken)
    with pytest.raises(CompileFailed, match="error: no") as caught:
        load_program(PROGRAM)
    log = one_line(caught.value).rsplit(" ", 1)[1].rstrip(")")
    assert "error: no" in Path(log).read_text()
    assert not [p for p in cache.iterdir() if p.suffix in (".so", ".tmp")]


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CompileFailed, match="cannot write") as caught:
        load_program(PROGRAM)
    one_line(caught.value)


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wiresum.softswitch.compiler import cache_dir

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "wiresum" / "programs"


def test_what_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(ProgramInvalid, match="cannot read"):
        Switch(tmp_path / "nothing.json")
    with pytest.raises(InvalidArgument, match="either"):
        Switch()
    with pytest.raises(InvalidArgument, match="either"):
        Switch(PROGRAM, lanes=64)


def test_library_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wiresum.softswitch import _softswitch

    source = tmp_path / "old.cpp"
    source.write_text('extern "C" void* wiresum_program_create(const char*) { return nullptr; }')
    assert os.system(f"c++ -shared -fPIC -o {tmp_path}/old.so {source}") == 0
    with pytest.raises(LibraryUnusable, match="another version") as caught:
        _softswitch.Dataplane(str(tmp_path / "old.so"))
    one_line(caught.value)
