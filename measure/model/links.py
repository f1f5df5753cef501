"""A link between two hosts, as Hockney's model has it, and what protection adds to its frames."""

from dataclasses import dataclass

from wiresum.measure.model.limits import IPV4


@dataclass(frozen=True)
class Link:
    """A message of S bytes takes ``alpha_s + S / beta`` seconds one way (Hockney, 1994).

    ``alpha_s``: seconds; ``beta``: bytes per second, of frames with their Ethernet headers.
    """

    alpha_s: float
    beta: float

    @classmethod
    def of(cls, alpha_us: float, beta_gbit: float) -> "Link":
        """From microseconds and Gbit/s."""
        return cls(alpha_us * 1e-6, beta_gbit * 1e9 / 8)

    @property
    def beta_gbit(self) -> float:
        """Gbit/s."""
        return self.beta * 8 / 1e9

    def seconds(self, wire_bytes: float) -> float:
        """One message of ``wire_bytes`` bytes, headers included."""
        return self.alpha_s + wire_bytes / self.beta


@dataclass(frozen=True)
class Protection:
    """What encrypts and authenticates the traffic of the job.

    ``frame_bytes``: added to every frame. ``summable``: whether a switch can still add what the
    frames carry. ``in_software``: whether the hosts' cores pay for it.
    """

    name: str
    title: str
    frame_bytes: int
    summable: bool
    in_software: bool


NONE = Protection("none", "none: keys in the clear, as wiresum sends them", 0, True, False)
PROTECTIONS = {
    each.name: each
    for each in (
        NONE,
        # IEEE 802.1AE: SecTAG 16 with SCI, ICV 16. Each hop decrypts, so a switch can add.
        Protection("macsec", "MACsec, in the interfaces", 32, True, False),
        # WireGuard: IPv4 20, UDP 8, header 16, tag 16, between hosts: a switch sees ciphertext.
        Protection("wireguard", "WireGuard between the hosts", IPV4 + 8 + 16 + 16, False, True),
    )
}
"""By name. wiresum's own packets carry a key of 8 bytes and a fingerprint of 4 in their 28 bytes of
header, and gloo's carry neither: that is in the model in any case (docs/security.md)."""
