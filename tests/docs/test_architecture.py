"""The page on the architecture names existing files, and every folder of the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = ("cli", "common", "controller", "host_agent", "measure", "p4", "softswitch", "testbed")


def named() -> list[str]:
    """The paths in the page: in backticks, with a folder of the project in front."""
    words = re.findall(r"`([^`\s]+)`", PAGE.read_text())
    tops = (*FOLDERS, "docs", "tests")
    return [word for word in words if word.split("/")[0] in tops and "/" in word]


def test_every_file_that_the_page_names_is_there() -> None:
    assert len(named()) > 40
    missing = [path for path in named() if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_in_the_picture_and_in_a_table(folder: str) -> None:
    text = PAGE.read_text()
    picture = text.split("```")[1]
    assert re.search(rf"\b{folder}\b", picture)
    assert (ROOT / folder / "README.md").exists()


def test_every_room_of_a_folder_has_a_readme() -> None:
    """Each folder says what lives there."""
    rooms = [
        room
        for top in ("controller", "host_agent", "measure")
        for room in (ROOT / top).iterdir()
        if room.is_dir() and list(room.glob("*.py")) and room.name not in ("__pycache__", "v1")
    ]
    assert len(rooms) > 8
    assert [str(room) for room in rooms if not (room / "README.md").exists()] == []
