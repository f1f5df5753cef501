"""Which switches there are: adding, changing and removing them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import (
    MAX_HOSTS,
    MAX_PORT,
    check_name,
    check_p4runtime,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
    parse_network,
)
from wiresum.controller.state.model import HostRange, Job, JobState, Switch
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import Program, packet

DEFAULT_LANES = 256


@dataclass
class Switches:
    """The rules of adding and removing switches. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock
    programs: Callable[[int], Program]
    lane_counts: tuple[int, ...]

    def recover(self) -> list[Job]:
        """See how many slots switches have: another version of the program may have another number.

        Where there are fewer, jobs end that hold others; the answer is which.
        """
        ended = []
        for switch in self.store.switches():
            slots = self.programs(switch.lanes).slots
            if slots == switch.slots:
                continue
            beyond = [
                job
                for job in self.store.jobs_on(switch.name)
                if any(held.end > slots for held in job.ranges)
            ]
            reason = f"switch {switch.name} has {slots} slots since its program was upgraded"
            now = self.clock.now()
            with self.store.transaction() as transaction:
                transaction.put_switch(replace(switch, slots=slots), now)
                for job in beyond:
                    transaction.end_job(job.id, JobState.EVICTED, reason, now, None)
            ended += [each for job in beyond if (each := self.store.job(job.id)) is not None]
        return ended

    def add(self, request: pb.AddSwitchRequest) -> Switch:
        """Register a switch, or replace what is known of it as far as its jobs allow."""
        switch = self._parse(request)
        before = self.store.switch(switch.name)
        jobs = self.store.jobs_on(switch.name)
        if before and jobs and before.data_plane() != switch.data_plane():
            _refuse_busy(
                switch.name, jobs, "its address, MAC, lanes and hosts cannot be changed now"
            )
        for other in self.store.switches():
            same = _place(other) == _place(switch)
            if same and other.name != switch.name:
                raise ControllerError(
                    "ALREADY_EXISTS",
                    f"{switch.p4runtime} (device {switch.device_id}) is already known as switch "
                    f"{other.name}: remove that one first",
                )
        with self.store.transaction() as transaction:
            transaction.put_switch(switch, self.clock.now())
        return switch

    def remove(self, name: str) -> Switch:
        """Forget a switch without jobs; returns what was known of it."""
        switch = self.get(name)
        jobs = self.store.jobs_on(name)
        if jobs:
            _refuse_busy(name, jobs, "it cannot be removed now")
        with self.store.transaction() as transaction:
            transaction.remove_switch(name)
        return switch

    def drain(self, name: str, drain: bool) -> Switch:
        """Whether a switch takes no new jobs; those that it has are not touched."""
        switch = self.get(name)
        with self.store.transaction() as transaction:
            transaction.set_draining(name, drain)
        return switch

    def get(self, name: str) -> Switch:
        """The switch of that name."""
        switch = self.store.switch(name)
        if switch is None:
            known = ", ".join(known.name for known in self.store.switches()) or "none"
            raise ControllerError("NOT_FOUND", f"there is no switch {name[:80]!r} (known: {known})")
        return switch

    def _parse(self, request: pb.AddSwitchRequest) -> Switch:
        check_name(request.name, "switch")
        what = f"switch {request.name}"
        check_p4runtime(request.p4runtime, what)
        if request.device_id >= 1 << 63:
            invalid(f"{what}: device id {request.device_id} is too large")
        ip = parse_ip(request.ip, f"{what}: address")
        udp_port = request.udp_port or packet.UDP_PORT
        check_udp_port(udp_port, f"{what}: port")
        lanes = request.lanes or DEFAULT_LANES
        if lanes not in self.lane_counts:
            choices = " or ".join(str(count) for count in self.lane_counts)
            invalid(f"{what}: there is no program of {lanes} lanes: choose {choices}")
        hosts = [HostRange(parse_network(host.cidr), host.port) for host in request.hosts]
        if not hosts:
            invalid(f"{what} has no hosts: say behind which port workers are, e.g. 0.0.0.0/0=1")
        if len(hosts) > MAX_HOSTS:
            invalid(
                f"{what}: {len(hosts)} host ranges are too many: up to {MAX_HOSTS} are possible"
            )
        networks = Counter(host.network for host in hosts)
        for host in hosts:
            if not 0 < host.port <= MAX_PORT:
                invalid(f"{what}: {host.port} is not a switch port: it must be 1 to {MAX_PORT}")
            if networks[host.network] > 1:
                invalid(f"{what}: {host.network} is behind two ports: give each network once")
        shared = request.shared_address if request.HasField("shared_address") else ip.is_loopback
        return Switch(
            name=request.name,
            p4runtime=request.p4runtime,
            device_id=request.device_id,
            ip=ip,
            udp_port=udp_port,
            mac=parse_mac(request.mac, ip, f"{what}: MAC"),
            lanes=lanes,
            slots=self.programs(lanes).slots,
            hosts=tuple(sorted(hosts, key=lambda host: str(host.network))),
            shared_address=shared,
        )


def _place(switch: Switch) -> tuple[str, int]:
    """Which device it is, with TLS or without."""
    return switch.p4runtime.removeprefix("https://"), switch.device_id


def _refuse_busy(name: str, jobs: list[Job], consequence: str) -> NoReturn:
    labels = ", ".join(job.label for job in jobs[:4])
    more = f" and {len(jobs) - 4} more" if len(jobs) > 4 else ""
    raise ControllerError(
        "FAILED_PRECONDITION",
        f"switch {name} has live jobs ({labels}{more}): {consequence}; wait for them to end",
    )
