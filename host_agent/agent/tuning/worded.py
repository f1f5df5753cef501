"""Reasons of the ranks' choices: numbers that can travel, with words for people."""

from enum import IntEnum
from typing import Self


class Worded(IntEnum):
    """A base for reasons, each of them a number and its words."""

    words: str
    """For people."""

    def __new__(cls, number: int, words: str = "") -> Self:
        """A member of the enumeration; its value is the number alone."""
        made = int.__new__(cls, number)
        made._value_ = number
        made.words = words
        return made
