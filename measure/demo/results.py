"""The outcome of a training, and the check of the switch's counters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wiresum.common.errors import WiresumError
from wiresum.common.tcp import with_headers
from wiresum.measure import lines


class DemoError(WiresumError):
    """A training of the demo failed, or its numbers do not add up."""


@dataclass(frozen=True)
class Training:
    """One training, over all its workers. Bytes are the mean per worker and step."""

    backend: str
    seconds: float
    losses: list[float]  # mean over the workers, by step
    train_loss: float
    validation_loss: float
    parameters: int
    same_weights: bool
    switch_bytes: float  # UDP payload and headers, as the engine counted them
    tcp_bytes: float  # TCP payload from TCP_INFO, and the headers it needs
    switch_collectives: Mapping[str, int]  # of one worker
    fallback_collectives: Mapping[str, Mapping[str, int]]
    engines: list[Mapping[str, int]]  # by rank; empty without a switch
    events: Mapping[str, int] = field(default_factory=dict)  # the switch's counters for the job

    @property
    def wire_bytes(self) -> float:
        """Bytes that one worker sends and receives per step, headers included."""
        return self.switch_bytes + self.tcp_bytes

    @property
    def chunks(self) -> int:
        """Chunks that each worker contributed to, both streams."""
        return self.engines[0]["contributions"] if self.engines else 0

    def total(self, counter: str) -> int:
        """A counter summed over all engines."""
        return sum(engine.get(counter, 0) for engine in self.engines)


def read(
    backend: str, folder: Path, workers: int, seconds: float, events: Mapping[str, int]
) -> Training:
    """The training whose workers have reported into ``folder``. Raises :class:`DemoError`."""
    reports: list[dict[str, Any]] = []
    for rank in range(workers):
        try:
            reports.append(json.loads((folder / f"rank{rank}.json").read_text()))
        except (OSError, ValueError) as error:
            raise DemoError(lines.NO_REPORT.of(rank=rank, backend=backend, why=error)) from None
    by_step = zip(*(r["losses"] for r in reports), strict=True)
    first = reports[0]
    return Training(
        backend=backend,
        seconds=seconds,
        losses=[sum(step) / workers for step in by_step],
        train_loss=first["train_loss"],
        validation_loss=first["validation_loss"],
        parameters=first["parameters"],
        same_weights=len({r["weights"] for r in reports}) == 1,
        switch_bytes=sum(r["bytes_per_step"]["switch"] for r in reports) / workers,
        tcp_bytes=with_headers(sum(r["bytes_per_step"]["tcp"] for r in reports) / workers),
        switch_collectives=first["stats"]["switch"],
        fallback_collectives=first["stats"]["fallback"],
        engines=[r["stats"]["engine"] for r in reports if r["stats"]["engine"]],
        events=events,
    )


def verify(training: Training, workers: int, steps: int) -> None:
    """Check the switch's counters against the workers' counts. Raises :class:`DemoError`.

    Each chunk must have been completed once, and each worker's part of it have claimed its slot
    or been added to it exactly once, in spite of losses and resends. No all-reduce may have
    gone elsewhere, and each step must have had at least one.
    """
    if len(training.engines) != workers:
        raise DemoError(lines.SWITCH_NOT_USED.of(count=len(training.engines), workers=workers))
    for rank, engine in enumerate(training.engines):
        if engine["contributions"] != training.chunks or engine["results"] != training.chunks:
            raise DemoError(
                lines.CHUNKS_DIFFER.of(
                    rank=rank,
                    sent=engine["contributions"],
                    received=engine["results"],
                    expected=training.chunks,
                )
            )
    events = training.events
    completed = events.get("completed", 0)
    if completed != training.chunks:
        raise DemoError(lines.COUNTERS_DIFFER.of(chunks=training.chunks, counted=completed))
    taken = events.get("claimed", 0) + events.get("added", 0)
    if taken != workers * training.chunks:
        raise DemoError(
            lines.CONTRIBUTIONS_DIFFER.of(workers=workers, chunks=training.chunks, counted=taken)
        )
    elsewhere = {
        name: reasons
        for name, reasons in training.fallback_collectives.items()
        if name.startswith("all_reduce")
    }
    if elsewhere:
        raise DemoError(lines.SWITCH_BYPASSED.of(counts=elsewhere))
    if training.switch_collectives.get("all_reduce", 0) < steps:
        raise DemoError(
            lines.TOO_FEW_COLLECTIVES.of(
                steps=steps, count=training.switch_collectives.get("all_reduce", 0)
            )
        )
    if not training.same_weights:
        raise DemoError(lines.WEIGHTS_DIFFER.of())
