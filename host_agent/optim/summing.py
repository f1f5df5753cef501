"""Means of tensors on their way: plainly, or as a codec of ``hooks/`` sends them."""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist

from wiresum.host_agent.hooks.exchange import Exchange, Sent
from wiresum.host_agent.hooks.state import State
from wiresum.host_agent.optim import average

WHETHER_A_CODEC = "whether there is a codec (0: no, 1: yes)"
"""What ranks compare first; the codecs themselves compare their options at each sum."""


class Sum(Protocol):
    """Means that are on their way."""

    def wait(self) -> list[torch.Tensor]:
        """The means, in the order of the tensors. Call it once. Raises what the collective does."""


class Chosen:
    """The mean of what a codec chooses; several of one codec may be on their way.

    The codes are on their way at once; :meth:`send` waits for them, and must have been called
    before the same exchange is used again.
    """

    def __init__(
        self,
        codec: State,
        place: int,
        parameters: Sequence[torch.Tensor],
        tensors: Sequence[torch.Tensor],
    ) -> None:
        self._exchange: Exchange = codec.exchange(place, parameters)
        self._group = codec.group
        self._means = [torch.empty_like(each) for each in tensors]
        self._sent: Sent | None = None
        self._work: dist.Work | None = None
        codec.tell(place, self._exchange.begin(tensors, codec.group))

    def send(self) -> None:
        """Send the blocks that are chosen."""
        self._work = self._exchange.send(self._group)
        self._sent = self._exchange.lay_aside()

    def wait(self) -> list[torch.Tensor]:
        """As :meth:`Sum.wait`, after :meth:`send`."""
        assert self._work is not None
        assert self._sent is not None
        self._work.wait()
        self._exchange.take_up(self._sent)
        self._exchange.finish(self._means)
        return self._means


def start(
    place: int,
    parameters: Sequence[torch.Tensor],
    tensors: Sequence[torch.Tensor],
    codec: State | None,
    group: dist.ProcessGroup | None,
) -> Sum:
    """Begin to take the mean of the tensors, which may be changed then.

    ``place``, ``parameters``: under which the codec keeps what it has not sent.
    """
    if codec is None:
        return average.start(tensors, group)
    chosen = Chosen(codec, place, parameters, tensors)
    chosen.send()
    return chosen


def fits(codec: State, parameters: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> bool:
    """Whether the codec is for these parameters, and takes the mean over this group."""
    same = (codec.group or dist.group.WORLD) is (group or dist.group.WORLD)
    return same and codec.covers(parameters)
