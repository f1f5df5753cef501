"""Local SGD and DiLoCo over the ranks and over the switch; what they refuse."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from support.torchruns import clean_environment, fresh_session, spawn
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.hooks.state import TopK, Vote
from wiresum.host_agent.optim import (
    DelayedGradients,
    DiLoCo,
    Drift,
    LocalSGD,
    Pace,
    sparse_loco,
)
from wiresum.host_agent.optim.diloco import _split
from wiresum.host_agent.optim.periodic import shares

SCRIPT = Path(__file__).with_name("local_steps.py")
WORKERS = 3
SCENARIOS = 28


def passed(folder: Path, env: dict[str, str]) -> list[str]:
    """What was shown, the same on all ranks; with digests of parameters."""
    folder.mkdir()
    ended = spawn(SCRIPT, str(folder), workers=WORKERS, env=env)
    assert ended.status == 0, ended.output
    shown = {path.name: path.read_text().splitlines() for path in folder.iterdir()}
    assert sorted(shown) == [str(rank) for rank in range(WORKERS)]
    first = shown["0"]
    assert all(each == first for each in shown.values())
    assert len(first) == SCENARIOS
    return first


def test_ranks_train_as_the_definition_says_with_the_same_bits_over_all_carriers(
    tmp_path: Path,
) -> None:
    by_ranks = passed(tmp_path / "ranks", clean_environment() | {"WIRESUM_CARRIER": "ranks"})
    with fresh_session() as session:
        assert passed(tmp_path / "switch", session.variables()) == by_ranks


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def sgd(of: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(of.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sync_every": 0}, "sync_every is 0"),
        ({"sync_every": 1.5}, "sync_every is 1.5"),
        ({"sync_every": Drift(0.0)}, "target must be above 0"),
        ({"sync_every": Drift(0.1, first=300)}, "first <= most"),
        ({"sync_every": 8, "fragments": 5}, "fragments is 5; it must be from 1 to 4"),
        ({"sync_every": 3, "fragments": 4}, "from 1 to 3"),
        ({"sync_every": Drift(0.1), "fragments": 2}, "one fragment only"),
        ({"sync_every": 8, "fragments": 2, "delay": 4}, "delay is 4; it must be from 0 to 3"),
        ({"sync_every": 8, "delay": -1}, "delay is -1"),
        ({"sync_every": 8, "mix": float("nan")}, "mix is nan"),
        ({"sync_every": 8, "pace": Pace(least=9)}, "1 <= least <= sync_every <= most"),
        ({"sync_every": 8, "pace": Pace(), "fragments": 2}, "need one fragment"),
        (
            {"sync_every": 8, "pace": Pace(least=2), "delay": 2},
            "delay is 2; it must be from 0 to 1",
        ),
        ({"sync_every": 8, "weight": 0}, "weight is 0"),
        ({"sync_every": 8, "weight": float("inf")}, "weight is inf"),
        ({"sync_every": 8, "weight": "data"}, "weight is 'data'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], words: str) -> None:
    model = net()
    with pytest.raises(SynchronizationError, match=words):
        DiLoCo(model, sgd(model), sgd(model), **options)  # type: ignore[arg-type]


def test_models_and_optimizers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(SynchronizationError, match="the optimizer lacks 4 of the model's param"):
        LocalSGD(model, sgd(net()), 2)
    with pytest.raises(SynchronizationError, match="the outer optimizer lacks 2"):
        DiLoCo(model, sgd(model), sgd(model[0]), 2)  # type: ignore[index]
    with pytest.raises(SynchronizationError, match="no parameter that is trained"):
        LocalSGD(model.requires_grad_(False), sgd(net()), 2)
    model.requires_grad_(True)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        with pytest.raises(SynchronizationError, match="give the model itself"):
            LocalSGD(DistributedDataParallel(model), sgd(model), 2)
        with (
            LocalSGD(model, sgd(model), 2) as local,
            pytest.raises(SynchronizationError, match="is active"),
            local,
        ):
            pass
        state = local.state_dict()
        outer = DiLoCo(model, sgd(model), sgd(model), 4, fragments=2)
        with outer:
            whole = outer.state_dict()
    finally:
        torch.distributed.destroy_process_group()
    for broken in ({}, {**state, "anchors": state["anchors"][1:]}, {**state, "since": "x"},
                   {**state, "sync_every": 0}, {**state, "own_steps": float("inf")}):  # fmt: skip
        with pytest.raises(SynchronizationError, match="not a state of LocalSGD"):
            LocalSGD(model, sgd(model), 2).load_state_dict(broken)
    two = [torch.zeros(3, 2), torch.zeros(3)]
    sums = {"fragment": 0, "due": 2, "means": two, "changes": []}
    for broken in (
        state,
        {**whole, "on_its_way": {**sums, "fragment": 1}},  # the means are of the first one
        {**whole, "on_its_way": {**sums, "fragment": 7}},
        {**whole, "on_its_way": {**sums, "changes": two}},  # H does not adapt to the drift
        {**whole, "on_its_way": {"fragment": 0, "means": two, "changes": []}},
    ):
        with pytest.raises(SynchronizationError, match="not a state of DiLoCo"):
            DiLoCo(model, sgd(model), sgd(model), 4, fragments=2).load_state_dict(broken)
    chosen = sparse_loco(model, sgd(model), 4)
    with pytest.raises(SynchronizationError, match="not a state of DiLoCo"):
        chosen.load_state_dict(whole)
    with pytest.raises(SynchronizationError, match="the codec was made for another model"):
        DiLoCo(model, sgd(model), sgd(model), 4, codec=TopK(net()))
    good = {**whole, "on_its_way": sums}
    DiLoCo(model, sgd(model), sgd(model), 4, fragments=2).load_state_dict(good)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_fragments_are_neighbours_none_is_empty_and_all_parameters_are_in_one(
    sizes: list[int], data: st.DataObject
) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    fragments = _split([torch.empty(size) for size in sizes], parts)
    assert len(fragments) == parts
    assert all(fragments)
    assert [place for each in fragments for place in each] == list(range(len(sizes)))


@given(st.integers(1, 64), st.floats(allow_nan=True))
def test_the_interval_stays_within_its_bounds(interval: int, drift: float) -> None:
    rule = Drift(0.1, first=8, least=2, most=64)
    chosen = rule.next(max(2, interval), drift)
    assert 2 <= chosen <= 64
    if drift != drift or drift > 0.1:
        assert chosen <= max(2, interval)


def test_delayed_gradients_refuse_what_they_cannot_do(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    for wrong in (-1, 0.5, True):
        with pytest.raises(SynchronizationError, match=f"staleness is {wrong}"):
            DelayedGradients(model, optimizer, wrong)  # type: ignore[arg-type]
    with pytest.raises(SynchronizationError, match="the optimizer lacks 4"):
        DelayedGradients(model, sgd(net()))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        with pytest.raises(SynchronizationError, match="made for another model"):
            DelayedGradients(model, optimizer, codec=TopK(net()))
        with pytest.raises(SynchronizationError, match="votes with feedback"):
            DelayedGradients(model, optimizer, codec=Vote(model))
        DelayedGradients(model, optimizer, 0, codec=Vote(model))
        scaler = torch.amp.GradScaler("cpu")
        model(torch.ones(1, 2)).sum().backward()
        with DelayedGradients(model, optimizer, scaler=scaler) as delayed:
            with pytest.raises(SynchronizationError, match="is active"), delayed:
                pass
            with pytest.raises(SynchronizationError, match=r"call reduce\(\)"):
                optimizer.step()
            delayed.reduce()
            optimizer.step()
            with pytest.raises(SynchronizationError, match="without a closure"):
                optimizer.step(lambda: 0.0)
            state = delayed.state_dict()
        ddp = DistributedDataParallel(net())
        ddp.register_comm_hook(None, lambda state, bucket: torch.futures.Future())
        hooked = DelayedGradients(ddp, sgd(ddp.module))
        with pytest.raises(SynchronizationError, match="has a communication hook"), hooked:
            pass
    finally:
        torch.distributed.destroy_process_group()
    (step,) = state["on_their_way"]
    for broken in (
        {},
        {**state, "staleness": 2},
        {**state, "on_their_way": [step, step]},  # more than may be on their way
        {**state, "on_their_way": [{**step, "means": step["means"][1:]}]},
        {**state, "codec": {}},
        {**state, "on_their_way": [{**step, "scale": 0.0}]},
    ):
        with pytest.raises(SynchronizationError, match="not a state of DelayedGradients"):
            DelayedGradients(model, optimizer).load_state_dict(broken)
    DelayedGradients(model, optimizer).load_state_dict(state)


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=64), st.integers(1, 500), st.integers(1, 8)
)
def test_steps_by_pace_end_at_the_same_time_and_are_as_many_as_without_it(
    seconds: list[float], interval: int, least: int
) -> None:
    interval = max(interval, least)
    steps = Pace(least=least, most=1 << 40).steps(interval, seconds)
    round_s = interval * len(seconds) / sum(1 / each for each in seconds)
    for count, each in zip(steps, seconds, strict=True):
        assert count == least or abs(count * each - round_s) <= each * 0.500001
        assert count >= least
    assert sum(steps) >= interval * len(steps) - len(steps)
    bounded = Pace(least=least, most=interval).steps(interval, seconds)
    assert all(least <= each <= interval for each in bounded)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e-320])
def test_without_a_measure_of_time_all_do_the_same_steps(seconds: float) -> None:
    assert Pace().steps(7, [1.0, seconds]) == [7, 7]


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 1000)), min_size=1, max_size=64))
def test_ranks_count_by_their_data_or_by_their_steps(ranks: list[tuple[int, int]]) -> None:
    weights, steps = [each[0] for each in ranks], [each[1] for each in ranks]
    by_data = shares(weights, steps)
    # What a rank changes per step counts by its data alone.
    pulls = [f * s / w for f, s, w in zip(by_data, steps, weights, strict=True)]
    assert pulls == pytest.approx([pulls[0]] * len(ranks))
    effective = sum(w * s for w, s in ranks) / sum(weights)
    assert sum(f * s for f, s in zip(by_data, steps, strict=True)) == pytest.approx(
        effective * len(ranks)
    )
    by_steps = shares([0] * len(ranks), steps)
    assert sum(by_steps) == pytest.approx(len(ranks))
    assert [f / s for f, s in zip(by_steps, steps, strict=True)] == pytest.approx(
        [by_steps[0] / steps[0]] * len(ranks)
    )
    assert set(shares([7] * len(ranks), [5] * len(ranks))) == {1.0}
