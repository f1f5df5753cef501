"""`wiresum bench accuracy`: played workers, limits, controls."""

import json
import re
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from wiresum.host_agent.hooks.rules import Rule
from wiresum.host_agent.optim import narrow_diloco
from wiresum.measure.accuracy import glyphs, judge
from wiresum.measure.accuracy.cli import AccuracyError, kept
from wiresum.measure.accuracy.means import PowerSGD, blocks
from wiresum.measure.accuracy.methods import FLOAT32, METHODS, encoding_rate
from wiresum.measure.accuracy.play import play, rate_at
from wiresum.measure.accuracy.tasks import TASKS

TOP_K, NEAREST = "top-k:k=0.1,bits=8", "control: 2 bits, nearest"


def content(**losses: list[float]) -> dict[str, object]:
    found = {
        FLOAT32: [2.0, 2.02],
        **{name.replace("_", " "): each for name, each in losses.items()},
    }
    return {"task": "text", "workers": 4, "steps": 9, "seeds": [0, 1], "losses": found,
            "bytes": dict.fromkeys(found, 1e6), "encoding": {TOP_K: 5e8}}  # fmt: skip


def test_a_loss_is_compared_with_float32s_of_the_same_seed() -> None:
    plain = [2.0, 2.2]
    assert judge.verdict(TOP_K, [2.05, 2.25], plain) == "holds"
    assert judge.verdict(TOP_K, [2.2, 2.2], plain) == "exceeds"
    assert judge.verdict(TOP_K, [float("nan"), 2.0], plain) == "exceeds"
    assert judge.verdict("local-steps:h=8", [9.0, 9.0], plain) == ""
    assert judge.noise(plain) == pytest.approx(0.1 / 2.1)
    assert judge.doubt([0.01, 0.03]) == pytest.approx(0.01)
    assert "+2.49 % ± 2.49 |" in judge.markdown(content(**{TOP_K: [2.0, 2.1206]}))


def test_a_run_whose_controls_train_as_well_says_that_it_cannot_tell() -> None:
    failing, training = [3.0, 3.0], [2.0, 2.05]
    for own, tells in ((failing, True), (training, False)):
        made = content()
        made["losses"] |= {NEAREST: own}  # type: ignore[operator]
        made["bytes"] |= {NEAREST: 1e4}  # type: ignore[operator]
        assert judge.discriminates(made) == tells
        assert ("cannot discriminate" in judge.conclusion(made)) != tells
        assert "100.0 ×" in judge.markdown(made)
    assert not judge.discriminates(content())


def test_a_ring_carries_each_byte_almost_twice() -> None:
    assert judge.wire_ms(1e6, 2, 100) == pytest.approx(80)
    assert judge.wire_ms(1e6, 4, 1000) == pytest.approx(12)


def test_encoding_is_charged_beside_the_wire() -> None:
    made = content(**{TOP_K: [2.0, 2.0]})
    assert judge.encoding_ms(made, TOP_K) == pytest.approx(2.0)  # 1 MB at 0.5 GB/s
    assert judge.encoding_ms(made, FLOAT32) == 0.0
    head, plain, top_k = judge.table(made)
    at = head.index("wire and encoding at 1000 Mbit/s, ms")
    assert (plain[at], top_k[at]) == ("12", "14")
    rate = encoding_rate(METHODS["vote"], 2, rounds=1)
    assert rate is not None
    assert 1e6 < rate < 1e12
    assert encoding_rate(METHODS[FLOAT32], 2, rounds=1) is None


def test_powersgd_finds_a_matrix_of_its_rank_and_keeps_what_it_misses() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"w": torch.Size((40, 30))}
    low = torch.randn(40, 2, generator=generator) @ torch.randn(2, 30, generator=generator)
    mean = PowerSGD(2, shapes, 9, rank=2)
    for _ in range(5):  # two steps go as they are; the basis turns to the matrix meanwhile
        workers = [[low.clone()], [low.clone()]]
        size = mean(workers)
    assert size == 4 * 2 * (40 + 30)
    torch.testing.assert_close(workers[0][0], low, rtol=1e-3, atol=1e-3)
    one = PowerSGD(2, shapes, 9, rank=1)
    total = torch.zeros(40, 30)
    for _ in range(60):
        workers = [[low.clone()], [low.clone()]]
        one(workers)
        total += workers[0][0]
    off = (total / 60 - low).norm() / low.norm()
    assert off < 0.1  # the rank that is missing comes later


def test_the_images_are_of_all_characters_in_places_that_training_has_not_seen() -> None:
    train, validation = glyphs.load()
    for each in (train, validation):
        assert set(each.labels.tolist()) == set(range(len(glyphs.CHARACTERS)))
        assert each.images.shape[1:] == (1, glyphs.SIZE, glyphs.SIZE)
    seen = {each.numpy().tobytes() for each in train.images}
    assert not any(each.numpy().tobytes() in seen for each in validation.images)
    assert len(train.labels) > 2 * len(validation.labels)
    assert torch.equal(train.images, glyphs.load()[0].images)


@pytest.mark.parametrize("name", ["text", "glyphs"])
def test_workers_that_are_played_together_train_as_each_would_by_itself(name: str) -> None:
    workers, steps, task = 3, 4, TASKS[name]()
    orders = [torch.Generator().manual_seed(7000 + rank) for rank in range(workers)]
    torch.manual_seed(7)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters())

    def loss(inputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(inputs).flatten(0, -2), classes.flatten())

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = task.rate * rate_at(step, steps)
        optimizer.zero_grad()
        for inputs, classes in zip(*task.batches(orders), strict=True):
            (loss(inputs, classes) / workers).backward()
        optimizer.step()
    inputs, classes = task.held_out()
    alone = loss(inputs[0], classes[0]).item()
    assert play(METHODS[FLOAT32], task, workers, steps, 7).loss == pytest.approx(alone, rel=1e-4)


def test_the_rate_rises_and_then_falls_to_nothing() -> None:
    rates = [rate_at(step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert 30 < top < 80
    assert max(rates) == 1
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 1e-4
    assert 0 < rate_at(0, 1) <= 1


def test_played_workers_with_32_bits_have_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"a": torch.Size((50, 40)), "b": torch.Size((7,))}
    workers = [
        [torch.randn(shape, generator=generator) for shape in shapes.values()] for _ in "123"
    ]
    wanted = [torch.stack(each).mean(0) for each in zip(*workers, strict=True)]
    mean = blocks(Rule())(3, shapes, 1)
    assert mean(workers) == 4 * (9 + 2007 + 1)
    for found, each in zip(workers[0], wanted, strict=True):
        torch.testing.assert_close(found, each)


def test_the_command_compares_trainings_and_writes_them(cli, tmp_path) -> None:
    names = f"block-float:bits=32;{NEAREST}"
    done = cli.run(
        "bench", "accuracy", "--methods", names, "--workers", "2", "--steps", "4", "--seeds", "2",
        "--json", "a.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "a.json").read_text())
    assert list(made["losses"]) == [FLOAT32, *names.split(";")]
    assert made["losses"]["block-float:bits=32"] == pytest.approx(made["losses"][FLOAT32], rel=1e-4)
    assert done.stdout == judge.markdown(made)
    again = play(METHODS[FLOAT32], TASKS["text"](), 2, 4, 1)
    assert again.loss == pytest.approx(made["losses"][FLOAT32][1])
    assert again.bytes_per_step == made["bytes"][FLOAT32]

    made["losses"]["block-float:bits=32"] = [0.25, 0.5]
    (tmp_path / "a.json").write_text(json.dumps(made))
    more = cli.run(
        "bench", "accuracy", "--methods", names, "--workers", "2", "--steps", "4", "--seeds", "2",
        "--json", "a.json",
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert json.loads((tmp_path / "a.json").read_text()) == made  # nothing is trained again
    for options, words in (
        (("--task", "image"), "there is no task 'image'; there are text, glyphs"),
        (("--steps", "5", "--json", "a.json"), "a.json is of another training"),
    ):
        refused = cli.run("bench", "accuracy", *options)
        assert refused.returncode != 0
        assert words in refused.stderr
    refused = cli.run("bench", "accuracy", "--methods", "best")
    assert refused.returncode != 0
    assert "there is no method 'best'" in refused.stderr
    own = ", ".join(f"{name} {task().steps}" for name, task in TASKS.items())
    shown = cli.run("bench", "accuracy", "--help").stdout
    assert f"[default: {own}]" in " ".join(shown.split())


def test_a_poor_file_ends_the_command_in_one_line(cli, tmp_path) -> None:
    good = {
        "kind": judge.KIND, "version": judge.VERSION, "task": "text", "workers": 2, "steps": 4,
        "seeds": [0], "losses": {FLOAT32: [2.0, float("nan")]}, "bytes": {FLOAT32: 1e6},
        "encoding": {FLOAT32: None},
    }  # fmt: skip
    assert judge.checked(json.loads(json.dumps(good))) is not None
    for changes, words in (
        ({"kind": "engine"}, "it is not of kind 'wiresum accuracy'"),
        ({"version": judge.VERSION + 1}, "it is not of kind"),
        ({"workers": "2"}, "'workers' is missing, or no int"),
        ({"seeds": None}, "'seeds' is missing"),
        ({"losses": [1.0]}, "'losses' is missing, or no table"),
        ({"losses": {"best": [1.0]}}, "'losses' has 'best', which is no method"),
        ({"losses": {FLOAT32: "good"}}, "'losses' of 'float32' is good"),
        ({"losses": {FLOAT32: [None]}}, "'losses' of 'float32' is [None]"),
        ({"bytes": {FLOAT32: 0}}, "'bytes' of 'float32' is 0"),
        ({"bytes": {}}, "'bytes' has nothing of 'float32'"),
        ({"encoding": {FLOAT32: "fast"}}, "'encoding' of 'float32' is fast"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            judge.checked(json.loads(json.dumps(good | changes)))
    file = tmp_path / "a.json"
    for text in ("[]", "{", "[" * 100_000, json.dumps(good | {"bytes": []})):
        file.write_text(text)
        with pytest.raises(AccuracyError, match="is no file of bench accuracy"):
            kept(file, {})
    file.write_bytes(b"\xff")
    refused = cli.run("bench", "accuracy", "--json", "a.json")
    assert refused.returncode != 0
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "a.json is no file of bench accuracy" in refused.stderr


def test_the_page_has_the_tables_of_the_kept_runs() -> None:
    docs = Path(__file__).parents[3] / "docs"
    files = sorted((docs / "accuracy").glob("*.json"))
    assert len(files) >= 2
    for file in files:
        kept = json.loads(file.read_text())
        assert judge.markdown(kept) in (docs / "accuracy.md").read_text(), file
        assert judge.discriminates(kept)


def test_the_row_of_the_preset_has_the_presets_own_numbers() -> None:
    row = METHODS["diloco:h=32,bits=8"]
    own = {name: each.default for name, each in signature(narrow_diloco).parameters.items()}
    assert (own["lr"], own["momentum"]) == row.outer
    assert (own["sync_every"], own["bits"]) == (row.every, 8)


def test_local_methods_synchronize_every_so_many_steps_and_in_the_end() -> None:
    text = TASKS["text"]()
    plain = play(METHODS[FLOAT32], text, 2, 10, 0)
    local = play(METHODS["local-steps:h=8"], text, 2, 10, 0)
    assert local.bytes_per_step == plain.bytes_per_step * 2 / 10
    assert local.loss < 5.0  # of 4.6 before the first step, about
