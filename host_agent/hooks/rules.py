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
from pathlib import Path
from types import MappingProxyType

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.p4 import FIELDS


@dataclass(frozen=True)
class Rule:
    """``share`` of a parameter's blocks, those of the largest values, in fields of ``bits``."""

    share: float = 1.0
    bits: int = 32

    def __post_init__(self) -> None:
        """Raises :class:`CodecError` for values that cannot be."""
        if not 0.0 < self.share <= 1.0:
            raise CodecError(lines.NO_SHARE.of(given=self.share))
        if self.bits not in FIELDS:
            raise CodecError(lines.NO_BITS.of(given=self.bits))

    @property
    def exact(self) -> bool:
        """Whether nothing is left out but what 32 bits round."""
        return self.share == 1.0 and self.bits == max(FIELDS)

    def blocks(self, count: int) -> int:
        """How many of ``count`` blocks are sent; at least one."""
        return min(count, max(1, math.ceil(self.share * count - 1e-9)))


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
            if key.strip() == "k":
                rule = replace(rule, share=float(value))
            elif key.strip() == "bits":
                rule = replace(rule, bits=int(value))
            else:
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
