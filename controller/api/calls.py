"""The common part of all calls: the caller, and errors as statuses."""

import logging
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import grpc

from wiresum.common.logs import one_line
from wiresum.controller import lines
from wiresum.controller.api.access import Access
from wiresum.controller.api.rates import Rates
from wiresum.controller.client.channel import LINE_CODE, NOT_LEADING, RETRY_AFTER_MS
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.office.office import Office
from wiresum.controller.rules.callers import Caller

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
_Reply = TypeVar("_Reply")

request_size: ContextVar[int] = ContextVar("request_size", default=0)
"""Size of the request that is being served, in bytes, with the fields that were dropped."""

_BEARER = "bearer "

# Reading so many bytes of a request counts as one more call.
_BYTES_PER_CALL = 256 * 1024

_MAX_WORDS = 1000


class Calls:
    """The calls of one part of the service; the .proto documents each call."""

    def __init__(self, office: Office, fixed_admin: str = "") -> None:
        """``fixed_admin``: the hash of an admin's token that counts instead of the store's."""
        self._office = office
        self._access = Access(office.store, fixed_admin)
        self._rates = Rates(office.store, office.limits.heartbeat_s)

    def _caller(self, context: Context, token: str = "") -> Caller:
        """The caller: by ``token``, or else by the token in the call's metadata.

        Every call asks this once, first: here it is counted, and refused if the caller makes too
        many calls.
        """
        rates = self._rates
        try:
            caller = self._access.caller(token or _bearer(context))
        except ControllerError as error:
            if error.code == "UNAUTHENTICATED":
                rates.stranger(context.peer())
            raise
        try:
            rates.call(caller, 1.0 + request_size.get() / _BYTES_PER_CALL)
        except ControllerError:
            if caller.job:
                # The refused call is still a sign of life: a job must not expire because it calls
                # too often.
                self._office.jobs.heard(caller.job)
            raise
        return caller

    def _admin(self, context: Context, what: str) -> None:
        self._caller(context).require_admin(what)


def _bearer(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            if text.lower().startswith(_BEARER):
                return text[len(_BEARER) :].strip()
    return ""


async def or_status(answer: Awaitable[_Reply], context: Context) -> _Reply:
    """The answer, or the gRPC status that says why there is none."""
    try:
        return await answer
    except ControllerError as error:
        await abort(context, error)
    except Exception as error:
        log.exception("a request failed")
        line = lines.CALL_FAILED.of(name=type(error).__name__, why=_words(error))
        await abort(context, ControllerError("INTERNAL", line))
    raise AssertionError("abort raises")


async def abort(context: Context, error: ControllerError) -> NoReturn:
    """End a call with the status of ``error``, the code of its line, and when to try again."""
    code = error.code
    beside = {LINE_CODE: error.line_code} if error.line_code else {}
    if error.retry_after_s is not None:
        beside[RETRY_AFTER_MS] = str(max(1, round(1000 * error.retry_after_s)))
        if isinstance(error, NotLeading):
            beside[NOT_LEADING] = "1"
    elif code == "UNAVAILABLE":
        # A bare UNAVAILABLE tells a client that there is no controller: never send it.
        code = "FAILED_PRECONDITION"
    await context.abort(
        grpc.StatusCode[code], _words(error), trailing_metadata=tuple(beside.items())
    )


def _words(error: Exception) -> str:
    """One line that fits into a status, whatever the request was that it quotes."""
    words = one_line(str(error))
    return words if len(words) <= _MAX_WORDS else f"{words[: _MAX_WORDS - 1]}…"
