"""Between two synchronizations others may have the slots, where that is long enough."""

from dataclasses import dataclass, field

import pytest
import torch

from wiresum.host_agent.agent.parking import AHEAD_S, WORTHWHILE_S
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.optim import DiLoCo
from wiresum.host_agent.optim.quiet import Quiet


@dataclass
class Group:
    group_name: str = "g"


@dataclass
class Scene:
    """Rounds of ``steps`` steps of ``step_s`` seconds, by a clock that only the test moves."""

    now: float = 100.0
    told: list[tuple[float, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        def park(name: str, parked: bool) -> None:
            self.told.append((round(self.now - self.began, 6), name, parked))

        self.began = self.now
        self.quiet = Quiet(Group(), park, lambda: self.now)  # type: ignore[arg-type]

    def round(self, steps: int, step_s: float) -> list[tuple[float, bool]]:
        """What is told in it, and when."""
        self.told.clear()
        self.began = self.now
        for left in reversed(range(steps)):
            self.now += step_s
            self.quiet.step(left)
        self.quiet.begins()
        assert {name for _, name, _ in self.told} <= {"g"}
        return [(at, parked) for at, _, parked in self.told]


def test_nothing_is_told_before_a_round_has_been_measured() -> None:
    scene = Scene()
    assert scene.round(8, 1.0) == [], "the first begins with no synchronization"
    assert scene.round(8, 1.0) == [(8.0, True)]


def test_the_slots_are_wanted_back_ahead_of_the_next_sum() -> None:
    scene = Scene()
    for _ in range(2):
        scene.round(100, 0.1)
    back, away = scene.round(100, 0.1)
    assert (back[1], away) == (False, (10.0, True))
    assert 10.0 - AHEAD_S - 0.2 < back[0] < 10.0 - AHEAD_S + 0.2
    # With long steps: one step ahead, at the latest.
    scene = Scene()
    for _ in range(2):
        scene.round(4, 5.0)
    assert scene.round(4, 5.0) == [(15.0, False), (20.0, True)]
    # A round that is shorter than the one before.
    assert scene.round(2, 0.1) == [(0.1, False)]
    assert scene.round(2, 0.1) == []


def test_short_rounds_keep_their_slots() -> None:
    scene = Scene()
    steps = int(WORTHWHILE_S / 0.1) - 2
    assert [scene.round(steps, 0.1) for _ in range(4)] == [[]] * 4
    assert [scene.round(1, 0.1) for _ in range(4)] == [[]] * 4


def test_leaving_wants_the_slots_back() -> None:
    scene = Scene()
    for _ in range(2):
        scene.round(4, 1.0)
    scene.told.clear()
    scene.quiet.ends()
    scene.quiet.ends()
    assert [parked for *_, parked in scene.told] == [False]


@pytest.mark.parametrize("more", [{"fragments": 2}, {"delay": 1}], ids=str)
def test_sums_in_parts_need_their_slots_all_the_time(more: dict[str, int]) -> None:
    model = torch.nn.Linear(2, 2)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(SynchronizationError, match="release_slots needs one fragment"):
        DiLoCo(model, inner, outer, 8, release_slots=True, **more)
