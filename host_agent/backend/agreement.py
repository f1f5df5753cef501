"""Collectives that ranks issue in different orders: all carry them out in one agreed order.

Each such collective has a name that is the same on all ranks. A rank that gets to it counts
itself in the group's store; the last rank to do so appends the name to a list in the store. All
ranks carry out that list, in its order, over a group that nothing else uses. A collective is
in the list only once all ranks have issued it, so no rank ever waits for one that another rank
cannot get to yet. (Horovod's coordinator does the same: Sergeev and Del Balso 2018, section 4.)
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.futures import Future

from wiresum.common.errors import WiresumError
from wiresum.common.patience import Patience, wait_for
from wiresum.host_agent import errors, lines
from wiresum.host_agent.backend import callbacks

log = logging.getLogger("wiresum")

G = TypeVar("G")
"""What the collectives are carried out on."""

_SHORTEST_LOOK_S = 0.0005
_LONGEST_LOOK_S = 0.02
_OVERTIME_S = 5.0  # after its limit: a waiter's error comes first, and names what it waited for
_IDLE_S = 30.0  # how long the thread waits for more before it ends


class AgreedWork(dist.Work):
    """A collective that starts once all ranks have issued it."""

    def __init__(self, name: str, label: str, limit_s: float) -> None:
        """``label`` says what it is."""
        super().__init__()
        self.name = name
        self.label = label
        self._limit_s = limit_s
        self.patience = Patience(limit_s + _OVERTIME_S)
        """Until all ranks have issued it."""
        self._outputs: list[torch.Tensor] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._raw: Future[list[torch.Tensor]] = Future()
        self._future = callbacks.chain(self._raw, self._value)
        callbacks.name_future(self._future, name)
        self.missing: Callable[[], str] = lambda: ""

    def end(self, outcome: list[torch.Tensor] | BaseException) -> None:
        """End it with these tensors or this error; run the callbacks of its future."""
        if isinstance(outcome, BaseException):
            self._error = outcome
        else:
            self._outputs = outcome
        self._ended.set()
        self._raw.set_result(self._outputs)

    def when_ended(self, function: Callable[[object], None]) -> None:
        """Call ``function`` when it has ended, on a thread on which callbacks may block."""
        callbacks.when_done(self._future, function)

    def _value(self, _raw: object) -> list[torch.Tensor]:
        if self._error is not None:
            raise self._error
        return self._outputs

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for the end; a timeout of zero or less means the group's own limit."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        if seconds <= 0:
            seconds = self._limit_s
        if not wait_for(self._ended, seconds):
            raise self.late(seconds)
        if self._error is not None:
            raise self._error
        return True

    def late(self, seconds: float | None = None) -> errors.CollectiveTimeout:
        """The error after so many seconds, its own limit if none are given."""
        limit_s = self._limit_s if seconds is None else seconds
        return errors.CollectiveTimeout(
            lines.CALLBACK_LATE.of(label=self.label, seconds=limit_s, missing=self.missing())
        )

    def get_future(self) -> "Future[list[torch.Tensor]]":
        """A future of the list of tensors; it carries the error if there is one."""
        return self._future  # type: ignore[no-any-return]

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self._ended.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        """The error with which it ended, or None."""
        return self._error

    def result(self) -> list[torch.Tensor]:
        """The tensors."""
        return self._outputs

    def synchronize(self) -> None:
        """Same as ``wait()``."""
        self.wait()


class Agreement(Generic[G]):
    """Carries out named collectives of one group in the same order on all ranks."""

    def __init__(
        self,
        store: Store,
        size: int,
        make_group: Callable[[], G],
        complete_later: Callable[[Callable[[], None]], None],
    ) -> None:
        """``store`` is this agreement's own part of the group's store.

        ``make_group`` makes the group, on all ranks at the first collective that all have issued.
        ``complete_later`` runs a function on a thread on which callbacks may block.
        """
        self._store = store
        self._size = size
        self._make_group = make_group
        self._complete_later = complete_later
        self.group: G | None = None
        """Once it is made."""
        self._waiting: dict[str, tuple[Callable[[G], dist.Work], AgreedWork]] = {}
        self._flying: set[AgreedWork] = set()
        self._position = 0
        self._failed: BaseException | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(
        self, name: str, label: str, issue: Callable[[G], dist.Work], limit_s: float
    ) -> AgreedWork:
        """Carry out the collective ``name`` once all ranks have submitted it.

        ``issue`` starts it on the group that it is given.
        Raises the reason if the agreement has been ended.
        """
        work = AgreedWork(name, label, limit_s)
        work.missing = lambda: self._missing(name)
        with self._changed:
            if self._failed is not None:
                raise self._failed
            self._waiting[name] = (issue, work)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="wiresum-agreement", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        if self._store.add(f"said/{name}", 1) == self._size:
            place = self._store.add("length", 1) - 1
            self._store.set(f"place/{place}", name)
        return work

    def fail(self, error: BaseException) -> None:
        """End everything that is waiting or in flight with ``error``; take no more."""
        with self._changed:
            if self._failed is None:
                self._failed = error
            ended = [work for _, work in self._waiting.values()] + list(self._flying)
            self._waiting.clear()
            self._flying.clear()
            self._changed.notify_all()
        for work in ended:
            self._complete_later(lambda work=work: work.end(error))  # type: ignore[misc]

    def join(self, timeout_s: float) -> None:
        """Wait for the thread after :meth:`fail`, unless this is that thread."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _missing(self, name: str) -> str:
        with contextlib.suppress(Exception):
            said = self._store.add(f"said/{name}", 0)
            if said < self._size:
                return f": {said} of {self._size} ranks have issued it ({name})"
        return ""

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._next_is_wanted():
                name = self._agreed()
                if name is not None:
                    self._start(name)
        except Exception as error:
            if self._failed is None:
                log.debug("wiresum: the agreement of callbacks failed", exc_info=True)
                line = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.fail(
                    error
                    if isinstance(error, WiresumError)
                    else errors.EngineError(lines.NO_AGREEMENT.of(why=line))
                )

    def _next_is_wanted(self) -> bool:
        """Wait until a collective waits; False if none has come for long, or after a failure."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._failed, _IDLE_S)
            if self._waiting and self._failed is None:
                return True
            self._thread = None
            return False

    def _agreed(self) -> str | None:
        """The next name in the list; None if nothing waits here any more.

        Raises the error of one that has waited for other ranks for longer than its limit: nobody
        may be in its ``wait()``, and what comes after it has no place in the list either.
        """
        key = f"place/{self._position}"
        look = _SHORTEST_LOOK_S
        while not self._store.check([key]):
            time.sleep(look)
            look = min(1.3 * look, _LONGEST_LOOK_S)
            with self._changed:
                if self._failed is not None or not self._waiting:
                    return None
                works = [work for _, work in self._waiting.values()]
            for work in works:
                if work.patience.step(look) <= 0:
                    raise work.late()
        name = self._store.get(key).decode()
        self._position += 1
        return name

    def _start(self, name: str) -> None:
        if self.group is None:
            self.group = self._make_group()
        with self._changed:
            if self._failed is not None:
                return
            issue, work = self._waiting.pop(name)
            self._flying.add(work)
        try:
            future = issue(self.group).get_future()
        except Exception as error:
            self._over(work, error)
            return
        # gloo's own thread runs this: it must not run the script's callbacks.
        callbacks.when_done(future, lambda ended: self._over(work, _outcome(ended)))

    def _over(self, work: AgreedWork, outcome: list[torch.Tensor] | BaseException) -> None:
        with self._changed:
            if work not in self._flying:
                return
            self._flying.discard(work)
        self._complete_later(lambda: work.end(outcome))


def _outcome(future: Future[list[torch.Tensor]]) -> list[torch.Tensor] | BaseException:
    """The result of a collective whose future is complete."""
    try:
        return list(future.value() or [])
    except Exception as error:
        return error
