"""A leader that cannot use its store, played without PostgreSQL."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from wiresum.controller.api import leading
from wiresum.controller.api.leading import Leading
from wiresum.controller.errors import StoreFailed
from wiresum.controller.office.office import Office


@dataclass
class Stage:
    """A candidate, its store and that store's term, all in one."""

    leader: str = "here:1"
    number: int = 1
    lost: str = ""
    failing: int = 0
    """The run whose office cannot write when it starts; 0: none."""
    runs: int = 0
    starts: list[bool] = field(default_factory=list)

    @property
    def term(self) -> "Stage":
        return self

    def run(self) -> "Stage":
        self.runs += 1
        return self

    def confirm(self) -> bool:
        return True

    def close(self) -> None:
        pass

    async def start(self) -> None:
        """The office's."""
        self.starts.append(False)
        if self.runs == self.failing:
            raise StoreFailed("UNAVAILABLE", "the disk is full", retry_after_s=1.0)
        self.starts[-1] = True

    async def stop(self) -> None:
        pass


def played(stage: Stage) -> Leading:
    async def opened(_office: Office) -> None:
        pass

    made = Leading(cast(Any, stage), "here:1", lambda _store: cast(Any, stage), opened)
    made.reception.open = lambda _office, _admin="": None  # type: ignore[method-assign]
    return made


async def test_a_controller_that_cannot_write_at_its_start_says_so_and_ends() -> None:
    with pytest.raises(StoreFailed, match="disk is full"):
        await played(Stage(failing=1)).run()


async def test_later_it_lets_others_try_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "_REST_S", 0.01)
    stage = Stage(failing=2)
    party = played(stage)
    task = asyncio.create_task(party.run())
    async with asyncio.timeout(30.0):
        await party.settled.wait()
        # Its first leadership ends.
        monkeypatch.setattr(stage, "confirm", lambda: stage.runs >= 2)
        while stage.starts != [True, False, True]:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
