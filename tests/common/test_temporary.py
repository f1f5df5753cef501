"""Private folders: they end with their process, and other users' folders stay."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wiresum.common import temporary
from wiresum.common.temporary import PrivateFolder, TemporaryError

HOLD = """
import sys
from wiresum.common.temporary import PrivateFolder
folder = PrivateFolder("run", for_sockets=True)
(folder.path / "secret").write_text("x")
print(folder.path, flush=True)
sys.stdin.read()
folder.close()
"""
LIMIT_S = 60.0


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder() -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_its_owners_alone_and_gone_afterwards(base: Path) -> None:
    with PrivateFolder("run") as folder:
        assert folder.path.parent == base
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        (folder.path / "sub").mkdir()
        (folder.path / "sub" / "file").write_text("x")
    assert list(base.iterdir()) == []
    folder.close()


def test_the_next_folder_removes_the_rest_of_a_killed_process(base: Path) -> None:
    process, path = holder()
    with process:
        process.kill()
        process.wait(LIMIT_S)
        assert (path / "secret").exists()
        with PrivateFolder("demo") as mine:
            assert list(base.iterdir()) == [mine.path]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_living_process_keeps_its_folder(base: Path, stopped: bool) -> None:
    process, path = holder()
    with process:
        if stopped:
            process.send_signal(signal.SIGSTOP)
        with PrivateFolder("run"):
            assert (path / "secret").exists()
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=LIMIT_S)
    assert list(base.iterdir()) == []


def test_a_folder_that_others_may_write_or_that_is_a_link_is_not_swept(
    base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with PrivateFolder("run") as folder:
        pattern = folder.path.name[:-16]
    open_to_all = base / f"{pattern}{'0' * 16}"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "keep").write_text("x")
    link = base / f"{pattern}{'1' * 16}"
    link.symlink_to(elsewhere)
    similar = [base / f"{pattern}{'2' * 16}.key", base / "wiresum-run-other", base / "wiresum-x"]
    for path in similar:
        path.mkdir(mode=0o700)
    dead = base / f"{pattern}{'3' * 16}"
    dead.mkdir(mode=0o700)
    temporary.sweep(base)
    assert not dead.exists()
    assert sorted(base.iterdir()) == sorted([open_to_all, link, *similar])
    assert (elsewhere / "keep").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's folder")
def test_another_users_folder_is_not_swept(base: Path) -> None:
    with PrivateFolder("run") as folder:
        pattern = folder.path.name[:-16]
    theirs = base / f"{pattern}{'4' * 16}"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    temporary.sweep(base)
    assert theirs.exists()


def test_many_processes_that_make_and_sweep_at_once_all_get_folders(base: Path) -> None:
    code = (
        "from wiresum.common.temporary import PrivateFolder\n"
        "for _ in range(200):\n"
        "    with PrivateFolder('run') as folder: (folder.path / 'x').write_text('x')\n"
    )
    crowd = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    deadline = time.monotonic() + LIMIT_S
    assert [each.wait(max(0.1, deadline - time.monotonic())) for each in crowd] == [0] * 4
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("odd", ["a" * 90, "with space", "que?stion", "per%20cent", "ü"])
def test_folders_for_sockets_have_short_and_plain_paths(
    tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / odd
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    with PrivateFolder("run", for_sockets=True) as folder:
        assert folder.path.parent != place
        assert len(os.fsencode(folder.path / ("s" * 32))) <= 107
    with PrivateFolder("run") as folder:
        assert folder.path.parent == place


def test_where_tmpdir_cannot_be_used_another_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for wrong in ("/nowhere/at/all", str(tmp_path / "file"), "relative", "/proc/self"):
        monkeypatch.setenv("TMPDIR", wrong)
        with PrivateFolder("run") as folder:
            assert folder.path.is_dir()
            assert folder.path.parent != Path(wrong)


def test_without_any_place_the_error_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_bases", lambda: [Path("/nowhere"), Path("/proc/self")])
    with pytest.raises(TemporaryError, match=r"/proc/self: .*: make room, or set TMPDIR"):
        PrivateFolder("run")
