"""What a run that is tuned is asked for: ``within=1%,error=10%,steps=20,carrier=fixed,h=auto``."""

import re
from dataclasses import dataclass, fields
from typing import Any

from wiresum.host_agent import lines
from wiresum.host_agent.environment import AgentError

AUTO, FIXED, OWN = "auto", "fixed", "own"


@dataclass(frozen=True)
class Wish:
    """Limits of a run that is tuned."""

    within: float = 0.01
    """Largest relative rise of the reported loss after a narrower field."""
    error: float = 0.10
    """Largest error of a tensor on the wire, relative to its norm."""
    steps: int = 20
    """Steps between two decisions."""
    carrier: str = AUTO
    """:data:`AUTO`: the faster one sums; :data:`FIXED`: as in a run that is not tuned."""
    h: str = OWN
    """Largest H of local steps: a number, or :data:`AUTO`, the script's own; :data:`OWN`: H is
    always the script's own."""
    drift: float = 0.02
    """Largest drift of the ranks, where H is tuned: see :class:`wiresum.optim.Drift`."""

    def __str__(self) -> str:
        # A script may have given anything: what it is, parse() says.
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return ",".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in values
        )

    def largest_h(self, own: int) -> int | None:
        """Of a script that asks for ``own``; None: H is not tuned."""
        if self.h == OWN:
            return None
        return own if self.h == AUTO else int(self.h)


def parse(text: str) -> Wish:
    """The wish that a text says. Raises ``AgentError``."""
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (each.strip() for each in part.partition("="))
        parser = _PARSERS.get(name)
        found = None if parser is None else parser(value)
        if found is None or name in values:
            raise AgentError(lines.NOT_A_WISH.of(text=text))
        values[name] = found
    return Wish(**values)


def _share(value: str) -> float | None:
    found = re.fullmatch(r"((?:\d+\.?\d*|\.\d+)(?:e-\d+)?)\s*(%?)", value)
    if found is None:
        return None
    number = float(found[1]) / (100 if found[2] else 1)
    return number if number < 1 else None


def _count(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) and int(value) >= 1 else None


def _carrier(value: str) -> str | None:
    return value if value in (AUTO, FIXED) else None


def _h(value: str) -> str | None:
    return value if value in (AUTO, OWN) or _count(value) else None


_PARSERS = {
    "within": _share,
    "error": _share,
    "steps": _count,
    "carrier": _carrier,
    "h": _h,
    "drift": _share,
}
assert set(_PARSERS) == {each.name for each in fields(Wish)}
