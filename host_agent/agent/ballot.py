"""What the ranks agree on with each collective that they carry themselves."""

from collections.abc import Sequence

from wiresum.host_agent.agent.face import Call


class Ballot:
    """What the ranks agree on with each collective, beside its exponents. Here: nothing.

    ``words`` are this rank's; ``counted`` gets the maximum of each over all ranks. When it returns
    true, on all ranks alike, this collective is the last that the ranks carry.
    """

    size = 0
    """How many words; the same on all ranks."""

    @property
    def field(self) -> int | None:
        """Bits of an element, for the collective that begins; the same on all ranks.

        None: as the engine was told.
        """
        return None

    def looks_at(self, call: Call) -> None:
        """A sum begins, and its tensor is still this rank's own."""

    def words(self) -> Sequence[int]:
        """This rank's words, for the collective that begins."""
        return ()

    def counted(self, largest: Sequence[int]) -> bool:
        """The result: whether the ranks stop carrying after this collective."""
        return False

    def stopped(self) -> None:
        """The last collective has ended: nothing is carried any more."""
