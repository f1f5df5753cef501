"""Gives the switch's own packets priority on the way to the hosts.

Only the switch can send from its own address: its program drops other frames that claim it. So the
address is a mark that nobody can forge, and results cannot be crowded out of a worker's link by
what other hosts send there. On a hardware switch this is a strict-priority queue; here it is HTB,
which lends the rate that one class does not use to the other, the preferred one first.
"""

from wiresum.measure import lines
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter, run
from wiresum.testbed.rack import SWITCH, SWITCH_IP, Rack

_LINK, _SWITCHS_OWN, _OTHERS = "5:9", "5:1", "5:2"
_LEAST_MBIT = 1.0  # the rate of other packets, however much the switch sends


def prefer_switch(rack: Rack) -> None:
    """Give the ports of a rack's switch a class of their own for the switch's packets.

    Only for racks with a rate: without one nothing waits. Raises :class:`RackError`.
    """
    rate = rack.options.rate_mbit
    if rate is None or rate < 2 * _LEAST_MBIT:
        raise RackError(lines.NOTHING_TO_PREFER.of(mbit=2 * _LEAST_MBIT))
    least = f"{_LEAST_MBIT}mbit"
    here = enter(rack.record.nodes[SWITCH].namespace)

    for interface in rack.switch.interfaces().values():

        def tc(kind: str, verb: str, *words: str, on: str = interface) -> None:
            run(*here, "tc", kind, verb, "dev", on, *words)

        def shaped(number: str, parent: str, least: str, *words: str) -> None:
            limits = ["rate", least, "ceil", f"{rate}mbit", "burst", "15k", "quantum", "1514"]
            tc("class", "add", "parent", parent, "classid", number, "htb", *limits, *words)

        tc("qdisc", "del", "root")
        tc("qdisc", "add", "root", "handle", "5:", "htb", "default", _OTHERS.partition(":")[2])
        shaped(_LINK, "5:", f"{rate}mbit")
        shaped(_SWITCHS_OWN, _LINK, f"{rate - _LEAST_MBIT}mbit", "prio", "0")
        shaped(_OTHERS, _LINK, least, "prio", "1")
        match = ["u32", "match", "ip", "src", f"{SWITCH_IP}/32", "flowid", _SWITCHS_OWN]
        tc("filter", "add", "parent", "5:", "protocol", "ip", *match)
