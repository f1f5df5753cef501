"""The network that is planned: racks alike, hosts alike, uplinks to a spine that never blocks."""

from dataclasses import dataclass

from wiresum.measure.model.links import Link


@dataclass(frozen=True)
class Fabric:
    """``racks`` of ``hosts`` each; Gbit/s for links; µs for a round trip from a host to its switch.

    ``slots``: of each switch, leaf or spine. ``loss``: of each frame on each link. ``jitter``: how
    much longer a step of a worker may take, as the mean of an exponential share of it.
    ``stragglers``: the share of steps in which a worker takes ``straggler_factor`` times as long.
    """

    racks: int
    hosts: int
    link_gbit: float = 10.0
    uplink_gbit: float = 100.0
    uplinks: int = 1
    round_trip_us: float = 50.0
    slots: int = 4096
    lanes: int = 256
    mtu: int = 1500
    loss: float = 0.0
    jitter: float = 0.0
    stragglers: float = 0.0
    straggler_factor: float = 2.0

    @property
    def link(self) -> Link:
        """A host's link."""
        return Link.of(self.round_trip_us / 2, self.link_gbit)

    @property
    def uplink_bytes(self) -> float:
        """Bytes per second of all uplinks of a rack together."""
        return self.uplinks * self.uplink_gbit * 1e9 / 8

    @property
    def oversubscription(self) -> float:
        """What all hosts of a rack may send, by what its uplinks carry."""
        return self.hosts * self.link_gbit / (self.uplinks * self.uplink_gbit)
