"""What becomes of a job for which no switch has room; commands, the client and the store agree."""

from enum import StrEnum


class OnFull(StrEnum):
    """The values are what users write and what the store holds; the .proto has the same names."""

    FAIL = "fail"
    WAIT = "wait"
    SMALLER = "smaller"
    FALLBACK = "fallback"
