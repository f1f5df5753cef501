"""The version of this installation."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # read from a file, and said with every message
def package_version() -> str:
    """Version of the installed distribution, or ``0+unknown`` when run from a bare tree."""
    try:
        return version("wiresum")
    except PackageNotFoundError:
        return "0+unknown"


def compatible(one: str, other: str) -> bool:
    """Whether two versions of the package understand each other: same major and minor."""
    return one.split(".")[:2] == other.split(".")[:2]
