"""Awaits coroutines that other code may cancel."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from wiresum.controller.patience import Limiting

_R = TypeVar("_R")

# How long a cancelled task may take to clean up.
_CLEANUP_S = 5.0


class GoneError(Exception):
    """The awaited answer did not come; the message says why."""


async def apart(
    coroutine: Coroutine[Any, Any, _R],
    *,
    limit_s: float,
    late: str,
    lost: str,
    down: asyncio.Event | None = None,
    limit: Limiting = asyncio.timeout,
) -> _R:
    """Await ``coroutine`` in a task of its own.

    When a gRPC channel is closed, or a part of finsy fails, the task that waits for an answer
    is cancelled. That must not look as if the caller were cancelled: it becomes a
    :class:`GoneError` that says ``lost``, as does ``down`` being set; taking longer than
    ``limit_s``, one that says ``late``. ``limit`` watches the time. A cancellation of the caller,
    or an error of the coroutine, goes through.
    """
    task = asyncio.create_task(coroutine)
    # Where the caller is cancelled, or does not wait any longer, the task's error is not read.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    watch = asyncio.create_task(down.wait()) if down is not None else None
    try:
        with suppress(TimeoutError):
            async with limit(limit_s):
                await asyncio.wait(
                    [task, watch] if watch is not None else [task],
                    return_when=asyncio.FIRST_COMPLETED,
                )
        if task.done():
            if task.cancelled():
                raise GoneError(lost)
            return task.result()
        raise GoneError(lost if watch is not None and watch.done() else late)
    finally:
        if watch is not None:
            watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CLEANUP_S)
