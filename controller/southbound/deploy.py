"""``wiresum switch deploy``: has a P4Runtime switch run our program, once, and says what was there.

For switches that no controller drives yet, and to see whether one can be driven at all. It never
takes a switch away from whoever is in charge unless it is given a higher election id.
"""

import asyncio
import os
from dataclasses import asdict, dataclass
from typing import Any

from finsy import P4Client, P4ClientError, P4Schema
from finsy.proto import U128, p4r, rpc_code

from wiresum.common.address import parse_endpoint
from wiresum.common.errors import WiresumError
from wiresum.controller import lines
from wiresum.controller.southbound.apart import GoneError, apart
from wiresum.controller.southbound.p4runtime import (
    SouthboundError,
    explain,
    push,
    running,
    same_program,
)
from wiresum.controller.southbound.switch_tls import SwitchTls, target
from wiresum.p4 import LANE_COUNTS, Program, program

ELECTION_ID = 1
"""Lower than any controller's: a controller that is connected keeps its switch."""


_API_MAJOR = "1"


class DeployError(WiresumError):
    """The program could not be deployed."""


@dataclass(frozen=True)
class Deployment:
    """The outcome: the switch before and after.

    ``api_version`` is what it answers to Capabilities (empty: it does not know that call);
    ``before`` the program that it ran, as ``name version`` (empty: none); ``pushed`` is false
    where it ran the wanted program already.
    """

    p4runtime: str
    device_id: int
    api_version: str
    before: str
    after: str
    pushed: bool
    election_id: int

    def as_json(self) -> dict[str, Any]:
        """As plain values. A deployment is made as the primary client, or not at all."""
        return asdict(self) | {"primary": True}

    def lines(self) -> list[str]:
        """For people."""
        api = f"P4Runtime {self.api_version}" if self.api_version else "P4Runtime, version unknown"
        yes = "pushed" if self.pushed else "was there already: nothing pushed, its state is kept"
        return [
            f"{self.p4runtime} (device {self.device_id}): {api}",
            f"before:  {self.before or 'no program'}",
            f"primary: yes, with election id {self.election_id}",
            f"now:     {self.after} ({yes})",
        ]


def deploy(
    p4runtime: str,
    *,
    lanes: int,
    device_id: int = 0,
    election_id: int = ELECTION_ID,
    force: bool = False,
    timeout_s: float = 60.0,
    tls: SwitchTls | None = None,
) -> Deployment:
    """Have the switch at ``p4runtime`` run the program of ``lanes``.

    ``p4runtime`` is HOST:PORT, unix:/path, or https://HOST:PORT, for which ``tls`` names the
    files. A program that is there already is left alone, and its tables and registers with it,
    unless ``force``. Raises :class:`DeployError`, ``AddressError``, ``CertificateError``, or
    ``UnknownProgram`` for a number of lanes that no program has.
    """
    # No connection here may use a web proxy, and finsy's channels have no option for that.
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    if not p4runtime.startswith("unix:"):
        parse_endpoint(target(p4runtime), what="P4Runtime address")
    tls = tls or SwitchTls()
    tls.check()
    where = f"{p4runtime} (device {device_id})"
    wanted = program(lanes)
    try:
        return asyncio.run(
            apart(
                _deploy(p4runtime, tls, device_id, election_id, wanted, force),
                limit_s=timeout_s,
                late=lines.SWITCH_SILENT.of(address=p4runtime, limit_s=timeout_s),
                lost=lines.SWITCH_LOST.of(address=p4runtime),
            )
        )
    except (P4ClientError, SouthboundError, GoneError, RuntimeError) as error:
        raise DeployError(lines.NOT_DEPLOYED.of(why=explain(error, where))) from error


async def _deploy(
    p4runtime: str,
    tls: SwitchTls,
    device_id: int,
    election_id: int,
    wanted: Program,
    force: bool,
) -> Deployment:
    schema = P4Schema(wanted.p4info, wanted.json)
    credentials = tls.credentials(p4runtime)
    async with P4Client(target(p4runtime), credentials, wait_for_ready=False) as client:
        api_version = await _api_version(client)
        if api_version and api_version.partition(".")[0] != _API_MAJOR:
            raise SouthboundError(
                lines.OTHER_P4RUNTIME.of(address=p4runtime, version=api_version, ours=_API_MAJOR)
            )
        await _become_primary(client, p4runtime, device_id, election_id)
        before = await running(client, device_id)
        needed = force or before is None or not same_program(before, schema)
        if needed:
            await push(client, device_id, election_id, schema)
        after = await running(client, device_id)
        if after is None or not same_program(after, schema):
            raise SouthboundError(
                lines.OTHER_PROGRAM.of(address=p4runtime, name=_name(after) or "none")
            )
    return Deployment(
        p4runtime=p4runtime,
        device_id=device_id,
        api_version=api_version,
        before=_name(before),
        after=_name(after),
        pushed=needed,
        election_id=election_id,
    )


async def _api_version(client: P4Client) -> str:
    try:
        reply = await client.request(p4r.CapabilitiesRequest())
    except P4ClientError as error:
        if error.code.name == "UNIMPLEMENTED":
            return ""
        raise
    return str(reply.p4runtime_api_version)


async def _become_primary(
    client: P4Client, p4runtime: str, device_id: int, election_id: int
) -> None:
    """Open the stream and be in charge; raises :class:`SouthboundError` if another one is."""
    request = p4r.StreamMessageRequest()
    request.arbitration.device_id = device_id
    request.arbitration.election_id.CopyFrom(U128.encode(election_id))
    await client.send(request)
    try:
        standing = (await client.receive()).arbitration
    except P4ClientError as error:
        if error.is_election_id_used:
            raise SouthboundError(
                lines.ELECTION_ID_TAKEN.of(address=p4runtime, election_id=election_id)
            ) from error
        raise
    if standing.status.code == rpc_code.OK:
        return
    if standing.status.code == rpc_code.ALREADY_EXISTS:
        other = U128.decode(standing.election_id)
        raise SouthboundError(
            lines.ANOTHER_PRIMARY.of(
                address=p4runtime, other=other, ours=election_id, higher=other + 1
            )
        )
    raise SouthboundError(
        lines.ELECTION_ID_REFUSED.of(
            address=p4runtime, election_id=election_id, why=standing.status.message or "no reason"
        )
    )


def _name(pipeline: p4r.ForwardingPipelineConfig | None) -> str:
    """A program's name and version as its P4Info tells, and for one of ours its lanes."""
    if pipeline is None:
        return ""
    info = pipeline.p4info.pkg_info
    name = f"{info.name or 'a program without a name'} {info.version}".strip()
    for lanes in LANE_COUNTS:
        ours = program(lanes)
        if same_program(pipeline, P4Schema(ours.p4info, ours.json)):
            return f"{name}, {lanes} lanes"
    return name
