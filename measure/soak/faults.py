"""Does to a rack and its jobs what a schedule says, and mends it again."""

import signal
from collections.abc import Mapping

from wiresum.measure.soak.jobs import Job
from wiresum.measure.soak.schedule import Fault, Kind
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.loss import SCALE
from wiresum.testbed.namespaces import enter, run
from wiresum.testbed.processes import Mark, mark
from wiresum.testbed.rack import SWITCH, Rack

_CHAINS = (
    "add table netdev soak{number}; add chain netdev soak{number} out {{ type filter hook egress "
    'device "{interface}" priority 0; }}; add chain netdev soak{number} in {{ type filter hook '
    'ingress device "{interface}" priority 0; }}; {rules}'
)
_OUT = "add rule netdev soak{number} out "
_IN = "add rule netdev soak{number} in "
_TO_SWITCH = f"ip protocol udp udp dport {UDP_PORT} drop"


class Faults:
    """The faults of one rack. Every fault that begins must end; :meth:`heal` ends what is left."""

    def __init__(self, rack: Rack, jobs: Mapping[str, Job]) -> None:
        """``jobs`` are those that run, by name."""
        self._rack = rack
        self._jobs = jobs
        self._lasting: dict[int, Fault] = {}
        self._stopped: dict[int, Mark] = {}

    def begin(self, fault: Fault) -> None:
        """Cause it. Raises ``WiresumError`` if this machine does not let us."""
        self._lasting[fault.number] = fault
        match fault.kind:
            case Kind.SWITCH_KILLED:
                self._rack.kill_switch()
            case Kind.SWITCH_STOPPED:
                self._stop(fault, self._rack.switch_mark)
            case Kind.LINKS_DOWN | Kind.LINK_DOWN:
                self._links(fault, "down")
            case Kind.SWITCH_CUT:
                self._filter(fault, _OUT + _TO_SWITCH)
            case Kind.PARTITION:
                self._filter(fault, f"{_OUT}drop; {_IN}drop")
            case Kind.LOSS:
                lose = f"numgen random mod {SCALE} < {round(fault.share * SCALE)} drop"
                self._filter(fault, f"{_OUT}{lose}; {_IN}{lose}")
            case Kind.WORKER_STOPPED:
                self._stop(fault, self._worker(fault))
            case Kind.WORKER_KILLED:
                found = self._worker(fault)
                if found is not None:
                    found.send(signal.SIGKILL)
            case Kind.CONTROLLER_KILLED:
                self._rack.kill_controller()
            case Kind.JOB_JOINS | Kind.JOB_LEAVES:
                pass  # whoever runs the jobs does it

    def end(self, fault: Fault) -> None:
        """Mend it."""
        match fault.kind:
            case Kind.SWITCH_KILLED:
                self._rack.restart_switch()
            case Kind.SWITCH_STOPPED | Kind.WORKER_STOPPED:
                if fault.number in self._stopped:
                    self._stopped.pop(fault.number).send(signal.SIGCONT)
            case Kind.LINKS_DOWN | Kind.LINK_DOWN:
                self._links(fault, "up")
            case Kind.SWITCH_CUT | Kind.PARTITION | Kind.LOSS:
                for host in self._hosts(fault):
                    run(*self._in(f"w{host}"), "nft", f"delete table netdev soak{fault.number}")
            case Kind.CONTROLLER_KILLED:
                self._rack.restart_controller()
            case _:
                pass
        del self._lasting[fault.number]

    def heal(self) -> None:
        """Let go on what stands still. All else ends with the rack."""
        for each in self._stopped.values():
            each.send(signal.SIGCONT)
        self._stopped.clear()

    def _worker(self, fault: Fault) -> Mark | None:
        assert fault.job is not None
        assert fault.rank is not None
        return mark(self._jobs[fault.job.name].pid(fault.rank))

    def _stop(self, fault: Fault, whom: Mark | None) -> None:
        if whom is not None:
            self._stopped[fault.number] = whom
            whom.send(signal.SIGSTOP)

    def _hosts(self, fault: Fault) -> list[int]:
        workers = range(self._rack.options.workers)
        return list(workers) if fault.worker is None else [fault.worker]

    def _in(self, node: str) -> tuple[str, ...]:
        return enter(self._rack.record.nodes[node].namespace)

    def _links(self, fault: Fault, state: str) -> None:
        interfaces = self._rack.switch.interfaces()
        for host in self._hosts(fault):
            run(*self._in(SWITCH), "ip", "link", "set", interfaces[host + 1], state)

    def _filter(self, fault: Fault, rules: str) -> None:
        for host in self._hosts(fault):
            text = _CHAINS.format(
                number=fault.number,
                interface=f"w{host}-eth0",
                rules=rules.format(number=fault.number),
            )
            run(*self._in(f"w{host}"), "nft", text)
