"""The embedded switch's commands; the root command mounts ``serve`` as ``wiresum switch serve``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum import p4
from wiresum.common import logs, places
from wiresum.common.command_line import Option
from wiresum.common.command_line.serving import ExitWithParent, LogFormat, Metrics
from wiresum.common.errors import WiresumError
from wiresum.softswitch import lines

if TYPE_CHECKING:
    from wiresum.softswitch.p4runtime.tls import ServerTls


class OptionError(WiresumError):
    """Options that contradict each other."""

    exit_code = 2


def _p4info_beside(program: Path) -> Path | None:
    """P4Info where p4c's users put it: next to the JSON, under the same name."""
    for ending in (".p4info.txtpb", ".p4info.txt", ".p4info.bin"):
        candidate = program.parent / f"{program.stem}{ending}"
        if candidate.exists():
            return candidate
    return None


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> "ServerTls | None":
    from wiresum.softswitch.p4runtime.tls import ServerTls

    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise OptionError(lines.TLS_PAIR.of())
    return ServerTls(
        places.expand(cert),
        places.expand(key),
        None if client_ca is None else places.expand(client_ca),
    )


def serve(
    port: Annotated[
        list[str] | None,
        Option(
            metavar="N=KIND:ADDRESS",
            help="A port: 1=udp:127.0.0.1:0 (rootless; 0 is any free port), 2=raw:eth1 or "
            "3=shm:/run/wiresum.sock (workers on this host). "
            "With ?loss=0.01&seed=7 it loses frames at random, for tests. Repeat for more.",
        ),
    ] = None,
    lanes: Annotated[
        int | None,
        Option(help=f"Start with wiresum's own program for so many lanes: {p4.LANE_COUNTS}."),
    ] = None,
    program: Annotated[
        Path | None, Option(help="Start with this v1model program: p4c's BMv2 JSON.")
    ] = None,
    p4info: Annotated[
        Path | None,
        Option(help="The program's P4Info. [default: next to it, FILE.p4info.txtpb]"),
    ] = None,
    p4runtime: Annotated[
        str, Option(metavar="ADDRESS", help="HOST:PORT (port 0: any) or unix:/path.")
    ] = "127.0.0.1:9559",
    p4runtime_tls_cert: Annotated[
        Path | None,
        Option(metavar="FILE", help="Serve P4Runtime with TLS: its certificate (chain), PEM."),
    ] = None,
    p4runtime_tls_key: Annotated[Path | None, Option(metavar="FILE", help="Its key, PEM.")] = None,
    p4runtime_client_ca: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Controllers must show a certificate that this authority has signed.",
        ),
    ] = None,
    device_id: Annotated[
        int, Option(min=0, max=(1 << 63) - 1, help="P4Runtime's name of this switch.")
    ] = 0,
    cpu_port: Annotated[
        int | None,
        Option(help="The port number that stands for the controller (packet-in and -out)."),
    ] = None,
    exit_with_parent: ExitWithParent = False,
    metrics: Metrics = None,
    log_format: LogFormat = None,
) -> None:
    """Run the embedded switch until SIGTERM or SIGINT.

    Prints one line of JSON once it serves: where P4Runtime listens and where the ports are.
    """
    # Imported here: `wiresum --help` must not load gRPC and the native module.
    from wiresum.softswitch.ports import parse_port
    from wiresum.softswitch.serve import ServeOptions, run

    if lanes is not None and program is not None:
        raise OptionError(lines.LANES_AND_PROGRAM.of())
    if p4info is not None and program is None:
        raise OptionError(lines.P4INFO_WITHOUT_PROGRAM.of())
    if lanes is not None:
        own = p4.program(lanes)
        program, p4info = own.json, own.p4info
    elif program is not None and p4info is None:
        p4info = _p4info_beside(program)
    run(
        ServeOptions(
            p4runtime=p4runtime,
            ports=[parse_port(text) for text in port or []],
            program=program,
            p4info=p4info,
            device_id=device_id,
            cpu_port=cpu_port,
            exit_with_parent=exit_with_parent,
            metrics=metrics,
            tls=_tls(p4runtime_tls_cert, p4runtime_tls_key, p4runtime_client_ca),
            log_format=logs.log_format(log_format),
        )
    )
