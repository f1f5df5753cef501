"""``wiresum bench engine``: the codecs' speed on one core, beside ``memcpy`` of the same bytes.

Bytes are those of the tensor. Quantized lanes go into a buffer that is used over and over, as
packets are; so does the ``memcpy`` that the codec is compared with. The two take turns in every
round, and the ratios are those of a round.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wiresum.common.version import package_version
from wiresum.measure import lines
from wiresum.measure.bench import _codec, codecs
from wiresum.measure.bench.cases import size_text
from wiresum.measure.bench.record import machine, write
from wiresum.measure.bench.results import Spread
from wiresum.testbed.errors import RackError

KIND = "engine"
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}
ISAS = ("avx512", "avx2", "baseline")
COPIES = {"exponents": "copy_in", "quantize": "copy_in", "encode": "copy_in"} | {
    "dequantize": "copy_out"
}
"""What each part of the codec is compared with."""


def available() -> list[str]:
    """The instruction sets of this machine that the engine has kernels for, best first."""
    before = _codec.isa()
    found = []
    for name in ISAS:
        if _codec.use_isa(name):
            found.append(name)
    _codec.use_isa(before)
    return found


def measure(
    isas: Sequence[str], fields: Sequence[int], workers: int, size: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Time every combination; one entry of the JSON after the other. Raises ``EngineError``."""
    before = _codec.isa()
    try:
        for isa in isas:
            _codec.use_isa(isa)
            for field in fields:
                for dtype, item in DTYPES.items():
                    seconds = _codec.time_codec(dtype, field, workers, size // item, rounds)
                    yield {"isa": isa, "field": field, "dtype": dtype, "seconds": seconds}
    finally:
        _codec.use_isa(before)


def ratio(entry: dict[str, Any], part: str, copy: str | None = None) -> Spread:
    """The speed of a part of the codec as a share of memcpy's, over the rounds."""
    seconds = entry["seconds"]
    pairs = zip(seconds[copy or COPIES[part]], seconds[part], strict=True)
    return Spread.of([copied / taken for copied, taken in pairs])


def table(entries: Sequence[dict[str, Any]], size: int) -> Table:
    """GB/s of tensor, and shares of memcpy: median, and the lowest of the rounds."""
    made = Table(title=f"The codec on one core, {size_text(size)} of tensor; shares of memcpy")
    for heading in ("kernels", "field", "dtype"):
        made.add_column(heading, no_wrap=True)
    for part in ("quantize", "with exponents", "dequantize"):
        made.add_column(f"{part}\nGB/s", justify="right", no_wrap=True)
        made.add_column("share\n(lowest)", justify="right", no_wrap=True)
    made.add_column("memcpy\nGB/s", justify="right", no_wrap=True)
    for entry in entries:
        cells = [entry["isa"], str(entry["field"]), entry["dtype"]]
        for part in ("quantize", "encode", "dequantize"):
            share = ratio(entry, part)
            speed = size / statistics.median(entry["seconds"][part]) / 1e9
            cells += [f"{speed:.1f}", f"{100 * share.median:.0f} % ({100 * share.low:.0f} %)"]
        copied = size / statistics.median(entry["seconds"]["copy"]) / 1e9
        made.add_row(*cells, f"{copied:.1f}")
    return made


def bench(
    fields: Sequence[int],
    isas: Sequence[str],
    workers: int,
    size: int,
    repeat: int,
    json_file: Path | None,
    of_gradients: Sequence[str] = (),
) -> None:
    """Measure, print the table, write the JSON. Raises ``WiresumError``."""
    known = available()
    for isa in isas:
        if isa not in known:
            raise RackError(lines.UNKNOWN_ISA.of(isa=isa, known=", ".join(known)))
    entries = list(measure(isas or known, fields, workers, size, repeat))
    console = Console()
    wide = Console(width=max(console.width, 140))
    wide.print(table(entries, size))
    more = list(codecs.measure(of_gradients, isas or known, workers, size, repeat))
    if more:
        wide.print(codecs.table(more, size))
    if json_file is not None:
        head = {"kind": KIND, "version": package_version(), "machine": machine()}
        content = {**head, "workers": workers, "size": size, "entries": entries}
        write(json_file, content | ({"codecs": more} if more else {}))
