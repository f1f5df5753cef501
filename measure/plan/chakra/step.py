"""A job's step out of the Chakra traces of its ranks, and traces out of a job's step."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.plan.chakra import messages
from wiresum.measure.plan.errors import PlanError
from wiresum.measure.plan.spec import MEGA, JobSpec
from wiresum.measure.reading import read_at_most, shown

_RANK = re.compile(r"\.(\d+)\.et$")
_MOST_BYTES = 256 << 20
_MOST_VALUE = 1e18
_MOST_PARTS = 2_000_000
"""Nodes and dependencies of a trace: up to half a GiB of memory."""
_MOST_WRITTEN = 1 << 30
"""Bytes of a job's traces, of all ranks together."""


def steps_of(path: Path) -> dict[str, Any]:
    """What a plan needs of a job: all that its trace has counts as one step.

    ``path``: a folder of ``NAME.RANK.et``, of which the first rank's is read and all are counted;
    or one file, of a job of unknown size. Raises :class:`PlanError` in one line.
    """
    files = sorted(path.glob("*.et"), key=_rank) if path.is_dir() else [path]
    if not files:
        raise PlanError(lines.NO_CHAKRA.of(path=path))
    found = _read(files[0])
    if path.is_dir():
        found["workers"] = len(files)
    return found


def _rank(path: Path) -> tuple[int, str]:
    number = _RANK.search(path.name)
    return (int(number[1]) if number else 0, path.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        graph = _graph(read_at_most(path, _MOST_BYTES))
    except OSError as error:
        raise PlanError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except ValueError as error:
        raise PlanError(lines.NOT_CHAKRA.of(path=path, why=error)) from None
    compute = sum(graph.compute_us.values())
    if max(graph.moved, compute) > _MOST_VALUE:
        raise PlanError(lines.NOT_CHAKRA.of(path=path, why="it has a size that makes no sense"))
    return {
        "compute_ms": compute / 1e3,
        "gradient_mb": graph.moved / MEGA,
        "buckets": graph.buckets,
        "hidden_ms": _hidden_us(graph) / 1e3,
    }


@dataclass
class _Graph:
    """What a plan needs of a trace's nodes. ``first``: its first all-reduce; -1: it has none."""

    needs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    compute_us: dict[int, int] = field(default_factory=dict)
    first: int = -1
    moved: float = 0.0
    buckets: int = 0


def _graph(content: bytes) -> _Graph:
    """The nodes of a trace. Raises ``ValueError`` if no plan can be made of them."""
    graph, parts = _Graph(), 0
    for node in messages.parse(content):
        needs = (*node.data_deps, *node.ctrl_deps)
        parts += 1 + len(needs)
        if parts > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS:,} nodes and dependencies")
        graph.needs[node.id] = needs
        if node.type == messages.COMPUTE:
            graph.compute_us[node.id] = node.duration_micros
        elif node.type == messages.COLLECTIVE and _kind(node) == "all_reduce":
            graph.first = node.id if graph.first < 0 else graph.first
            size = _size(node)
            graph.moved += size
            graph.buckets += size > 0
    if not graph.buckets:
        raise ValueError("it has no all-reduce with a size")
    return graph


def _kind(node: Any) -> str:
    """Which collective a node is; all-reduce is 0, which some writers leave out."""
    number = messages.attribute(node, "comm_type") or 0
    known = isinstance(number, int) and 0 <= number < len(messages.KINDS)
    return messages.KINDS[number] if known else ""


def _size(node: Any) -> float:
    """Bytes of a collective; 0 where the trace does not say it."""
    size = messages.attribute(node, "comm_size") or 0
    if not isinstance(size, int | float) or not 0 <= size < math.inf:
        raise ValueError(f"it has comm_size = {shown(size)}: it must be a number, 0 or more")
    return float(size)


def _hidden_us(graph: _Graph) -> int:
    """The computation that no all-reduce waits for once the first one may begin.

    It is what the graph's dependencies leave to run beside communication: computing nodes that
    neither the first all-reduce nor any node before it depends on.
    """
    before: set[int] = set()
    edge = [graph.first]
    while edge:
        for each in graph.needs[edge.pop()]:
            if each in graph.needs and each not in before:
                before.add(each)
                edge.append(each)
    return sum(took for node, took in graph.compute_us.items() if node not in before)


def write_job(job: JobSpec, folder: Path) -> None:
    """Write a step as ``step.RANK.et`` for each rank: computation, and its all-reduces.

    The part that hides runs between the buckets: bucket k becomes ready after k parts of it. Raises
    :class:`PlanError` in one line.
    """
    content = _content(job)
    size = job.workers * len(content)
    if size > _MOST_WRITTEN:
        why = f"the traces of {job.workers} ranks would have {size >> 20} MiB, the most is 1,024"
        raise PlanError(lines.CANNOT_WRITE.of(path=folder, why=why))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rank in range(job.workers):
            (folder / f"step.{rank}.et").write_bytes(content)
    except OSError as error:
        raise PlanError(lines.CANNOT_WRITE.of(path=folder, why=error.strerror)) from None


def _content(job: JobSpec) -> bytes:
    written = [messages.pack(messages.Metadata(version=messages.VERSION))]
    later = job.buckets - 1
    hidden = min(job.hidden_ms, job.compute_ms) if later else 0.0
    parts = [job.compute_ms - hidden, *(hidden / later for _ in range(later))]
    number, last = 0, None
    size = round(job.gradient_bytes / job.buckets)
    for at, part in enumerate(parts):
        compute = messages.Node(
            id=number,
            name=f"compute {at}",
            type=messages.COMPUTE,
            duration_micros=round(part * 1e3),
            data_deps=[] if last is None else [last],
        )
        compute.attr.add(name="is_cpu_op", bool_val=False)
        last = number
        bucket = messages.Node(
            id=number + 1, name=f"bucket {at}", type=messages.COLLECTIVE, data_deps=[number]
        )
        bucket.attr.add(name="is_cpu_op", bool_val=False)
        bucket.attr.add(name="comm_type", int64_val=messages.KINDS.index("all_reduce"))
        bucket.attr.add(name="comm_size", int64_val=size)
        written += [messages.pack(compute), messages.pack(bucket)]
        number += 2
    return b"".join(written)
