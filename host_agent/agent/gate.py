"""What each collective passes on its way from the relay to an engine. Here: an open gate.

All ranks issue the same collectives in the same order, so a gate that goes by these alone does the
same on all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from wiresum.host_agent.agent.face import Finished, Unit


class Passed(NamedTuple):
    """Pieces that have ended."""

    callers: Sequence[Finished]
    """Under the tickets of the caller."""
    own: Sequence[Finished]
    """Which the gate has added."""


class Gate:
    """The relay calls the methods, under its lock."""

    def holds(self, _unit: Unit) -> bool:
        """Whether this collective has to wait until a piece that is in flight has ended.

        Never one that has passed: what it would wait for may be behind it.
        """
        return False

    def passing(self, unit: Unit) -> Unit:
        """A collective as the engine gets it; the next one in order, or one that has passed."""
        return unit

    def refused(self, unit: Unit) -> None:
        """The engine has not taken what :meth:`passing` has returned, and raised an error."""

    def asked(self, unit: Unit) -> Unit:
        """A collective as the caller has asked for it, whether it has passed or not."""
        return unit

    def ended(self, batch: Sequence[Finished]) -> Passed:
        """Whose these pieces are, which have ended in an engine."""
        return Passed(batch, ())
