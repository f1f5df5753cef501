"""A switch as an operator describes it: the options of ``switch add``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Option
from wiresum.controller import lines

if TYPE_CHECKING:
    from wiresum.controller.southbound.switch_tls import SwitchTls
    from wiresum.controller.v1 import controller_pb2 as pb

P4Runtime = Annotated[
    str,
    Option(
        metavar="ADDR",
        help="Its P4Runtime server: HOST:PORT, https://HOST:PORT (with TLS) or unix:/path.",
    ),
]
Lanes = Annotated[int, Option(min=1, max=65535, help="Lanes of the program to run on it.")]
DeviceId = Annotated[int, Option(min=0, max=(1 << 63) - 1, help="Its P4Runtime device id.")]


@dataclass(frozen=True)
class P4RuntimeTls:
    """The files for TLS to switches at ``https://HOST:PORT``."""

    p4runtime_ca: Annotated[
        str,
        Option(
            metavar="FILE", help="Authority of the certificates of switches at https://HOST:PORT."
        ),
    ] = ""
    p4runtime_cert: Annotated[
        str, Option(metavar="FILE", help="Certificate to show to such a switch, PEM.")
    ] = ""
    p4runtime_key: Annotated[str, Option(metavar="FILE", help="Its key, PEM.")] = ""

    def files(self) -> "SwitchTls":
        """The same for the part of the controller that connects to switches."""
        from wiresum.controller.southbound.switch_tls import SwitchTls

        return SwitchTls(self.p4runtime_ca, self.p4runtime_cert, self.p4runtime_key)


NO_FILES = P4RuntimeTls()


@dataclass(frozen=True)
class SwitchOptions:
    """All options of a switch but its name."""

    p4runtime: P4Runtime
    address: Annotated[str, Option(metavar="IP:UDPPORT", help="Where workers send their packets.")]
    host: Annotated[
        list[str],
        Option(metavar="CIDR=PORT", help="Workers in CIDR are behind its port PORT."),
    ]
    mac: Annotated[str, Option(help="Its MAC address  [default: 02:00:<ip>]")] = ""
    lanes: Lanes = 256
    device_id: DeviceId = 0
    shared_address: Annotated[
        bool | None,
        Option(
            "--shared-address/--own-address",
            help="Whether workers may have its own address, as on a softswitch's host  "
            "[default: for a loopback address]",
        ),
    ] = None

    def request(self, name: str) -> "pb.AddSwitchRequest":
        """The request that adds the switch. Raises ``SpecError`` and ``AddressError``."""
        from wiresum.common.address import parse_endpoint
        from wiresum.controller.client import add_switch_request

        endpoint = parse_endpoint(self.address, what=f"switch {name}: address")
        return add_switch_request(
            name,
            p4runtime=self.p4runtime,
            ip=endpoint.host,
            udp_port=endpoint.port,
            hosts=[_host(name, text) for text in self.host],
            mac=self.mac,
            lanes=self.lanes,
            device_id=self.device_id,
            shared_address=self.shared_address,
        )


def _host(name: str, text: str) -> tuple[str, int]:
    cidr, equals, port = text.rpartition("=")
    if not equals or not port.isdecimal() or int(port) > 0xFFFF:
        from wiresum.controller.errors import SpecError

        raise SpecError(lines.SPEC_HOST.of(switch=name, text=text))
    return cidr, int(port)
