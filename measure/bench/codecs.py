"""The codecs of gradients on one core, for ``wiresum bench engine``: what one rank does at a step.

*Encoding* is all that a rank does before its lanes are summed, and what it keeps of the rest;
*decoding* is from the sums to the means. Bytes are those of the gradient in float32, and seconds
the thread's own, so that other programs count less. ``copy`` is torch's, of the same bytes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

from wiresum.host_agent import _engine
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.catalogue import codecs
from wiresum.host_agent.remedies.spec import parse
from wiresum.measure import lines
from wiresum.measure.bench.cases import size_text
from wiresum.measure.bench.results import Spread
from wiresum.testbed.errors import RackError

PARTS = ("encode", "decode")
WITHOUT_CODEC = frozenset({"fp16", "powersgd", "local-steps", "diloco", "sparse-loco"})
"""What `run --codec` takes as well, and has no lanes."""


def chosen(text: str, workers: int) -> list[str]:
    """The codecs of an option: names with semicolons between, or ``all`` that work for so many.

    Raises ``CodecError`` for what is no codec, ``RackError`` for what has no lanes.
    """
    if text == "all":
        return [each.name for each in codecs(workers) if _works(each.name, workers)]
    names = [each.strip() for each in text.split(";") if each.strip()]
    for name in names:
        if parse(name).name in WITHOUT_CODEC:
            raise RackError(lines.NO_LANES.of(name=name))
    return names


def _works(name: str, workers: int) -> bool:
    if parse(name).name in WITHOUT_CODEC:
        return False
    try:
        _made(name, workers, 1)
    except CodecError:
        return False
    return True


def measure(
    names: Sequence[str], isas: Sequence[str], workers: int, size: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Time every codec with every instruction set; one entry of the JSON after the other.

    Raises ``CodecError`` for a codec without fields for so many workers.
    """
    import torch

    threads, before = torch.get_num_threads(), _engine.isa()
    torch.set_num_threads(1)
    try:
        for name in names:
            for isa in isas:
                _engine.set_isa(isa)
                seconds = _timed(name, workers, size // 4, rounds)
                yield {"codec": name, "isa": isa, "seconds": seconds}
    finally:
        _engine.set_isa(before)
        torch.set_num_threads(threads)


def _made(name: str, workers: int, count: int) -> Any:
    """The exchange of one rank with a matrix of ``count`` elements."""
    from torch import nn

    from wiresum.host_agent.hooks import state
    from wiresum.host_agent.hooks.exchange import Exchange, Part

    kinds = (state.BlockFloat, state.TopK, state.Ternary, state.Vote, state.THC)
    spec = parse(name)
    made = {each.name: each for each in kinds}[spec.name](nn.Linear(1, 1), **spec.options)
    return Exchange([Part(count, made.rule, made.feedback)], workers, made.course)


def _timed(name: str, workers: int, count: int, rounds: int) -> dict[str, list[float]]:
    import torch

    one = _made(name, workers, count)
    gradient = torch.randn(count, generator=torch.Generator().manual_seed(1))
    copied, mean = torch.empty_like(gradient), torch.empty_like(gradient)
    summed = torch.empty(0)

    def encode() -> None:
        nonlocal summed
        summed = one.chosen(one.take([gradient]))
        one.keep()

    parts: dict[str, Callable[[], Any]] = {
        "encode": encode,
        "decode": lambda: one.give(summed, [mean]),
        "copy": lambda: copied.copy_(gradient),
    }
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(rounds + 1):
        for part, call in parts.items():
            if part == "decode":
                summed.mul_(workers)  # all ranks have sent the same; no field overflows
            begin = time.thread_time()
            call()
            if number:  # the first round gets memory
                seconds[part].append(time.thread_time() - begin)
    return seconds


def share(entry: dict[str, Any], part: str) -> Spread:
    """The speed of a part as a share of a copy's, over the rounds."""
    pairs = zip(entry["seconds"]["copy"], entry["seconds"][part], strict=True)
    return Spread.of([copied / max(taken, 1e-9) for copied, taken in pairs])


def speed(entry: dict[str, Any], part: str, size: int) -> float:
    """GB/s of gradient, in the middle round."""
    return size / max(Spread.of(entry["seconds"][part]).median, 1e-9) / 1e9


def headings() -> list[str]:
    """Of :func:`row`."""
    found = ["codec", "kernels"]
    for part in PARTS:
        found += [f"{part}, GB/s", "share (lowest)"]
    return found


def row(entry: dict[str, Any], size: int) -> list[str]:
    """GB/s, and shares of a copy: median and lowest."""
    cells = [entry["codec"], entry["isa"]]
    for part in PARTS:
        found = share(entry, part)
        cells += [
            f"{speed(entry, part, size):.2f}",
            f"{100 * found.median:.1f} % ({100 * found.low:.1f} %)",
        ]
    return cells


def table(entries: Sequence[dict[str, Any]], size: int) -> Table:
    """For a terminal."""
    made = Table(
        title=f"The gradients' codecs on one core, {size_text(size)} of gradient; shares of a copy"
    )
    for heading in headings():
        left = heading in ("codec", "kernels")
        made.add_column(heading, justify="left" if left else "right", no_wrap=left)
    for entry in entries:
        made.add_row(*row(entry, size))
    return made
