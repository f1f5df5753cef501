"""Secret files are closed to others, whatever the umask and wherever they came from."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wiresum.common import private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o777])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
def test_modes_of_new_files_do_not_depend_on_the_umask(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    private.folder(folder)
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    private.write(folder / "secret", b"s")
    private.write(folder / "public", b"p", 0o644)
    private.touch(folder / "store", "store")
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        "secret": 0o600,
        "public": 0o644,
        "store": 0o600,
    }
    private.write(folder / "secret", b"another")
    assert (folder / "secret").read_bytes() == b"another"
    assert mode(folder / "secret") == 0o600


def test_files_that_others_may_read_are_closed_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "store"
    path.write_bytes(b"data")
    for before, after in ((0o644, 0o600), (0o666, 0o600), (0o640, 0o600), (0o755, 0o700)):
        path.chmod(before)
        caplog.clear()
        private.touch(path, "store")
        assert mode(path) == after
        assert [record.getMessage() for record in caplog.records] == [
            f"store {path} could be read by others (mode {before:04o}): it is closed to them now"
        ]
    caplog.clear()
    private.tighten(path, "store")
    private.tighten(tmp_path / "nil", "store")
    assert caplog.records == []
    assert path.read_bytes() == b"data"


def test_files_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "key"
    path.write_bytes(b"data")
    path.chmod(0o644)

    def not_permitted(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # The tests may run as root, which may change all of them.
    monkeypatch.setattr(Path, "chmod", not_permitted)
    with pytest.raises(private.PrivateFileError) as caught:
        private.tighten(path, "key")
    assert str(caught.value) == (
        f"key {path} may be read by others (mode 0644), which cannot be changed: operation not "
        "permitted; give it to this user, and chmod 600 it"
    )


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        private.write(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
