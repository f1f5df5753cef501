"""How much of each parameter is sent, and in how many bits. Knows nothing of torch.

A *policy* gives each parameter a rule: the first of its patterns that fits decides, and a parameter
that none fits has the codec's own rule. CGX (Markov et al. 2022) sends norms and biases exactly;
so does the default policy, by their shape.
"""

import fnmatch
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.p4 import FIELDS

WIDTHS = (*FIELDS, 4)
"""Bits of a field that a rule may ask for."""


class Coding(Enum):
    """What the fields hold."""

    FLOAT = "block-float"
    TERNARY = "ternary"
    VOTE = "vote"
    THC = "thc"


class Rounding(Enum):
    """To the nearest level, or up with the probability of the part that is missing."""

    NEAREST = "nearest"
    STOCHASTIC = "stochastic"


def rounding_of(name: str) -> Rounding:
    """By its name. Raises :class:`CodecError`."""
    try:
        return Rounding(name)
    except ValueError:
        raise CodecError(lines.NO_ROUNDING.of(given=name)) from None


def checked_momentum(given: float) -> float:
    """Raises :class:`CodecError` for what is no factor of a momentum."""
    if not 0.0 <= given < 1.0:
        raise CodecError(lines.NO_MOMENTUM.of(given=given))
    return given


def narrow(bits: int) -> int:
    """Bits of a field of rotated blocks. Raises :class:`CodecError` for too many."""
    if bits == 32:
        raise CodecError(lines.THC_OF_FEW_BITS.of(given=bits))
    return bits


@dataclass(frozen=True)
class Rule:
    """``share`` of a parameter's blocks, those of the largest values, in fields of ``bits``.

    ``threshold``: only blocks whose largest value is at least this part of the parameter's largest.
    ``coding``, ``rounding``: how; three levels and votes have fields of their own widths, whatever
    ``bits`` is.
    """

    share: float = 1.0
    bits: int = 32
    threshold: float = 0.0
    coding: Coding = Coding.FLOAT
    rounding: Rounding = Rounding.NEAREST

    def __post_init__(self) -> None:
        """Raises :class:`CodecError` for values that cannot be."""
        if not 0.0 < self.share <= 1.0:
            raise CodecError(lines.NO_SHARE.of(given=self.share))
        if self.bits not in WIDTHS:
            raise CodecError(lines.NO_BITS.of(given=self.bits))
        if not 0.0 <= self.threshold <= 1.0:
            raise CodecError(lines.NO_THRESHOLD.of(given=self.threshold))

    @property
    def exact(self) -> bool:
        """Whether nothing is left out but what 32 bits round."""
        whole = self.share == 1.0 and self.threshold == 0.0
        return whole and self.bits == 32 and self.coding is Coding.FLOAT

    def blocks(self, count: int, warmth: float = 0.0) -> int:
        """How many of ``count`` blocks are sent; at least one.

        ``warmth``: 1 at the start of a warm-up, when all are, and 0 when it is over; between, the
        share falls geometrically.
        """
        share: float = self.share ** (1.0 - warmth)
        return min(count, max(1, math.ceil(share * count - 1e-9)))


EXACT = Rule()

DEFAULT_POLICY: Mapping[str, str] = MappingProxyType({"1d": "exact"})
"""Parameters of one dimension, which norms and biases are, are sent exactly."""


def rule_for(name: str, shape: Sequence[int], policy: Mapping[str, str], otherwise: Rule) -> Rule:
    """The rule of a parameter. Raises :class:`CodecError` for a policy that makes no sense.

    ``policy``: by pattern, the rule: ``exact``, or changes of ``otherwise`` as ``k=0.05,bits=8``. A
    pattern is ``1d`` (at most one dimension), ``<N`` (fewer than N elements), or one with ``*`` and
    ``?`` for the whole name, as ``*.embedding.weight``.
    """
    for pattern, wanted in policy.items():
        if _fits(pattern, name, shape):
            return changed(otherwise, wanted)
    return otherwise


def check_policy(policy: Mapping[str, str]) -> None:
    """Raise :class:`CodecError` if a pattern or a rule of a policy makes no sense."""
    for pattern, wanted in policy.items():
        _fits(pattern, "", ())
        changed(EXACT, wanted)


def read_policy(path: Path) -> dict[str, str]:
    """The table ``[policy]`` of a TOML file. Raises :class:`CodecError`."""
    try:
        table = tomllib.loads(path.read_text())["policy"]
        policy = {str(pattern): str(wanted) for pattern, wanted in table.items()}
    except OSError as error:
        raise CodecError(lines.NO_POLICY_FILE.of(path=path, why=error.strerror)) from None
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise CodecError(lines.NO_POLICY_FILE.of(path=path, why="no TOML with [policy]")) from None
    check_policy(policy)
    return policy


def changed(rule: Rule, wanted: str) -> Rule:
    """``rule`` as ``exact`` or ``k=0.05,bits=8`` changes it. Raises :class:`CodecError`."""
    if wanted == "exact":
        return EXACT
    for part in wanted.split(","):
        key, _, value = part.partition("=")
        try:
            match key.strip():
                case "k":
                    rule = replace(rule, share=float(value))
                case "threshold":
                    rule = replace(rule, threshold=float(value))
                case "bits":
                    rule = replace(rule, bits=int(value))
                    if rule.coding in (Coding.TERNARY, Coding.VOTE):
                        rule = replace(rule, coding=Coding.FLOAT)
                case "rounding":
                    rule = replace(rule, rounding=rounding_of(value.strip()))
                case "coding":
                    rule = replace(rule, coding=Coding(value.strip()))
                case _:
                    raise ValueError(key)
        except ValueError:
            raise CodecError(lines.NOT_A_RULE.of(text=wanted)) from None
    return rule


def _fits(pattern: str, name: str, shape: Sequence[int]) -> bool:
    if pattern == "1d":
        return len(shape) <= 1
    if pattern.startswith("<"):
        if not re.fullmatch("<[0-9]{1,15}", pattern):
            raise CodecError(lines.NOT_A_PATTERN.of(pattern=pattern))
        return math.prod(shape) < int(pattern[1:])
    return fnmatch.fnmatchcase(name, pattern)
