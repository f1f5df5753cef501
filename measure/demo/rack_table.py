"""The outcome of a training across a rack, as a table and as JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from wiresum.measure.demo.results import Training, verify
from wiresum.p4.packet import Event
from wiresum.testbed.options import RackOptions


@dataclass(frozen=True)
class Outcome:
    """One training. ``drops``: packets that the switch program dropped, by reason.

    ``lost_frames``: frames that the links lost, workers' own traffic included (None: not lossy,
    or not counted).
    """

    options: RackOptions
    steps: int
    field: int
    training: Training
    drops: Mapping[str, int]
    lost_frames: int | None

    @property
    def contributions(self) -> int:
        """Contributions that the switch has summed, by its own counters."""
        events = self.training.events
        return events.get("claimed", 0) + events.get("added", 0)

    def verify(self) -> None:
        """Raise ``DemoError`` unless the switch's counters account for every chunk."""
        verify(self.training, self.options.workers, self.steps)

    def as_json(self) -> dict[str, Any]:
        """All numbers."""
        training = self.training
        return {
            **dataclasses.asdict(self),
            "training": {
                **dataclasses.asdict(training),
                "wire_bytes": training.wire_bytes,
                "chunks": training.chunks,
                "retransmissions": training.total("retransmissions"),
            },
        }


def table(outcome: Outcome) -> Table:
    """For people: the workers' counts beside the switch's counters."""
    options, training = outcome.options, outcome.training
    label = {"bmv2": "BMv2", "soft": "softswitch"}[options.switch]
    rate = f"{options.rate_mbit:g} Mbit/s" if options.rate_mbit else "unlimited links"
    loss = f", {100 * options.loss:.3g} % lost" if options.loss else ""
    out = Table(
        title=f"{options.workers} workers on {label}, {options.lanes} lanes, "
        f"{outcome.field}-bit fields, {rate}{loss}"
    )
    out.add_column("", no_wrap=True)
    out.add_column("workers", justify="right")
    out.add_column("switch's counters", justify="right")
    row = out.add_row
    events = {name.lower(): training.events.get(name.lower(), 0) for name in Event.__members__}
    n, chunks = options.workers, training.chunks
    row("chunks summed", f"{chunks:,}", f"{events.pop('completed'):,}")
    row("contributions", f"{n} × {chunks:,}", f"{outcome.contributions:,}")
    row("  the first for its slot: claimed", "", f"{events.pop('claimed'):,}")
    row("  added", "", f"{events.pop('added'):,}")
    out.add_section()
    row("sent again by a worker", f"{training.total('retransmissions'):,}", "")
    for name, count in events.items():
        row(f"  {name.replace('_', ' ')}", "", f"{count:,}")
    for reason, count in outcome.drops.items():
        row(f"  dropped: {reason.replace('_', ' ')}", "", f"{count:,}")
    if outcome.lost_frames is not None:
        row("frames lost on the links", "", f"{outcome.lost_frames:,} (nftables)")
    out.add_section()
    row("train loss, mean of last tenth", f"{training.train_loss:.4f}", "")
    row("same weights on all workers", "yes" if training.same_weights else "NO", "")
    row("wire bytes per worker and step", f"{training.wire_bytes:,.0f}", "")
    row("seconds, start included", f"{training.seconds:.1f}", "")
    return out
