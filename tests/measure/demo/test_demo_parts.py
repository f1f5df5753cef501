"""The demo's parts: the check of the switch's counters, the byte counts, the model."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest
import torch

from wiresum.common.tcp import tcp_bytes, with_headers
from wiresum.measure.demo.model import CharacterTransformer
from wiresum.measure.demo.results import DemoError, Training, read, verify
from wiresum.measure.demo.show import OutputError, as_json, write_json, write_plot
from wiresum.measure.demo.text import load, windows

WORKERS = 3
STEPS = 5
CHUNKS = 40


def training(**changes: object) -> Training:
    made = Training(
        backend="wiresum",
        seconds=1.0,
        losses=[3.0, 2.0],
        train_loss=2.0,
        validation_loss=2.5,
        parameters=10,
        same_weights=True,
        switch_bytes=100.0,
        tcp_bytes=10.0,
        switch_collectives={"all_reduce": STEPS + 2},
        fallback_collectives={"broadcast": {"the tensor is quantized": 4}},
        engines=[{"contributions": CHUNKS, "results": CHUNKS} for _ in range(WORKERS)],
        events={"claimed": CHUNKS, "added": (WORKERS - 1) * CHUNKS, "completed": CHUNKS},
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_counters_that_add_up_pass() -> None:
    verify(training(), WORKERS, STEPS)


EVENTS = dict(training().events)
ENGINES = training().engines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"events": {}}, "completed 0"),
        ({"events": EVENTS | {"completed": CHUNKS - 1}}, "completed 39"),
        ({"events": EVENTS | {"completed": CHUNKS + 1}}, "completed 41"),
        ({"events": EVENTS | {"added": 1}}, "summed 41 contributions"),
        ({"events": EVENTS | {"claimed": CHUNKS + 1}}, "summed 121 contributions"),
        ({"engines": ENGINES[1:]}, "2 of 3 workers used the switch"),
        ({"engines": [*ENGINES[1:], {"contributions": 39, "results": 40}]}, "rank 2 sent 39"),
        ({"engines": [*ENGINES[1:], {"contributions": 40, "results": 39}]}, "39 results"),
        ({"fallback_collectives": {"all_reduce": {"dtype": 1}}}, "did not go through the switch"),
        ({"fallback_collectives": {"all_reduce_coalesced": {"x": 1}}}, "did not go through"),
        ({"switch_collectives": {"all_reduce": STEPS - 1}}, "only 4 all-reduces"),
        ({"switch_collectives": {}}, "only 0 all-reduces"),
        ({"same_weights": False}, "weights differ"),
    ],
)
def test_counters_that_do_not_add_up_are_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DemoError, match=message) as caught:
        verify(training(**changes), WORKERS, STEPS)
    assert "\n" not in str(caught.value)


def test_reports_of_the_workers_are_put_together(tmp_path: Path) -> None:
    for rank in range(2):
        report = {
            "losses": [4.0 + rank, 2.0],
            "train_loss": 2.0,
            "validation_loss": 2.1,
            "parameters": 7,
            "weights": f"hash {rank}",
            "bytes_per_step": {"switch": 100.0 * (rank + 1), "tcp": 1448.0},
            "stats": {"switch": {"all_reduce": 2}, "fallback": {}, "engine": {"results": 3}},
        }
        (tmp_path / f"rank{rank}.json").write_text(json.dumps(report))
    made = read("wiresum", tmp_path, 2, 1.5, {"completed": 3})
    assert made.losses == [4.5, 2.0]
    assert not made.same_weights
    assert made.wire_bytes == 150.0 + 1448 + 66
    assert len(made.engines) == 2
    with pytest.raises(DemoError, match="rank 2 of the wiresum training left no report"):
        read("wiresum", tmp_path, 3, 1.5, {})


def test_tcp_bytes_are_counted_on_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as near, server.accept()[0] as far:
            before = sum(tcp_bytes([]))
            near.sendall(b"x" * 5000)
            received = 0
            while received < 5000:
                received += len(far.recv(5000))
            far.sendall(b"y")  # carries the acknowledgement
            assert near.recv(1) == b"y"
            assert sum(tcp_bytes([])) - before in (
                10_001,
                10_002,
            )  # the last byte may be unacknowledged
            assert sum(tcp_bytes([port])) <= before
    assert with_headers(1448) == 1448 + 66


def test_the_text_is_there_and_its_parts_do_not_overlap() -> None:
    corpus = load()
    assert len(corpus.train) > 300_000
    assert 20_000 < len(corpus.validation) < len(corpus.train) / 4
    assert int(corpus.train.max()) < corpus.characters < 128
    assert int(corpus.validation.max()) < corpus.characters
    inputs, targets = windows(corpus.train, torch.tensor([0, 50]), 10)
    assert inputs.shape == targets.shape == (2, 10)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_the_model_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    model = CharacterTransformer(characters=20, length=16).eval()
    text = torch.randint(20, (1, 16))
    changed = text.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 20
    before, after = model(text), model(changed)
    assert before.shape == (1, 16, 20)
    assert torch.allclose(before[0, :10], after[0, :10], atol=1e-6)
    assert not torch.allclose(before[0, 10:], after[0, 10:], atol=1e-3)


def test_files_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    content = as_json(training(), training(), workers=3, steps=5, field=32, seed=1)
    with pytest.raises(OutputError, match=r"cannot write .*x\.json"):
        write_json(tmp_path / "file" / "x.json", content)
    with pytest.raises(OutputError, match=r"cannot write .*x\.png"):
        write_plot(tmp_path / "file" / "x.png", training(), training(), 32)
