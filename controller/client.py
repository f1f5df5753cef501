"""A synchronous client of the controller, for host agents, launchers and the command line.

It needs grpcio and the generated stubs only: neither the store nor the P4Runtime client.
"""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.version import package_version
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

DEFAULT_CONTROLLER = "127.0.0.1:7500"
"""Where a controller listens, and is looked for, when nobody says otherwise."""

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # An http_proxy in the environment is meant for the web, not for the cluster's control plane.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also the limit of one attempt to connect: a busy controller may take its time to greet.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

# How much longer than the controller's own limit a long poll may take before it is given up:
# the controller's answer says which ranks are missing, a local deadline could not.
_JOIN_MARGIN_S = 5.0

_RETRY_S = 0.2

_R = TypeVar("_R")


class ControllerClient:
    """A connection to one controller; thread-safe, usable as a context manager.

    ``address`` is ``HOST:PORT``. Every call has a deadline: ``timeout_s`` unless the method
    says otherwise. Every method raises :class:`ControllerError`; its message is one line.
    """

    def __init__(
        self, address: str | Endpoint = DEFAULT_CONTROLLER, *, timeout_s: float = 10.0
    ) -> None:
        if isinstance(address, str):
            address = parse_endpoint(address, what="controller address")
        self._address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(str(address), options=_CHANNEL_OPTIONS)
        self._stub = pb_grpc.ControllerStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> Endpoint:
        """Where the controller is."""
        return self._address

    def close(self) -> None:
        """Close the connection; calls in progress fail."""
        self._channel.close()

    # ---- jobs

    def create_job(self, name: str = "", *, slots: int = 0, switch: str = "") -> pb.Job:
        """Reserve ``slots`` (0: the default) for a job, or attach to the live one of that name."""
        request = pb.CreateJobRequest(name=name, slots_wanted=slots, switch=switch)
        return self._call(self._stub.CreateJob, request)

    def join_job(
        self,
        job_id: str,
        token: str,
        *,
        rank: int,
        workers: int,
        attempt: int,
        ip: str,
        udp_port: int,
        field: int,
        mac: str = "",
        program_version: str = "",
        timeout_s: float = 60.0,
        unreachable_s: float = 10.0,
    ) -> pb.Lease:
        """Join one attempt of a job; returns when all ``workers`` ranks have, with the lease.

        ``attempt`` grows with every restart; ``ip`` and ``udp_port`` are where this rank's
        socket is bound. Waits at most ``timeout_s``; the error then names the missing ranks.
        A controller that goes away meanwhile is asked again for ``unreachable_s``.
        """
        request = pb.JoinJobRequest(
            job_id=job_id,
            token=token,
            rank=rank,
            workers=workers,
            attempt=attempt,
            ip=ip,
            udp_port=udp_port,
            mac=mac,
            field=field,
            agent_version=package_version(),
            program_version=program_version,
        )
        deadline = time.monotonic() + timeout_s
        give_up: float | None = None
        while True:
            now = time.monotonic()
            # 0 would ask for the controller's default.
            request.timeout_s = max(deadline - now, 0.001)
            try:
                return self._call(
                    self._stub.JoinJob, request, timeout_s=request.timeout_s + _JOIN_MARGIN_S
                )
            except ControllerError as error:
                now = time.monotonic()
                give_up = min(deadline, give_up or now + unreachable_s)
                if error.code != "UNAVAILABLE" or now + _RETRY_S >= give_up:
                    raise
                time.sleep(_RETRY_S)

    def heartbeat(self, job_id: str, token: str) -> pb.HeartbeatResponse:
        """Keep a job alive; returns its state and current epoch, also if it is over."""
        return self._call(self._stub.Heartbeat, pb.HeartbeatRequest(job_id=job_id, token=token))

    def release_job(self, job_id: str, token: str) -> pb.ReleaseJobResponse:
        """End a job and free its slots; harmless if it is over."""
        return self._call(self._stub.ReleaseJob, pb.ReleaseJobRequest(job_id=job_id, token=token))

    def get_job(self, job_id: str, *, counters: bool = False) -> pb.Job:
        """A job by id or name; with ``counters``, also the switch's events for it."""
        return self._call(self._stub.GetJob, pb.GetJobRequest(job_id=job_id, counters=counters))

    def list_jobs(self, *, counters: bool = False, live_only: bool = False) -> list[pb.Job]:
        """All jobs, newest first."""
        request = pb.ListJobsRequest(counters=counters, live_only=live_only)
        return list(self._call(self._stub.ListJobs, request).jobs)

    def list_slots(self, switch: str = "") -> list[pb.SwitchSlots]:
        """Who holds which slots, per switch, in order of slots."""
        request = pb.ListSlotsRequest(switch=switch)
        return list(self._call(self._stub.ListSlots, request).switches)

    # ---- switches

    def add_switch(self, request: pb.AddSwitchRequest) -> pb.Switch:
        """Register a switch or update the one of that name."""
        return self._call(self._stub.AddSwitch, request)

    def list_switches(self, *, counters: bool = False) -> list[pb.Switch]:
        """All switches by name; with ``counters``, also the packets that each has dropped."""
        request = pb.ListSwitchesRequest(counters=counters)
        return list(self._call(self._stub.ListSwitches, request).switches)

    def remove_switch(self, name: str) -> None:
        """Forget a switch that no live job uses."""
        self._call(self._stub.RemoveSwitch, pb.RemoveSwitchRequest(name=name))

    # ----

    def _call(
        self, method: Callable[..., _R], request: Any, *, timeout_s: float | None = None
    ) -> _R:
        limit = self._timeout_s if timeout_s is None else timeout_s
        try:
            return method(request, timeout=limit)
        except grpc.RpcError as error:
            raise self._explain(error, limit) from None
        except ValueError:
            # What grpcio raises for a call on a closed channel.
            raise ControllerError(
                "CANCELLED", f"the connection to controller {self._address} has been closed"
            ) from None

    def _explain(self, error: grpc.RpcError, limit: float) -> ControllerError:
        code: grpc.StatusCode = error.code()
        details = _one_line(error.details() or "")
        if code == grpc.StatusCode.UNAVAILABLE:
            return ControllerError(
                code.name,
                f"controller {self._address} cannot be reached ({_cause(details)}): "
                "is `wiresum controller serve` running there?",
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":
            return ControllerError(
                code.name, f"controller {self._address} did not answer within {limit:g} s"
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return ControllerError(
                code.name, f"{self._address} is not a wiresum controller, or an older one"
            )
        return ControllerError(
            code.name, details or f"controller {self._address} answered {code.name}"
        )


def add_switch_request(
    name: str,
    *,
    p4runtime: str,
    ip: str,
    udp_port: int,
    hosts: Iterable[tuple[str, int]],
    mac: str = "",
    lanes: int = 0,
    device_id: int = 0,
    shared_address: bool | None = None,
) -> pb.AddSwitchRequest:
    """The request that describes a switch; ``hosts`` are pairs of CIDR and switch port."""
    return pb.AddSwitchRequest(
        name=name,
        p4runtime=p4runtime,
        device_id=device_id,
        ip=ip,
        udp_port=udp_port,
        mac=mac,
        lanes=lanes,
        hosts=[pb.Host(cidr=cidr, port=port) for cidr, port in hosts],
        shared_address=shared_address,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cause(details: str) -> str:
    """The operating system's word for it, out of gRPC's longer story."""
    for known in ("Connection refused", "No route to host", "Name or service not known"):
        if known.lower() in details.lower():
            return known.lower()
    return details or "no answer"
