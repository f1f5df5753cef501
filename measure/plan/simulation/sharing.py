"""Max-min fair shares of links (Bertsekas and Gallager, Data Networks): progressive filling."""

from collections.abc import Hashable, Mapping, Sequence


def shares(
    demands: Sequence[float],
    paths: Sequence[Sequence[Hashable]],
    capacity: Mapping[Hashable, float],
) -> list[float]:
    """The rate of each flow: no more than its demand, and no link carries more than it can.

    No flow could have more without taking from one that has less.
    """
    rates = [0.0] * len(demands)
    left = dict(capacity)
    open_ = set(range(len(demands)))
    while open_:
        users: dict[Hashable, int] = {}
        for flow in open_:
            for link in paths[flow]:
                users[link] = users.get(link, 0) + 1
        # The next event of filling: a flow has all it wants, or a link is full.
        step = min(demands[flow] - rates[flow] for flow in open_)
        for link, count in users.items():
            step = min(step, left[link] / count)
        for flow in open_:
            rates[flow] += step
        for link, count in users.items():
            left[link] -= step * count
        full = {link for link in users if left[link] <= 1e-9 * capacity[link]}
        done = {
            flow
            for flow in open_
            if demands[flow] - rates[flow] <= 1e-9 * demands[flow]
            or any(link in full for link in paths[flow])
        }
        open_ -= done or open_
    return rates
