"""The rules of a trial: the target, early ends, the least volume; and losses in a text."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.trial.folder import Folder
from wiresum.measure.trial.judge import cannot_win, judge, least
from wiresum.measure.trial.losses import Output, tail_mean
from wiresum.measure.trial.options import LOSS_PATTERN, Target, TrialOptions, chosen, share_of
from wiresum.measure.trial.outcome import FAILED, FINISHED, STOPPED, Outcome
from wiresum.measure.trial.report import as_json, report_of
from wiresum.measure.trial.run import command_of
from wiresum.measure.trial.show import how_to
from wiresum.measure.trial.trial import Trial


def ran(remedy: str, *losses: float, ms: float = 10.0, size: float = 100.0) -> list[Outcome]:
    """Runs of a remedy, one seed for each loss."""
    return [
        Outcome(
            remedy, seed, FINISHED, steps=50, world=2, step_ms=[ms] * 20, bytes_per_step=size,
            losses=[loss] * 50, loss=loss,
        )
        for seed, loss in enumerate(losses)
    ]  # fmt: skip


def test_a_loss_is_compared_with_the_plain_runs_of_the_same_seed():
    plain = ran("gloo", 1.0, 2.0, 3.0)
    near, far = ran("fp16", 1.005, 2.01, 3.015), ran("fp16", 1.02, 2.05, 3.0)
    assert judge(near, plain, Target(0.01)).outcome == "meets"
    assert judge(far, plain, Target(0.01)).outcome == "misses"
    assert judge(far, plain, Target(loss=2.05)).outcome == "meets"
    assert judge(plain, plain, Target(0.0)).outcome == "meets"


def test_a_negative_loss_gets_better_downwards():
    plain = ran("gloo", -2.0)
    assert judge(ran("fp16", -2.5), plain, Target(0.01)).outcome == "meets"
    assert judge(ran("fp16", -1.9), plain, Target(0.01)).outcome == "misses"


def test_a_run_that_failed_or_lost_its_loss_meets_no_target():
    plain = ran("gloo", 1.0)
    failed = [Outcome("fp16", 0, FAILED, "the script uses no DDP")]
    assert judge(failed, plain, Target()).outcome == "failed"
    for wrong in (math.nan, math.inf):
        assert judge(ran("fp16", wrong), plain, Target()).outcome == "misses"


def test_a_report_with_a_seed_whose_loss_is_infinite_is_json():
    trial = Trial(TrialOptions(["x"], chosen(["fp16"], switch=False), Target(), 50, 3, Path()))
    trial.runs["gloo"] = ran("gloo", 1.0, 2.0, math.inf)
    assert json.dumps(as_json(report_of(trial)), allow_nan=False)


def test_of_alike_volumes_the_shorter_step_wins():
    runs = {
        "gloo": ran("gloo", 1.0, size=200),
        "fp16": ran("fp16", 1.0, ms=9, size=100.5),
        "ranks-16": ran("ranks-16", 1.0, ms=12, size=100),
        "ranks-8": ran("ranks-8", 1.5, size=50),
    }
    verdicts = {name: judge(each, runs["gloo"], Target()) for name, each in runs.items()}
    assert least(runs, verdicts) == "fp16"


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.tuples(
    st.floats(0.9, 1.1), st.floats(1, 1e9), st.floats(0.1, 1e3))))  # fmt: skip
def test_nothing_that_meets_the_target_has_clearly_less_volume_than_the_least(found):
    runs = {"gloo": ran("gloo", 1.0, size=1e9)}
    runs |= {name: ran(name, loss, ms=ms, size=size) for name, (loss, size, ms) in found.items()}
    verdicts = {name: judge(each, runs["gloo"], Target(0.05)) for name, each in runs.items()}
    winner = least(runs, verdicts)
    assert winner is not None
    assert verdicts[winner].outcome == "meets"
    sizes = [runs[n][0].bytes_per_step for n, v in verdicts.items() if v.outcome == "meets"]
    assert runs[winner][0].bytes_per_step <= 1.01 * min(sizes)


def look(**changes):
    known = {
        "seen": [1.0] * 30, "plain": ran("gloo", 1.0)[0], "target": Target(),
        "step_ms": [10.0] * 20, "bytes_per_step": 100.0, "winner": ran("ranks-8", 1.0, ms=5),
    }  # fmt: skip
    return cannot_win(**(known | changes))


def test_a_run_ends_early_only_if_it_cannot_win():
    assert "slower than ranks-8" in look()
    assert look(bytes_per_step=90.0) is None
    assert look(step_ms=[4.0] * 20) is None
    assert look(step_ms=[10.0] * 9) is None
    assert look(bytes_per_step=None) is None
    assert look(winner=()) is None


def test_a_run_whose_loss_is_far_off_ends_early_after_half_of_its_losses():
    alone = {"winner": ()}
    assert "% above" in look(seen=[1.2] * 30, **alone)
    assert look(seen=[1.2] * 20, **alone) is None
    assert look(seen=[1.05] * 30, **alone) is None
    assert "no number" in look(seen=[1.0, math.nan], **alone)
    assert look(seen=[9.0] * 30, plain=None) is None  # the plain run itself
    assert look(seen=[9.0] * 90, **alone) is None  # more losses than gloo's 50


def test_few_bytes_run_first_so_that_others_can_end_early():
    names = [remedy.name for remedy in chosen([], switch=False)]
    assert names == [
        *("gloo", "powersgd", "sparse-loco", "top-k", "local-steps"),
        *("ranks-8", "fp16", "ranks-16", "ranks-32"),
    ]
    assert [remedy.name for remedy in chosen(["fp16"], switch=False)] == ["gloo", "fp16"]
    assert chosen(["switch-8"], switch=True)[-1].name == "switch-8"


def test_the_command_line_to_train_with_has_the_controller_of_the_trial():
    remedies = chosen(["switch-8"], switch=True)
    options = TrialOptions(["train"], remedies, Target(), 50, 1, Path(), controller="there:7500")
    trial = Trial(options, {"gloo": ran("gloo", 1.0), "switch-8": ran("switch-8", 1.0, size=9.0)})
    command = how_to(report_of(trial))
    assert command == (
        "wiresum run --as-default --carrier switch --field 8 --controller there:7500 -- train"
    )
    assert command_of(remedies[-1], options)[-10:] == ["run", *command.split()[2:]]


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("0.02", 0.02)])
def test_a_share_is_a_percentage_or_a_number(text, share):
    assert share_of(text) == pytest.approx(share)


def test_losses_are_found_in_what_scripts_print(tmp_path: Path):
    path = tmp_path / "output"
    path.write_text("epoch 1 loss 2.5\n[3/9] Loss: 2.25 acc 0.1\rtrain loss=1e0, lossless 7\nlos")
    output = Output(path, LOSS_PATTERN)
    output.read()
    with path.open("a") as file:
        file.write("s loss = nan\nLoss 0.5")
    output.read()
    assert output.losses[:3] == [2.5, 2.25, 1.0]
    assert math.isnan(output.losses[3])
    assert len(output.losses) == 4  # the last line is not whole yet


def test_a_line_without_end_is_not_kept_and_a_long_one_is_searched_at_its_end(tmp_path: Path):
    path = tmp_path / "output"
    output = Output(path, r"(?:.*,)*.*loss (\d+)")  # takes long on long lines
    path.write_text("loss 1" + "." * 1_000_000)
    output.read()
    with path.open("a") as file:
        file.write(" loss 2\n")
    output.read()
    assert output.losses == [2.0]


def test_the_line_of_a_failure_is_the_exceptions(tmp_path: Path):
    path = tmp_path / "output"
    path.write_text(
        "Traceback\n  File x\n[rank1]: ValueError: bad shape\nE0101 torch failed\n====\n"
    )
    assert Output(path, LOSS_PATTERN).last_line() == "[rank1]: ValueError: bad shape"
    path.write_text("\x1b[2J\x1b]0;gone\x07")
    assert Output(path, LOSS_PATTERN).last_line() == r"\x1b[2J\x1b]0;gone\x07"


def test_the_loss_of_a_run_is_the_mean_over_its_last_fifth():
    assert tail_mean([9.0] * 8 + [1.0, 3.0]) == 2.0
    assert tail_mean([4.0]) == 4.0


def test_an_outcome_survives_the_way_through_a_file():
    for how, loss in ((FINISHED, 1.5), (FINISHED, math.nan), (STOPPED, None)):
        made = Outcome("a", 1, how, step_ms=[1.5], losses=[1.0, math.nan], loss=loss)
        back = Outcome.of_json(json.loads(json.dumps(made.as_json(), allow_nan=False)))
        assert repr(back) == repr(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "{}",
        "[" * 100_000,
        *(
            json.dumps(ran("gloo", 1.0)[0].as_json() | {"target": "t"} | wrong)
            for wrong in (
                {"remedy": "fp16"}, {"seed": 1}, {"loss": None}, {"loss": "low"}, {"losses": 1},
                {"step_ms": ["10"]}, {"step_ms": [math.nan]}, {"bytes_per_step": {}}, {"more": 1},
            )
        ),
    ],
)  # fmt: skip
def test_a_run_whose_file_is_damaged_is_made_again(tmp_path: Path, text: str):
    options = TrialOptions(["x"], chosen(["fp16"], switch=False), Target(), 50, 1, tmp_path)
    folder = Folder(options)
    folder.of_run("gloo", 0).mkdir()
    folder.keep(ran("gloo", 1.0)[0])
    assert folder.kept("gloo", 0) is not None
    (folder.of_run("gloo", 0) / "outcome.json").write_text(text)
    assert folder.kept("gloo", 0) is None
