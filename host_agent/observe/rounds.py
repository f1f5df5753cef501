"""Who measures with whom, and when: pure."""

from collections.abc import Sequence

MOST_MEMBERS = 64
"""Of a probe: more would take longer than a training should wait."""


def members(hosts: Sequence[str]) -> list[int]:
    """The ranks that probe, from the host of each rank: the lowest one of each host.

    Where all are on one host, all of them; at most :data:`MOST_MEMBERS`.
    """
    first = {host: rank for rank, host in reversed(list(enumerate(hosts)))}
    chosen = sorted(first.values()) if len(first) > 1 else list(range(len(hosts)))
    return chosen[:MOST_MEMBERS]


def partners(among: Sequence[int], rank: int) -> list[int]:
    """Whom ``rank`` meets, in the order of rounds: everybody once, and never two at a time.

    The circle method of round-robin tournaments: the first stays, the others turn around it.
    """
    table: list[int | None] = list(among)
    if len(table) % 2:
        table.append(None)
    met = []
    for _ in range(len(table) - 1):
        partner = table[len(table) - 1 - table.index(rank)]
        if partner is not None:
            met.append(partner)
        table.insert(1, table.pop())
    return met
