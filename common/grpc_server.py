"""Ends a gRPC server completely."""

import asyncio
from typing import Any, Protocol

_LIMIT_S = 2.0


class Server(Protocol):
    """The part of ``grpc.aio.Server`` that is used here."""

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; cancel those that go on after ``grace`` seconds."""


async def stop(server: Server, grace_s: float) -> None:
    """Stop a server, and wait until its calls have ended, for a moment more than ``grace_s``.

    gRPC reports the end of calls when its core has finished them, a moment before its tasks end. If
    the event loop ends in between, it cancels these tasks, and gRPC writes tracebacks to stderr.
    """
    await server.stop(grace_s)
    calls = {task for task in asyncio.all_tasks() if _is_a_call(task)}
    if calls:
        await asyncio.wait(calls, timeout=_LIMIT_S)


def _is_a_call(task: "asyncio.Task[Any]") -> bool:
    module = getattr(task.get_coro(), "__module__", None)
    return isinstance(module, str) and module.startswith("grpc.")
