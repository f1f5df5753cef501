"""What a run that is tuned is asked for: ``within=1%,error=10%,steps=20``."""

import re
from dataclasses import dataclass, fields

from wiresum.host_agent import lines
from wiresum.host_agent.environment import AgentError


@dataclass(frozen=True)
class Wish:
    """Limits of a run that is tuned."""

    within: float = 0.01
    """Largest relative rise of the reported loss after a narrower field."""
    error: float = 0.10
    """Largest error of a tensor on the wire, relative to its norm."""
    steps: int = 20
    """Steps between two decisions."""

    def __str__(self) -> str:
        return f"within={self.within:g},error={self.error:g},steps={self.steps}"


def parse(text: str) -> Wish:
    """The wish that a text says. Raises ``AgentError``."""
    values: dict[str, float | int] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        found = re.fullmatch(r"((?:\d+\.?\d*|\.\d+)(?:e-\d+)?)\s*(%?)", value.strip())
        if name not in {each.name for each in fields(Wish)} or found is None:
            raise AgentError(lines.NOT_A_WISH.of(text=text))
        number = float(found[1]) / (100 if found[2] else 1)
        if name == "steps":
            if not (value.strip().isdigit() and number >= 1):
                raise AgentError(lines.NOT_A_WISH.of(text=text))
            values[name] = int(number)
        elif number < 1:
            values[name] = number
        else:
            raise AgentError(lines.NOT_A_WISH.of(text=text))
    return Wish(**values)  # type: ignore[arg-type]
