"""The version of this installation."""


def package_version() -> str:
    """Version of the installed distribution, or ``0+unknown`` when run from a bare tree."""
    try:
        from wiresum.common.installed import VERSION
    except ImportError:
        return "0+unknown"
    return str(VERSION)


def compatible(one: str, other: str) -> bool:
    """Whether two versions of the package understand each other."""
    return series(one) == series(other)


def series(version: str) -> tuple[str, ...]:
    """Major and minor: versions that share them understand each other."""
    return tuple(version.split(".")[:2])
