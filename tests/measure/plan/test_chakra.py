"""Chakra traces: the bytes of its format, read and written."""

from dataclasses import replace

import pytest

from wiresum.measure.plan.chakra import messages, step
from wiresum.measure.plan.chakra.step import steps_of, write_job
from wiresum.measure.plan.errors import PlanError
from wiresum.measure.plan.spec import JobSpec

JOB = JobSpec("job", 4, compute_ms=100, gradient_mb=40, buckets=5, hidden_ms=80)


# ---- an encoder of its own, by the numbers of et_def.proto


def varint(value: int) -> bytes:
    head = bytearray()
    while value >= 0x80:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def node(at: int, kind: int, micros: int = 0, deps: tuple[int, ...] = (), **attributes: int):
    packed = b"".join(map(varint, deps))
    attrs = b"".join(
        text(10, text(1, name.encode()) + number(9, value)) for name, value in attributes.items()
    )
    inside = number(1, at) + text(2, b"op") + number(3, kind) + text(5, packed)
    return inside + number(6, 5) + number(7, micros) + text(8, text(1, b"[]")) + attrs


def file(*nodes: bytes) -> bytes:
    return b"".join(varint(len(each)) + each for each in (text(1, b"0.0.4"), *nodes))


COMP, COLL = 4, 7


def test_a_trace_of_another_writer_is_read(tmp_path):
    """Two buckets; 30 ms of the backward pass run beside the first."""
    content = file(
        node(1, COMP, 50_000),
        node(2, COLL, deps=(1,), comm_type=0, comm_size=1 << 20),
        node(3, COMP, 30_000, deps=(1,)),
        node(4, COLL, deps=(3,), comm_type=0, comm_size=3 << 20),
        node(5, COLL, deps=(3,), comm_type=2, comm_size=9 << 20),
        node(6, 5, deps=(3,), comm_size=9 << 20),
    )
    for rank in (10, 2, 0):
        (tmp_path / f"llm.{rank}.et").write_bytes(content)
    assert steps_of(tmp_path) == {
        "workers": 3, "compute_ms": 80.0, "gradient_mb": 4 * 1.048576, "buckets": 2,
        "hidden_ms": 30.0,
    }  # fmt: skip
    assert "workers" not in steps_of(tmp_path / "llm.0.et")


def test_what_is_written_is_read_as_the_same_job(tmp_path):
    write_job(JOB, tmp_path / "new")
    assert len(list((tmp_path / "new").glob("step.*.et"))) == 4
    found = steps_of(tmp_path / "new")
    assert found == pytest.approx(
        {"workers": 4, "compute_ms": 100, "gradient_mb": 40, "buckets": 5, "hidden_ms": 80}
    )


def test_a_job_of_one_bucket_is_written(tmp_path):
    write_job(replace(JOB, buckets=1), tmp_path)
    found = steps_of(tmp_path)
    assert (found["compute_ms"], found["buckets"], found["hidden_ms"]) == (100, 1, 0)


def test_what_is_written_has_the_bytes_of_the_format(tmp_path):
    write_job(JOB, tmp_path)
    content = (tmp_path / "step.0.et").read_bytes()
    metadata = text(1, b"0.0.4")
    assert content.startswith(varint(len(metadata)) + metadata)
    nodes = list(messages.parse(content))
    assert [each.type for each in nodes] == [COMP, COLL] * 5
    assert messages.attribute(nodes[1], "comm_size") == 8_000_000
    assert messages.attribute(nodes[1], "comm_type") == 0
    assert text(10, text(1, b"comm_size") + number(9, 8_000_000)) in content
    assert all(set(each.data_deps) <= {other.id for other in nodes[:at]}
               for at, each in enumerate(nodes))  # fmt: skip


BAD = {
    "nothing": (b"", "it is empty"),
    "a cut length": (b"\xff", "ends within a length"),
    "a cut message": (b"\x05ab", "ends within a message"),
    "no node": (file(b"\xff\xff\xff"), "is no node"),
    "no all-reduce": (file(node(1, COMP, 5)), "no all-reduce with a size"),
    "an absurd size": (
        file(node(1, COLL, comm_type=0, comm_size=(1 << 63) - 1)), "makes no sense",
    ),
    "a negative size": (
        file(node(1, COLL, comm_type=0, comm_size=(1 << 64) - 5)), "comm_size = -5: it must be",
    ),
    "a size that is a text": (
        file(number(3, COLL) + text(10, text(1, b"comm_size") + text(29, b"big"))), "= 'big': it",
    ),
    "a kind that is a text": (
        file(number(3, COLL) + text(10, text(1, b"comm_type") + text(29, b"0"))), "no all-reduce",
    ),
    "an absurd length": (varint(1 << 40), "larger than 16 MiB"),
}  # fmt: skip


def test_dependencies_in_a_circle_or_on_nothing_are_read(tmp_path):
    content = file(
        node(1, COMP, 5_000, deps=(2, 1, 77)),
        node(2, COLL, deps=(1, 2), comm_size=1 << 20),
        node(3, COMP, 7_000, deps=(3,)),
    )
    (tmp_path / "a.0.et").write_bytes(content)
    found = steps_of(tmp_path)
    assert (found["compute_ms"], found["hidden_ms"]) == (12, 7)


def test_a_trace_with_too_many_nodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "_MOST_PARTS", 3)
    (tmp_path / "a.0.et").write_bytes(file(*[node(1, COMP)] * 4))
    with pytest.raises(PlanError, match="more than 3 nodes and dependencies"):
        steps_of(tmp_path)


@pytest.mark.parametrize("fault", BAD)
def test_other_files_are_refused_by_name(tmp_path, fault):
    content, words = BAD[fault]
    path = tmp_path / "a.0.et"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=words):
        steps_of(path)


def test_a_folder_without_traces_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"has no \*\.et"):
        steps_of(tmp_path)
    with pytest.raises(PlanError, match="cannot read"):
        steps_of(tmp_path / "none.et")
