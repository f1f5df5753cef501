"""What the ranks agree on with each collective that they carry themselves."""

from collections.abc import Sequence


class Ballot:
    """What the ranks agree on with each collective, beside its exponents. Here: nothing.

    ``words`` are this rank's; ``counted`` gets the maximum of each over all ranks. When it returns
    true, on all ranks alike, this collective is the last that the ranks carry.
    """

    size = 0
    """How many words; the same on all ranks."""

    def words(self) -> Sequence[int]:
        """This rank's words, for the collective that begins."""
        return ()

    def counted(self, largest: Sequence[int]) -> bool:
        """The result: whether the ranks stop carrying after this collective."""
        return False

    def stopped(self) -> None:
        """The last collective has ended: nothing is carried any more."""
