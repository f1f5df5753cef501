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
from wiresum.host_agent.hooks.state import TopK
from wiresum.host_agent.optim import DiLoCo, Drift, LocalSGD, sparse_loco
from wiresum.host_agent.optim.diloco import _split

SCRIPT = Path(__file__).with_name("local_steps.py")
WORKERS = 3


def passed(folder: Path, env: dict[str, str]) -> None:
    folder.mkdir()
    ended = spawn(SCRIPT, str(folder), workers=WORKERS, env=env)
    assert ended.status == 0, ended.output
    shown = {path.name: path.read_text().splitlines() for path in folder.iterdir()}
    assert sorted(shown) == [str(rank) for rank in range(WORKERS)]
    assert {len(each) for each in shown.values()} == {9}


def test_ranks_with_local_steps_train_as_the_definition_says(tmp_path: Path) -> None:
    passed(tmp_path / "ranks", clean_environment() | {"WIRESUM_CARRIER": "ranks"})
    with fresh_session() as session:
        passed(tmp_path / "switch", session.variables())


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
    for broken in ({}, {**state, "anchors": state["anchors"][1:]}, {**state, "since": "x"}):
        with pytest.raises(SynchronizationError, match="not a state of LocalSGD"):
            LocalSGD(model, sgd(model), 2).load_state_dict(broken)
    two = [torch.zeros(3, 2), torch.zeros(3)]
    for broken in (
        state,
        {**whole, "on_its_way": {"fragment": 1, "due": 2, "means": two}},  # of the first one
        {**whole, "on_its_way": {"fragment": 7, "due": 2, "means": two}},
        {**whole, "on_its_way": {"fragment": 0, "means": two}},
    ):
        with pytest.raises(SynchronizationError, match="not a state of DiLoCo"):
            DiLoCo(model, sgd(model), sgd(model), 4, fragments=2).load_state_dict(broken)
    chosen = sparse_loco(model, sgd(model), 4)
    with pytest.raises(SynchronizationError, match="not a state of DiLoCo"):
        chosen.load_state_dict(whole)
    with pytest.raises(SynchronizationError, match="the codec was made for another model"):
        DiLoCo(model, sgd(model), sgd(model), 4, codec=TopK(net()))
    good = {**whole, "on_its_way": {"fragment": 0, "due": 2, "means": two}}
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
