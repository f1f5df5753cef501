"""``wiresum bench fsdp``: a step of a transformer under FSDP2 over wiresum and over gloo, in turn.

What communication costs a step is its time less that of the same step without any collective.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wiresum.measure import lines
from wiresum.measure.bench.cases import Side
from wiresum.measure.bench.collectives.bench import Bench
from wiresum.measure.bench.collectives.crew import Crew, Nursery
from wiresum.measure.bench.collectives.options import Options
from wiresum.measure.bench.record import head, write
from wiresum.measure.bench.results import Spread
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts

KIND = "fsdp"
LIMIT_S = 120.0
SAME_LOSS = 0.01
"""By how much of gloo's loss another may differ at the end."""


class Steps(Bench):
    """One run; ``entry`` is what goes to the JSON."""

    def __init__(
        self, options: Options, say: Callable[[str], None], save: Callable[[], None]
    ) -> None:
        super().__init__(replace(options, collectives=("both",), sizes=(4 << 20,)), say, save)
        self.entry: dict[str, Any] = {"parameters": 0, "samples": {}}

    def _with(self, count: int, nursery: Nursery) -> None:
        options = self.options
        (rate,) = options.rates
        self._star.shape(rate)
        with ExitStack() as exits:
            crews: dict[Side, Crew] = {
                side: exits.enter_context(Crew(nursery, self._group(side, count, LIMIT_S, exits)))
                for side in options.sides
            }
            for crew in crews.values():
                (said, *_) = crew.all("model")
                self.entry["parameters"] = said["parameters"]
                crew.all("step", communicates=True)  # what is made at first is not timed
                crew.all("step", communicates=False)
            for number in range(options.repeat):
                for side, crew in crews.items():
                    self._step(side, crew)
                self._say(f"round {number + 1} of {options.repeat} done")
                self._save()

    def _step(self, side: Side, crew: Crew) -> None:
        wire = self._star.traffic()
        real = crew.all("step", communicates=True)
        crossed = [now.since(old) for now, old in zip(self._star.traffic(), wire, strict=True)]
        if not side.by_ranks and any(each["fallback"] for each in real):
            raise RackError(lines.NOT_OVER_SWITCH.of(case="a step under FSDP", side=side))
        bare = crew.all("step", communicates=False)
        sample = {
            "seconds": _seconds(real),
            "computation": _seconds(bare),
            "loss": statistics.fmean(each["loss"] for each in real),
            "sent": [each.sent for each in crossed],
            "received": [each.received for each in crossed],
        }
        self.entry["samples"].setdefault(side.key, []).append(sample)
        self._say(f"{side}: {sample['seconds']:.2f} s, computation {sample['computation']:.2f} s")


def _seconds(said: list[dict[str, Any]]) -> float:
    return float(max(each["end"] for each in said) - min(each["begin"] for each in said))


def communication(samples: list[dict[str, Any]]) -> Spread:
    """Seconds of a step that its computation does not explain, over the rounds."""
    return Spread.of([each["seconds"] - each["computation"] for each in samples])


def table(entry: dict[str, Any]) -> Table:
    """A line for each side."""
    made = Table(title=f"A step under FSDP2, {entry['parameters'] / 1e6:.1f} M parameters")
    for heading in (
        "side", "step s", "communication s", "lowest–highest", "gloo / it", "MB up", "MB down",
        "last loss",
    ):  # fmt: skip
        made.add_column(heading, justify="right", no_wrap=True)
    for line in rows(entry):
        made.add_row(*line)
    return made


def rows(entry: dict[str, Any]) -> list[list[str]]:
    """The cells of the table."""
    samples = entry["samples"]
    sides = sorted(map(Side.of, samples), key=Side.order)
    gloo = [communication(samples[each.key]).median for each in sides if each.field is None]
    made = []
    for side in sides:
        own = samples[side.key]
        spent = communication(own)
        ratio = f"{min(gloo) / spent.median:.2f}" if gloo and side.field is not None else ""
        made.append(
            [
                str(side),
                f"{statistics.median(each['seconds'] for each in own):.2f}",
                f"{spent.median:.2f}",
                f"{spent.low:.2f}–{spent.high:.2f}",
                ratio,
                f"{statistics.median(max(each['sent']) for each in own) / 1e6:.0f}",
                f"{statistics.median(max(each['received']) for each in own) / 1e6:.0f}",
                f"{own[-1]['loss']:.4f}",
            ]
        )
    return made


def other_loss(entry: dict[str, Any]) -> str | None:
    """A side whose last loss is not gloo's, in one line; None: there is none."""
    samples = entry["samples"]
    gloo = [s[-1]["loss"] for key, s in samples.items() if Side.of(key).field is None]
    for key, own in samples.items():
        loss = own[-1]["loss"]
        if gloo and not abs(loss - gloo[0]) <= SAME_LOSS * gloo[0]:
            return lines.OTHER_LOSS.of(side=Side.of(key), loss=loss, gloo=gloo[0])
    return None


def measure(options: Options, json_file: Path | None, quiet: bool) -> None:
    """Measure, write the JSON after each round, print the table. Raises ``WiresumError``."""
    above = head(KIND, options)

    def save() -> None:
        if json_file is not None:
            write(json_file, above | steps.entry)

    console = Console(stderr=True)
    steps = Steps(options, (lambda _line: None) if quiet else console.print, save)
    with Interrupts():
        steps.run()
    Console(width=max(Console().width, 120)).print(table(steps.entry))
    why = other_loss(steps.entry)
    if why is not None:
        raise RackError(why)
