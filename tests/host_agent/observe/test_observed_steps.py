"""Which steps of a training are recorded, and that an observer never disturbs the training."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from wiresum.host_agent.observe.observer import Observer  # noqa: E402
from wiresum.host_agent.observe.schedule import Phase, Schedule, Took  # noqa: E402
from wiresum.measure.traces.load import load  # noqa: E402


@given(wanted=st.integers(1, 50), steps=st.integers(0, 200), apart=st.booleans())
def test_the_wanted_steps_are_recorded_between_steps_that_are_only_timed(wanted, steps, apart):
    schedule = Schedule(wanted)
    phases = []
    for number in range(steps):
        phases.append(schedule.phase)
        ended, following = schedule.step_ended(Took(float(number), 0.0))
        if ended is Phase.OPERATORS and following is not ended:
            schedule.apart = apart
    assert schedule.seen == steps
    last = len(phases) - 1 - phases[::-1].index(Phase.RECORDED) if Phase.RECORDED in phases else 0
    kinds = {Phase.RECORDED} if apart and last else {Phase.OPERATORS, Phase.RECORDED}
    assert schedule.recorded == [
        Took(float(at), 0.0) for at, phase in enumerate(phases) if phase in kinds
    ]
    if steps >= schedule.needed:
        assert len(schedule.recorded) == wanted
        assert phases.count(Phase.OPERATORS) == min(3, wanted)
        assert phases.count(Phase.STARTING) == (2 if apart else 1)
        assert phases.count(Phase.BEFORE) == phases.count(Phase.AFTER) == schedule.around
        assert schedule.phase is Phase.OVER
    else:
        assert schedule.phase is not Phase.OVER


@given(st.floats(1e-3, 1e3), st.floats(0.0, 0.5))
def test_operators_cost_much_where_they_add_more_than_two_hundredths_of_a_step(step, share):
    schedule = Schedule(10)
    while schedule.phase is not Phase.OPERATORS:
        schedule.step_ended(Took(step, step / 2))
    assert not schedule.operators_cost_much
    for _ in range(3):  # other programs make the step itself long
        schedule.step_ended(Took(9 * step, step / 2 + share * step))
    assert schedule.operators_cost_much == (share > 0.02) or share == pytest.approx(0.02)


@pytest.mark.parametrize("much", [True, False])
def test_where_operators_cost_much_the_figures_are_of_steps_that_record_none(
    tmp_path, monkeypatch, much
):
    import torch.distributed as dist

    monkeypatch.setattr(Schedule, "operators_cost_much", much)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        observer = Observer(tmp_path, 4)
        made = optimizer()
        for _ in range(30):
            torch.ones(3) + 1
            dist.all_reduce(torch.ones(100))
            observer.optimizer_stepped(made)
    finally:
        dist.destroy_process_group()
    assert "failed" not in json.loads((tmp_path / "rank0.observed").read_text())
    trace = json.loads((tmp_path / "rank0.json").read_text())
    [steps] = [
        {
            int(each["name"].partition("#")[2]): (each["ts"], each["ts"] + each["dur"])
            for each in trace["traceEvents"]
            if each["name"].startswith("ProfilerStep#") and each.get("cat") == "user_annotation"
        }
    ]
    apart = trace.get("wiresum", {}).get("operators", [])
    assert len(apart) == (3 if much else 0)
    assert len(steps) == (3 + 4 if much else 4)
    for number, (begin, end) in steps.items():
        inside = [
            each["name"]
            for each in trace["traceEvents"]
            if each.get("ph") == "X" and begin <= each["ts"] <= end
        ]
        assert "gloo:all_reduce" in inside
        assert ("aten::add" in inside) == (number in apart or not much)
    [found] = load(tmp_path)
    assert len(found.steps) == 4
    assert {each.size for each in found.counted} == {400}


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
