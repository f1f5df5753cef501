"""Finds the traces of a job in a folder, and reads each into plain records."""

import gzip
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.traces import cpu, gpu
from wiresum.measure.traces.errors import TraceError
from wiresum.measure.traces.events import LONGEST_TIME, Groups, count_of, events_of
from wiresum.measure.traces.intervals import union
from wiresum.measure.traces.records import CPU, GPU, RankTrace, Step

KIND = "wiresum measure"
"""The ``kind`` of a report as JSON, which may lie beside the traces."""

MEASURED = "wiresum"
"""The key of what `wiresum measure` adds to a trace: see ``host_agent/observe/recorder.py``."""

_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20
SUFFIXES = (".json", ".json.gz")
"""Of the files that are read as traces."""
_RANK = re.compile(r"rank[-_. ]?(\d+)", re.IGNORECASE)


def load(folder: Path) -> list[RankTrace]:
    """The traces in a folder, or in one file, by rank. Raises :class:`TraceError` in one line."""
    traces: dict[int, RankTrace] = {}
    for path in _files(folder):
        try:
            document = _document(path)
            if document.get("kind") == KIND:
                continue
            trace = read(document, path)
        except MemoryError:
            raise TraceError(lines.TOO_LARGE.of(path=path)) from None
        other = traces.setdefault(trace.rank, trace)
        if other is not trace:
            raise TraceError(
                lines.RANK_TWICE.of(first=other.path.name, second=path.name, rank=trace.rank)
            )
    if not traces:
        raise TraceError(lines.NO_TRACES.of(folder=folder))
    found = [traces[rank] for rank in sorted(traces)]
    _check(found, folder)
    return found


def _check(traces: list[RankTrace], folder: Path) -> None:
    first = traces[0]
    for other in traces[1:]:
        sizes = first.world_size, other.world_size
        if None not in sizes and sizes[0] != sizes[1]:
            raise TraceError(
                lines.OTHER_JOB.of(
                    first=first.path.name, size=sizes[0], second=other.path.name, other=sizes[1]
                )
            )
    if not any(trace.counted for trace in traces):
        raise TraceError(lines.NO_COLLECTIVES.of(folder=folder))


def _files(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir():
            folder.stat()
            return [folder]
        found = (each for each in folder.iterdir() if each.name.endswith(SUFFIXES))
        return sorted(each for each in found if not each.is_fifo())  # it could be waited for
    except OSError as error:
        raise TraceError(lines.CANNOT_READ.of(path=folder, why=error.strerror)) from None


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_content(path).decode(errors="replace"), strict=False)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why="its gzip data is damaged")) from None
    except OSError as error:
        raise TraceError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except RecursionError:
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why="it nests too deeply")) from None
    except ValueError as error:
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why=f"it is not JSON: {error}")) from None
    if isinstance(found, dict) and found.get("kind") == KIND:
        return found
    if not isinstance(found, dict) or not isinstance(found.get("traceEvents"), list):
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why="it has no list traceEvents"))
    return found


def _content(path: Path) -> bytearray:
    """The content of a file, unpacked.

    Parsing needs a multiple of it: raises MemoryError if it is above a quarter of this machine's.
    """
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    content = bytearray()
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if file.peek(len(_MAGIC)).startswith(_MAGIC) else file
        while piece := stream.read(_PIECE):
            content += piece
            if len(content) > most:
                raise MemoryError
    return content


def read(document: dict[str, Any], path: Path) -> RankTrace:
    """One parsed trace as plain records. Raises :class:`TraceError` for what is no trace."""
    info = document.get("distributedInfo")
    info = info if isinstance(info, dict) else {}
    try:
        events = events_of(document)
        groups = Groups(document)
        events.steps.sort(key=lambda step: step.start)
        on_gpu = bool(events.kernels)
        collectives = cpu.collectives(events, groups)
        steps = events.steps
        if on_gpu:
            collectives += gpu.collectives(events, groups)
            collectives.sort(key=lambda each: each.start)
            steps = gpu.steps(events) if steps else []
        with_operators, added = _apart(document)
        apart = [step for step in steps if step.number in with_operators]
        if apart and len(apart) < len(steps):
            steps = [step for step in steps if step.number not in with_operators]
            collectives = cpu.completed(collectives, apart)
        else:
            apart, added = [], 0
        computation = gpu.computation(events) if on_gpu else cpu.computation(events)
    except KeyError as error:
        why = f"an event has no {error}"
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why=why)) from None
    except (TypeError, ValueError, OverflowError) as error:
        why = f"an event has a value that makes no sense ({error})"
        raise TraceError(lines.NOT_A_TRACE.of(path=path, why=why)) from None
    return RankTrace(
        rank=_rank(info, path),
        world_size=count_of(info.get("world_size")),
        path=path,
        device=GPU if on_gpu else CPU,
        steps=tuple(steps) or (Step(None, *events.span),),
        computation=computation,
        copies=union(each.span for each in events.copies),
        collectives=tuple(collectives),
        without_kernel=0 if on_gpu else len(gpu.calls(events)),
        apart=tuple(apart),
        added=added,
    )


def _apart(document: dict[str, Any]) -> tuple[set[int], int]:
    """The steps that alone have operators, if `wiresum measure` has written that; what those add.

    Raises ValueError or TypeError for what it would not have written.
    """
    said = document.get(MEASURED)
    if not isinstance(said, dict):
        return set(), 0
    added = round(1000 * float(said["added_us"]))
    steps = {count_of(each) for each in said["operators"]}
    if None in steps or not 0 <= added <= LONGEST_TIME:
        raise ValueError(f"{MEASURED} is no record of steps")
    return {each for each in steps if each is not None}, added


def _rank(info: dict[str, Any], path: Path) -> int:
    rank = count_of(info.get("rank"))
    if rank is not None:
        return rank
    found = _RANK.search(path.name)
    if found is None:
        raise TraceError(lines.NO_RANK.of(path=path))
    return int(found[1])
