"""Handing over from the switch to the ranks, in the middle of collectives.

A rank keeps its contribution to a chunk for two windows, so while any rank lacks the result of a
chunk, every rank still has its own contribution to it. For all chunks from the oldest one without a
result on some rank to the first one that some rank has not opened, the ranks contribute again, to
each other. The sum is that of the same integers, so it does not matter which ranks have the
switch's result already. No rank can have a result of a later chunk: these are closed, and their
elements go over the ranks, as everything after them.
"""

from collections.abc import Sequence
from typing import Protocol

from wiresum.host_agent import lines
from wiresum.host_agent.agent.sums import Sums
from wiresum.host_agent.engine import Rest
from wiresum.host_agent.errors import CollectiveMismatch

STREAMS = ("exponent", "data", "copy")
"""Of an engine."""


class Suspended(Protocol):
    """An engine over the switch: see ``_engine.pyi``."""

    @property
    def epoch(self) -> int:
        """Its lease's."""

    @property
    def lanes(self) -> int:
        """Of a chunk."""

    def suspend(self, why: str) -> bool:
        """Let it stand still; false if it has failed or was closed."""

    def extent(self) -> dict[str, tuple[int, int]]:
        """Of each stream: the oldest chunk without a result, the first that is not open."""

    def contributions(self, stream: str, first: int, count: int, words: int) -> int:
        """Copy this rank's contributions; returns a hash of what they are for."""

    def take_sums(self, stream: str, first: int, count: int, words: int) -> None:
        """Apply the sums of chunks."""

    def rests(self, exponent_end: int, data_end: int, copy_end: int) -> list[Rest]:
        """What is left of all pieces of collectives."""


def hand_over(engine: Suspended, sums: Sums) -> Sequence[Rest]:
    """Finish with the other ranks what ``engine``, which is suspended, had on its way.

    Returns what is left of collectives. All ranks call it, and get the same list as far
    as they have issued the same collectives. Raises ``CollectiveMismatch`` if they have not, and
    what ``sums`` raises.
    """
    extent = engine.extent()
    lanes = engine.lanes
    places = [engine.epoch, -engine.epoch]
    for name in STREAMS:
        oldest, following = extent[name]
        places += [-oldest, -following]
    newest, minus_eldest, *largest = sums.largest(places)
    if newest != -minus_eldest:
        # Some ranks had a later lease already. It is of no use before all have it, so none of its
        # chunks has a result; and the others had finished everything under the one before.
        return engine.rests(*(extent[name][0] for name in STREAMS))

    spans = {
        name: (-largest[2 * place], -largest[2 * place + 1]) for place, name in enumerate(STREAMS)
    }
    chunks = {name: end - first for name, (first, end) in spans.items()}
    words = {name: sums.words(chunks[name] * lanes + 1) for name in STREAMS}
    hashes: list[int] = []
    for name, (first, _end) in spans.items():
        mark = engine.contributions(name, first, chunks[name], words[name].address)
        hashes += [mark, -mark]
    largest = sums.largest(hashes)
    if any(largest[i] != -largest[i + 1] for i in range(0, len(largest), 2)):
        raise CollectiveMismatch(lines.NOT_TOGETHER.of())
    for name, (first, _end) in spans.items():
        count = chunks[name]
        if count:
            ours = words[name]
            start = ours.maximum if name == "exponent" else ours.total
            start(count * lanes).wait()
            engine.take_sums(name, first, count, ours.address)
    return engine.rests(*(spans[name][1] for name in STREAMS))
