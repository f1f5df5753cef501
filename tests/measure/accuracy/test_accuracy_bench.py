"""`wiresum bench accuracy`: played workers, limits, controls."""

import json
from pathlib import Path

import pytest
import torch

from wiresum.host_agent.hooks.rules import Rule
from wiresum.measure.accuracy import judge
from wiresum.measure.accuracy.methods import FLOAT32, METHODS, blocks
from wiresum.measure.accuracy.play import play
from wiresum.measure.demo.text import load

TOP_K, NEAREST = "top-k:k=0.1,bits=8", "control: 2 bits, nearest"


def content(**losses: list[float]) -> dict[str, object]:
    found = {
        FLOAT32: [2.0, 2.02],
        **{name.replace("_", " "): each for name, each in losses.items()},
    }
    return {"workers": 4, "steps": 9, "seeds": [0, 1], "losses": found,
            "bytes": dict.fromkeys(found, 1e6)}  # fmt: skip


def test_a_loss_is_compared_with_float32s_of_the_same_seed() -> None:
    plain = [2.0, 2.2]
    assert judge.verdict(TOP_K, [2.05, 2.25], plain) == "holds"
    assert judge.verdict(TOP_K, [2.2, 2.2], plain) == "exceeds"
    assert judge.verdict(TOP_K, [float("nan"), 2.0], plain) == "exceeds"
    assert judge.verdict("local-steps:h=8", [9.0, 9.0], plain) == ""
    assert judge.noise(plain) == pytest.approx(0.1 / 2.1)


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


def test_played_workers_with_32_bits_have_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"a": torch.Size((50, 40)), "b": torch.Size((7,))}
    workers = [
        [torch.randn(shape, generator=generator) for shape in shapes.values()] for _ in "123"
    ]
    wanted = [torch.stack(each).mean(0) for each in zip(*workers, strict=True)]
    mean = blocks(Rule())(3, shapes)
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
    again = play(METHODS[FLOAT32], load(), 2, 4, 1)
    assert again == (pytest.approx(made["losses"][FLOAT32][1]), made["bytes"][FLOAT32])
    refused = cli.run("bench", "accuracy", "--methods", "best")
    assert refused.returncode != 0
    assert "there is no method 'best'" in refused.stderr


def test_the_page_has_the_table_of_the_kept_run() -> None:
    docs = Path(__file__).parents[3] / "docs"
    kept = json.loads((docs / "accuracy" / "played.json").read_text())
    assert judge.markdown(kept) in (docs / "accuracy.md").read_text()
    assert judge.discriminates(kept)


def test_local_methods_synchronize_every_so_many_steps() -> None:
    corpus = load()
    _, plain = play(METHODS[FLOAT32], corpus, 2, 8, 0)
    loss, size = play(METHODS["local-steps:h=8"], corpus, 2, 8, 0)
    assert size == plain / 8
    assert loss < 5.0  # of 4.6 before the first step, about
