"""The agent as the backend sees it: the engine of a joined worker, and whether its job still lives.

``wiresum.host_agent.agent.agent`` implements it; tests have their own.
"""

from collections.abc import Callable
from typing import Any, Protocol

from wiresum.host_agent.agent.face import EngineFace
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.agent.sums import Sums


class AgentFace(Protocol):
    """A joined worker."""

    @property
    def engine(self) -> EngineFace:
        """This worker's engine."""

    @property
    def leaves_switch(self) -> bool:
        """Whether the ranks carry what the switch does not: then :meth:`use_ranks` must follow."""

    @property
    def begins_later(self) -> bool:
        """Whether :meth:`begin` is called at the first collective, instead of ``use_ranks``."""

    def begin(self, make_sums: Callable[[], Sums]) -> None:
        """The first collective is issued: begin in the background, with these sums.

        Called once by each rank, without any order among groups; returns at once.
        """

    @property
    def may_have_switch(self) -> bool:
        """Whether a switch carries, or may come while the job runs; the same on all ranks."""

    @property
    def collective_s(self) -> float:
        """How long a collective may go without a result; seconds."""

    def use_ranks(self, sums: Sums) -> None:
        """Let the ranks sum through ``sums`` whenever the switch does not. All ranks call it."""

    @property
    def carrier(self) -> str:
        """The carrier in use: ``switch`` or ``ranks``."""

    def check(self) -> None:
        """Raise the reason why no collective may start any more (job released, superseded)."""

    def register(self, group: str) -> None:
        """Be known as the agent of torch's group of this name: see ``agent.parking``."""

    def watch(self, group: Group) -> None:
        """Compare what ``group`` issues with the other ranks, and end it when one of them is lost.

        Called once, by the group whose collectives use this agent.
        """

    def describe(self) -> dict[str, Any]:
        """Job, epoch, switch and lease, for the debug dump (no key, no token)."""

    def close(self) -> None:
        """Leave: close the engine and stop the heartbeats."""
