"""A job's step out of the Chakra traces of its ranks, and traces out of a job's step."""

import re
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.plan.chakra import messages
from wiresum.measure.plan.errors import PlanError
from wiresum.measure.plan.spec import MEGA, JobSpec

_RANK = re.compile(r"\.(\d+)\.et$")
_MOST_BYTES = 1 << 30
_MOST_VALUE = 1e18


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
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than 1 GiB")
        nodes = list(messages.parse(path.read_bytes()))
    except OSError as error:
        raise PlanError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except ValueError as error:
        raise PlanError(lines.NOT_CHAKRA.of(path=path, why=error)) from None
    compute = sum(node.duration_micros for node in nodes if node.type == messages.COMPUTE)
    sums = [
        node for node in nodes if node.type == messages.COLLECTIVE and _kind(node) == "all_reduce"
    ]
    sizes = [float(messages.attribute(node, "comm_size") or 0) for node in sums]
    if not any(sizes):
        raise PlanError(lines.NOT_CHAKRA.of(path=path, why="it has no all-reduce with a size"))
    if max(*sizes, float(compute)) > _MOST_VALUE:
        raise PlanError(lines.NOT_CHAKRA.of(path=path, why="it has a size that makes no sense"))
    return {
        "compute_ms": compute / 1e3,
        "gradient_mb": sum(sizes) / MEGA,
        "buckets": sum(size > 0 for size in sizes),
        "hidden_ms": _hidden_us(nodes, sums) / 1e3,
    }


def _kind(node: Any) -> str:
    """Which collective a node is; all-reduce is 0, which some writers leave out."""
    number = messages.attribute(node, "comm_type") or 0
    return messages.KINDS[number] if 0 <= number < len(messages.KINDS) else ""


def _hidden_us(nodes: list[Any], sums: list[Any]) -> int:
    """The computation that no all-reduce waits for once the first one may begin.

    It is what the graph's dependencies leave to run beside communication: computing nodes that
    neither the first all-reduce nor any node before it depends on.
    """
    by_id = {node.id: node for node in nodes}
    before: set[int] = set()
    edge = [sums[0].id]
    while edge:
        node = by_id.get(edge.pop())
        if node is None:
            continue
        for each in (*node.data_deps, *node.ctrl_deps):
            if each not in before:
                before.add(each)
                edge.append(each)
    return sum(
        int(node.duration_micros)
        for node in nodes
        if node.type == messages.COMPUTE and node.id not in before
    )


def write_job(job: JobSpec, folder: Path) -> None:
    """Write a step as ``step.RANK.et`` for each rank: computation, and its all-reduces.

    The part that hides runs between the buckets: bucket k becomes ready after k parts of it. Raises
    :class:`PlanError` in one line.
    """
    content = _content(job)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rank in range(job.workers):
            (folder / f"step.{rank}.et").write_bytes(content)
    except OSError as error:
        raise PlanError(lines.CANNOT_WRITE.of(path=folder, why=error.strerror)) from None


def _content(job: JobSpec) -> bytes:
    written = [messages.pack(messages.Metadata(version=messages.VERSION))]
    hidden = min(job.hidden_ms, job.compute_ms) if job.buckets > 1 else 0.0
    parts = [job.compute_ms - hidden] + [hidden / (job.buckets - 1)] * (job.buckets - 1)
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
