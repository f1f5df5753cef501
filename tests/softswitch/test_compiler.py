"""Compiling at run time: the cache, and the error lines."""

import concurrent.futures
import os
import stat
from collections.abc import Callable
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


def test_simultaneous_requests_compile_once(
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


def test_a_missing_cxx_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_missing_program_is_refused(tmp_path: Path) -> None:
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


# --- the owner of the cache ---


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program's library in place of a compiler's output: much quicker."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("CXXFLAGS", "-O0")
        return load_program(PROGRAM)


@pytest.fixture
def calls(
    cache: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], int]:
    """Has a cache with the program in it; tells how often something was compiled."""
    log = tmp_path / "calls"
    log.write_text("")
    copies = 'while [ $# -gt 1 ]; do shift; done; [ "$1" = --version ] && exit 0; '
    copies += f'echo x >> {log}; cat {compiled} > "$1"'
    monkeypatch.setenv("CXX", script(tmp_path / "cxx-copy", copies))
    load_program(PROGRAM)
    return lambda: len(log.read_text()) // 2


def made(cache: Path, suffix: str) -> Path:
    [file] = cache.glob(f"*{suffix}")
    return file


def test_a_cache_is_made_for_its_user_alone(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = 'while [ $# -gt 1 ]; do shift; done; [ "$1" = --version ] || echo x > "$1"'
    monkeypatch.setenv("CXX", script(tmp_path / "cxx", write))
    before = os.umask(0)
    try:
        library = load_program(PROGRAM)
    finally:
        os.umask(before)
    for path in (cache, cache.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(library.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
@pytest.mark.parametrize("which", ["programs", "wiresum"])
def test_a_cache_that_others_can_write_to_is_not_used(
    cache: Path, calls: Callable[[], int], which: str, mode: int
) -> None:
    folder = cache if which == "programs" else cache.parent
    folder.chmod(mode)
    with pytest.raises(CompileFailed, match=f"others can write to {folder}") as caught:
        load_program(PROGRAM)
    one_line(caught.value)
    folder.chmod(0o700)
    load_program(PROGRAM)
    assert calls() == 1


def test_a_cache_below_a_world_writable_folder_is_not_used(
    calls: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    with pytest.raises(CompileFailed, match="put another in its place"):
        load_program(PROGRAM)
    shared.chmod(0o1777)  # as /tmp: no user can move another's folder
    load_program(PROGRAM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["programs", "wiresum", "library", "sum"])
def test_files_of_another_user_are_not_used(
    cache: Path, calls: Callable[[], int], which: str
) -> None:
    paths = {"programs": cache, "wiresum": cache.parent, "library": made(cache, ".so"),
             "sum": made(cache, ".sha256")}  # fmt: skip
    os.chown(paths[which], 12345, -1)
    if which in ("programs", "wiresum"):
        with pytest.raises(CompileFailed, match="belongs to another user"):
            load_program(PROGRAM)
    else:
        load_program(PROGRAM)
        assert calls() == 2  # made anew
        assert paths[which].stat().st_uid == 0


@pytest.mark.parametrize("fault", ["cut", "empty", "no sum", "link", "writable", "other"])
def test_an_incomplete_library_is_made_anew(
    cache: Path, calls: Callable[[], int], fault: str, tmp_path: Path
) -> None:
    library = made(cache, ".so")
    data = library.read_bytes()
    if fault == "cut":
        library.write_bytes(data[: len(data) // 2])
    elif fault == "empty":
        library.write_bytes(b"")
    elif fault == "no sum":
        made(cache, ".sha256").unlink()
    elif fault == "link":
        library.rename(tmp_path / "elsewhere.so")
        library.symlink_to(tmp_path / "elsewhere.so")
    elif fault == "writable":
        library.chmod(0o777)
    else:
        library.write_bytes(data + b"x")
    switch = Switch(PROGRAM)
    assert calls() == 2
    assert switch.inject(1, b"\x40\0\0\0") != []
    assert stat.S_IMODE(library.lstat().st_mode) == 0o700


def test_a_compiler_that_is_killed_leaves_nothing_that_is_loaded(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = (
        'while [ $# -gt 1 ]; do shift; done; [ "$1" = --version ] || { echo part > "$1"; kill $$; }'
    )
    monkeypatch.setenv("CXX", script(tmp_path / "cxx-killed", part))
    with pytest.raises(CompileFailed):
        load_program(PROGRAM)
    assert not [p for p in cache.iterdir() if p.suffix in (".so", ".tmp", ".sha256")]


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(CompileFailed, match="set XDG_CACHE_HOME") as caught:
        load_program(PROGRAM)
    one_line(caught.value)
