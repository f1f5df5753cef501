"""The version of this installation."""


def package_version() -> str:
    """Version of the installed distribution, or ``0+unknown`` when run from a bare tree."""
    try:
        from wiresum.common.installed import VERSION
    except ImportError:
        return "0+unknown"
    return str(VERSION)


def compatible(one: str, other: str) -> bool:
    """Whether two versions of the package understand each other: same major and minor."""
    return one.split(".")[:2] == other.split(".")[:2]
