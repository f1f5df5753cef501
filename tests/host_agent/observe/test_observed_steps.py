"""Which steps of a training are recorded, and that an observer never disturbs the training."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from wiresum.host_agent.observe.observer import Observer  # noqa: E402
from wiresum.host_agent.observe.schedule import Phase, Schedule, Took  # noqa: E402


@given(wanted=st.integers(1, 50), steps=st.integers(0, 200))
def test_the_wanted_steps_are_recorded_between_steps_that_are_only_timed(wanted, steps):
    schedule = Schedule(wanted)
    phases = []
    for number in range(steps):
        phases.append(schedule.phase)
        schedule.step_ended(Took(float(number), 0.0))
    assert schedule.seen == steps
    assert schedule.took(Phase.RECORDED) == [
        Took(float(at), 0.0) for at, phase in enumerate(phases) if phase is Phase.RECORDED
    ]
    if steps >= schedule.needed:
        assert phases.count(Phase.RECORDED) == wanted
        assert phases.count(Phase.BEFORE) == phases.count(Phase.AFTER) == schedule.around
        assert schedule.phase is Phase.OVER
    else:
        assert schedule.phase is not Phase.OVER


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)


def test_only_the_first_optimizers_steps_count_and_then_those_of_the_next_one(tmp_path):
    observer = Observer(tmp_path, 1)
    first, second = optimizer(), optimizer()
    for each in (first, second, first, second):
        observer.optimizer_stepped(each)
    del first, each
    observer.optimizer_stepped(second)
    observer.finish()
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text())["steps"]["seen"] == 3


def test_a_folder_that_cannot_be_made_is_nothing_to_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    observer = Observer(tmp_path / "file" / "folder", 1)
    made = optimizer()
    for _ in range(20):
        observer.optimizer_stepped(made)
    observer.finish()


def test_a_profiler_that_fails_is_told_and_nothing_to_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: 1 / 0)
    observer = Observer(tmp_path, 1)
    made = optimizer()
    for _ in range(20):
        observer.optimizer_stepped(made)
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text())["failed"].startswith("ZeroDivisionError")


def own_profiler() -> torch.profiler.profile:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


@pytest.mark.parametrize("from_step", [3, 8])
def test_the_scripts_own_profiler_works_and_the_rank_says_that_it_cannot_be_recorded(
    tmp_path, from_step
):
    observer = Observer(tmp_path, 5)
    made = optimizer()
    for step in range(40):
        if step == from_step:
            profiler = own_profiler()
            profiler.start()
        torch.ones(3) + 1
        observer.optimizer_stepped(made)
        if step == from_step + 6:
            profiler.stop()
    assert "aten::add" in {event.name for event in profiler.events()}
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text())["failed"].startswith("ProfilerTaken: the script")
    with own_profiler() as again:
        torch.ones(3) + 1
    assert again.events()


def test_a_profiler_of_the_script_that_warms_up_is_left_alone(tmp_path):
    observer = Observer(tmp_path, 5)
    made = optimizer()
    wanted = torch.profiler.schedule(wait=4, warmup=3, active=3, repeat=1)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, schedule=wanted) as profiler:
        for _ in range(12):
            torch.ones(3) + 1
            observer.optimizer_stepped(made)
            profiler.step()
    assert "aten::add" in {event.name for event in profiler.events()}
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text())["failed"].startswith("ProfilerTaken: the script")


def test_a_process_without_steps_writes_nothing(tmp_path):
    Observer(tmp_path, 1).finish()
    assert not list(tmp_path.iterdir())
