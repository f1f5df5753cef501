"""One client's connection to the controllers of a store; usually there is only one."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from wiresum.controller import lines
from wiresum.controller.client.address import ControllerAddress
from wiresum.controller.client.channel import Channel, Method, NoAnswer, NotTrusted, Unreachable
from wiresum.controller.client.trust import Credentials
from wiresum.controller.errors import ControllerError, NotLeading

# Between two rounds in which no controller led. Seconds.
_ROUND_S = 0.25

_R = TypeVar("_R")


class Connection:
    """Finds the controller that leads, and makes calls there.

    Raises :class:`ControllerError` for files that cannot be used.
    """

    def __init__(self, addresses: Sequence[ControllerAddress], credentials: Credentials) -> None:
        """``addresses``: those of all controllers of one store."""
        alone = len(addresses) == 1
        self._channels = [Channel(address, credentials, alone=alone) for address in addresses]
        self._turn = 0
        """The channel that calls begin with."""
        self._ended = threading.Event()

    @property
    def address(self) -> ControllerAddress:
        """Of the controller that calls begin with: the last one that led."""
        return self._channels[self._turn].address

    def close(self) -> None:
        """Close the channels; calls in progress fail."""
        self._ended.set()
        for channel in self._channels:
            channel.close()

    def call(self, method: Method[_R], request: Any, timeout_s: float, *, twice: bool = True) -> _R:
        """Make a call, which may take ``timeout_s``. Raises :class:`ControllerError`.

        A caller that makes too many calls is told when to try again, and waits until then. Where
        there are several controllers, the one that leads is looked for as long as one of them can
        be reached; a call whose answer was lost is made again, unless ``twice`` is false.
        """
        deadline = time.monotonic() + timeout_s
        failed: dict[int, ControllerError] = {}
        """The errors of this round, by channel."""
        while True:
            turn = self._turn
            channel = self._channels[turn]
            pause = 0.0
            try:
                left = deadline - time.monotonic()
                return channel.call(method, request, max(0.001, left), timeout_s)
            except ControllerError as error:
                if error.code == "RESOURCE_EXHAUSTED" and error.retry_after_s is not None:
                    # A random part, so that clients do not all call at the same moment.
                    pause = error.retry_after_s * random.uniform(1.0, 1.5)
                    explained = error
                elif self._gone(error):
                    self._turn = (turn + 1) % len(self._channels)
                    failed[turn] = error
                    explained = self._nobody(failed)
                    if not (twice or isinstance(error, NotLeading | Unreachable)):
                        raise
                    if len(failed) == len(self._channels):
                        if explained.retry_after_s is None:
                            raise explained from None
                        failed, pause = {}, _ROUND_S
                else:
                    raise
            if deadline - time.monotonic() - pause <= 0:
                raise explained from None
            if self._ended.wait(pause):
                raise channel.closed()

    def _gone(self, error: ControllerError) -> bool:
        """Whether another controller may serve where one has answered so."""
        if len(self._channels) == 1 or self._ended.is_set():
            return False
        return isinstance(error, NotLeading | NoAnswer)

    def _nobody(self, failed: dict[int, ControllerError]) -> ControllerError:
        """The error of a call for which no controller was found."""
        names = ",".join(str(channel.address) for channel in self._channels)
        last = list(failed.values())[-1]
        for error in failed.values():
            if isinstance(error, NotLeading):
                line = lines.NONE_LEADS.of(addresses=names, why=error)
                return NotLeading("UNAVAILABLE", line, retry_after_s=error.retry_after_s)
        trusts = not all(isinstance(error, NotTrusted) for error in failed.values())
        kind = ControllerError if trusts else NotTrusted
        return kind("UNAVAILABLE", lines.NONE_REACHED.of(addresses=names, why=last))
