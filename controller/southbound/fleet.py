"""The reconcile loops: one for each switch in the store."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.patience import Limiting
from wiresum.controller.southbound.loop import LoopOptions, SwitchLoop, SwitchState
from wiresum.controller.state.model import Job
from wiresum.controller.state.store import Store
from wiresum.p4 import Program


@dataclass
class Fleet:
    """The running loops, by switch.

    ``programs`` gives the program for a number of lanes; ``confirmed_jobs`` is called with the ids
    of the jobs whose entries a switch has just confirmed, ``counters_reset`` with those of the jobs
    whose counters a switch has set to zero.
    """

    store: Store
    programs: Callable[[int], Program]
    confirmed_jobs: Callable[[Iterable[str]], None]
    counters_reset: Callable[[Iterable[str]], None]
    options: LoopOptions = field(default_factory=LoopOptions)
    limit: Limiting = asyncio.timeout
    _running: dict[str, tuple[SwitchLoop, asyncio.Task[None]]] = field(default_factory=dict)
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self) -> None:
        """Start, restart and end loops so that they are those of the store's switches."""
        async with self._refreshing:
            await self._refresh()

    async def _refresh(self) -> None:
        wanted = {switch.name: switch for switch in self.store.snapshot().switches()}
        for name, (loop, task) in list(self._running.items()):
            if wanted.get(name) == loop.switch:
                continue
            del self._running[name]
            if name in wanted:
                await _cancel(task)
            else:
                await loop.leave(task)
        for name, switch in wanted.items():
            if name not in self._running:
                program = self.programs(switch.lanes)
                loop = SwitchLoop(
                    switch,
                    self.store,
                    program,
                    self.confirmed_jobs,
                    self.counters_reset,
                    self.options,
                    self.limit,
                )
                task = asyncio.create_task(loop.run(), name=f"switch {name}")
                self._running[name] = (loop, task)

    async def stop(self) -> None:
        """End all loops; the switches keep their tables, and running jobs go on."""
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            await _cancel(task)

    def find(self, name: str) -> SwitchLoop | None:
        """The loop of a switch, if it runs."""
        return self._running[name][0] if name in self._running else None

    def loop(self, name: str) -> SwitchLoop:
        """The loop of a switch. Raises :class:`ControllerError` UNAVAILABLE if there is none."""
        try:
            return self._running[name][0]
        except KeyError:
            raise ControllerError(
                "UNAVAILABLE", lines.SWITCH_COMES_OR_GOES.of(switch=name)
            ) from None

    def wake(self, name: str) -> None:
        """Have a pass made soon: the desired tables of the switch have changed."""
        if name in self._running:
            self._running[name][0].wake()

    def is_up(self, name: str) -> bool:
        """Whether the switch can be reached now."""
        return name in self._running and self._running[name][0].state is SwitchState.UP

    def is_down(self, name: str) -> bool:
        """Whether it was tried in vain to reach the switch: not while it is just being tried."""
        return name in self._running and self._running[name][0].state is SwitchState.DOWN

    def confirmed(self, job: Job) -> bool:
        """Whether the job's switch has confirmed the entries of its current epoch."""
        running = self._running.get(job.lease.switch)
        return running is not None and running[0].confirmed(job)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
