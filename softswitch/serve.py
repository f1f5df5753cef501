"""``wiresum switch serve``: ports, program and P4Runtime server in one process."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finsy.proto import p4r
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from wiresum.common import logs
from wiresum.common.children.parent import watch_parent
from wiresum.common.errors import WiresumError
from wiresum.common.signals import serve_until
from wiresum.softswitch import _softswitch, lines
from wiresum.softswitch.compiler import load_program
from wiresum.softswitch.control import NativeControl
from wiresum.softswitch.metrics import SwitchReader, serve_metrics
from wiresum.softswitch.p4runtime.device import Device
from wiresum.softswitch.p4runtime.server import P4RuntimeServer
from wiresum.softswitch.p4runtime.service import P4RuntimeService
from wiresum.softswitch.p4runtime.status import P4RuntimeError
from wiresum.softswitch.p4runtime.tls import ServerTls
from wiresum.softswitch.ports import PortSpec, SwitchPorts
from wiresum.softswitch.processes import end_children

log = logging.getLogger("wiresum.switch")


class ServeError(WiresumError):
    """The switch cannot serve what it was told to."""


@dataclass(frozen=True)
class ServeOptions:
    """What ``wiresum switch serve`` is told.

    ``program`` is a BMv2 JSON to run from the start (None: a controller brings one) and
    ``p4info`` its P4Info, text or binary (None: empty, a controller can name nothing in it).
    ``tls``: the certificates of the P4Runtime server (None: in plain text).
    """

    p4runtime: str
    ports: Sequence[PortSpec] = field(default_factory=list)
    program: Path | None = None
    p4info: Path | None = None
    device_id: int = 0
    cpu_port: int | None = None
    exit_with_parent: bool = False
    metrics: str | None = None
    tls: ServerTls | None = None
    log_format: str = "text"


class EmbeddedSwitch:
    """The ports and the program that runs between them.

    Implements :class:`wiresum.softswitch.p4runtime.dataplane.SwitchTarget`.
    """

    def __init__(self, ports: SwitchPorts, cpu_port: int | None) -> None:
        self._ports = ports
        self._cpu_port = cpu_port
        self.dataplane: _softswitch.Dataplane | None = None
        """The running program."""

    def prepare(self, device_config: bytes) -> object:
        """Compile a BMv2 JSON, if that has not been done before, and load it."""
        return _softswitch.Dataplane(str(load_program(device_config)))

    def commit(self, prepared: object) -> NativeControl:
        """Let frames run through a loaded program from now on."""
        assert isinstance(prepared, _softswitch.Dataplane)
        # VERIFY_AND_SAVE prepares long before: the state is new only if it is made new here.
        prepared.reset()
        self._ports.native.set_dataplane(prepared)
        self.dataplane = prepared
        return NativeControl(prepared)

    def packet_out(self, frame: bytes) -> None:
        """Give the program a frame from the controller."""
        if self._cpu_port is None:
            raise ServeError(lines.NO_CPU_PORT.of())
        if not self._ports.native.inject(frame):
            raise ServeError(lines.TOO_MANY_PACKET_OUTS.of())


def read_config(program: Path, p4info: Path | None) -> p4r.ForwardingPipelineConfig:
    """Read a program's JSON and P4Info; raises :class:`ServeError`."""
    config = p4r.ForwardingPipelineConfig()
    try:
        config.p4_device_config = program.read_bytes()
        if p4info is None:
            return config
        data = p4info.read_bytes()
    except OSError as error:
        raise ServeError(lines.CANNOT_READ.of(path=error.filename, why=error.strerror)) from error
    try:
        text_format.Parse(data.decode(), config.p4info)
    except (UnicodeDecodeError, text_format.ParseError) as not_text:
        config.ClearField("p4info")
        try:
            config.p4info.ParseFromString(data)
        except DecodeError:
            raise ServeError(lines.NOT_P4INFO.of(path=p4info, why=not_text)) from not_text
    return config


async def serve(options: ServeOptions, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serve until a signal asks for the end, or the parent ends; call ``ready`` once it works.

    Raises WiresumError where it cannot start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    serve_until(loop, stop.set)
    if options.exit_with_parent:
        watch_parent(loop, stop.set)
    config = None if options.program is None else read_config(options.program, options.p4info)
    ports = SwitchPorts(options.ports, options.cpu_port)
    switch = EmbeddedSwitch(ports, options.cpu_port)
    device = Device(options.device_id, switch)
    service = P4RuntimeService(device)
    server = P4RuntimeServer(service)
    metrics = None
    stopped = asyncio.ensure_future(stop.wait())
    loop.add_signal_handler(signal.SIGUSR1, lambda: log.info("%s", json.dumps(ports.stats())))
    try:
        if config is not None:
            load = asyncio.ensure_future(device.prepare(config))
            await asyncio.wait({load, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not load.done():
                # The compiler is ended below; its outcome does not matter.
                load.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                return
            try:
                device.commit(load.result())
            except P4RuntimeError as error:
                raise ServeError(
                    lines.PROGRAM_REFUSED.of(program=options.program, why=error.message)
                ) from error
        address = await server.start(options.p4runtime, options.tls)
        loop.add_reader(ports.native.controller_fd(), _packet_ins, ports, service)
        ports.native.start()
        facts: dict[str, Any] = {
            "p4runtime": address,
            "device_id": options.device_id,
            "ports": {str(n): where for n, where in ports.addresses.items()},
        }
        if options.metrics is not None:
            reader = SwitchReader(
                ports, device, lambda: switch.dataplane, service.controllers, address
            )
            metrics = serve_metrics(options.metrics, reader)
            facts["metrics"] = str(metrics.address)
        if not stop.is_set():
            ready(facts)
        await stopped
        log.info("%s", json.dumps(ports.stats()))
    finally:
        stopped.cancel()
        if metrics is not None:
            metrics.close()
        loop.remove_reader(ports.native.controller_fd())
        await server.stop()
        ports.native.stop()
        # A compiler may still run for a program that is not needed any more.
        end_children()


def _packet_ins(ports: SwitchPorts, service: P4RuntimeService) -> None:
    for frame in ports.native.take_for_controller():
        service.packet_in(frame)


def run(options: ServeOptions) -> None:
    """Serve, with one line of JSON on stdout once it works and the log on stderr."""
    logs.configure(options.log_format, level=logging.INFO, text="%(asctime)s %(name)s: %(message)s")

    def ready(facts: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(facts) + os.linesep)
        sys.stdout.flush()

    asyncio.run(serve(options, ready))
