"""The embedded switch as a switch under test, in memory."""

from wiresum.p4 import Program
from wiresum.softswitch import Switch


class Soft:
    """The softswitch running ``program``."""

    def __init__(self, program: Program) -> None:
        self.lanes = program.lanes
        self.switch = Switch(program.json)
        self.inject = self.switch.inject

    def insert(
        self, table: str, match: dict[str, int], action: str, params: dict[str, int]
    ) -> None:
        """Add an exact-match entry."""
        self.switch.table_add(table, match, action, params)

    def remove(self, table: str, match: dict[str, int]) -> None:
        """Remove an entry."""
        self.switch.table_delete(table, match)

    def group(self, number: int, replicas: list[tuple[int, int]]) -> None:
        """Set a multicast group."""
        self.switch.multicast_group(number, replicas)

    def counter(self, name: str, index: int) -> int:
        """Packets counted."""
        return self.switch.counter(name, index).packets
