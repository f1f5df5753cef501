"""What ``--codec`` and ``WIRESUM_REMEDY`` may name: ``NAME[:option=value,…]``. Without torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wiresum.common.places import expand
from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.rules import (
    Rule,
    checked_momentum,
    narrow,
    read_policy,
    rounding_of,
)

VARIABLE = "WIRESUM_REMEDY"
"""What the workers put on the models of a script; empty or missing: nothing."""


@dataclass(frozen=True)
class Spec:
    """A name, and options as the class or function behind it takes them."""

    name: str
    options: Mapping[str, Any]


def _yes(text: str) -> bool:
    return {"yes": True, "1": True, "no": False, "0": False}[text]


def _share(text: str) -> float:
    return Rule(share=float(text)).share


def _bits(text: str) -> int:
    return Rule(bits=int(text)).bits


def _rounding(text: str) -> str:
    return rounding_of(text).value


def _threshold(text: str) -> float:
    return Rule(threshold=float(text)).threshold


def _momentum(text: str) -> float:
    return checked_momentum(float(text))


def _rate(text: str) -> float:
    found = float(text)
    if not 0 < found < math.inf:
        raise ValueError(text)
    return found


def _narrow(text: str) -> int:
    return narrow(_bits(text))


_ANY: Mapping[str, Callable[[str], Any]] = {
    "rounding": _rounding,
    "feedback": _yes,
    "policy": lambda text: read_policy(expand(Path(text))),
}
_FIELDS: Mapping[str, Callable[[str], Any]] = {"bits": _bits, **_ANY}


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise ValueError(text)
    return _count(text)


OPTIONS: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "fp16": {},
    "powersgd": {"rank": _positive},
    "block-float": _FIELDS,
    "top-k": {
        "k": _share,
        "threshold": _threshold,
        "warmup": _count,
        "momentum": _momentum,
        **_FIELDS,
    },
    "ternary": _ANY,
    "vote": _ANY,
    "thc": {**_FIELDS, "bits": _narrow},
    "local-steps": {"h": _positive, "warmup": _count},
    "diloco": {
        "h": _positive,
        "bits": _bits,
        "lr": _rate,
        "momentum": _momentum,
        "policy": _FIELDS["policy"],
    },
    "sparse-loco": {"h": _positive, "k": _share, "bits": _bits, "policy": _FIELDS["policy"]},
}
"""By name, the options, and what reads their values."""


def parse(text: str) -> Spec:
    """Read ``top-k:k=0.1,bits=8``. Raises :class:`CodecError` in one line."""
    name, _, rest = text.partition(":")
    if name not in OPTIONS:
        raise CodecError(lines.NO_CODEC.of(name=name, names=", ".join(OPTIONS)))
    found = {}
    for part in rest.split(",") if rest else ():
        key, _, value = part.partition("=")
        try:
            if key in found:
                raise ValueError(key)
            found[key] = OPTIONS[name][key](value)
        except (KeyError, ValueError):
            names = ", ".join(OPTIONS[name]) or "none"
            raise CodecError(lines.NO_CODEC_OPTION.of(name=name, part=part, names=names)) from None
    return Spec(name, found)


def whole(text: str) -> str:
    """``text`` with the policy's path made absolute. Raises what :func:`parse` raises."""
    parse(text)
    name, colon, rest = text.partition(":")
    parts = [
        f"policy={expand(Path(part.removeprefix('policy='))).absolute()}"
        if part.startswith("policy=")
        else part
        for part in rest.split(",")
    ]
    made = name + colon + ",".join(parts)
    parse(made)  # a folder's name may hold a comma
    return made
