"""A client of several controllers, which are played by servers without a store."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest

from wiresum.common.address import AddressError
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.address import parse_addresses
from wiresum.controller.client.channel import NOT_LEADING, RETRY_AFTER_MS
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc


class Player(pb_grpc.ControllerServicer):
    """Answers as a leader, as a follower, or not at all."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.heard = 0
        self.go_on = threading.Event()

    def ListTenants(self, request: Any, context: Any) -> pb.ListTenantsResponse:
        self._play(context)
        return pb.ListTenantsResponse(tenants=[pb.Tenant(name=self.name)])

    def AddTenant(self, request: Any, context: Any) -> pb.Tenant:
        self._play(context)
        return pb.Tenant(name=self.name)

    def _play(self, context: Any) -> None:
        self.heard += 1
        if self.role == "follows":
            context.set_trailing_metadata(((RETRY_AFTER_MS, "100"), (NOT_LEADING, "1")))
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.name} does not lead")
        if self.role == "fails":
            context.set_trailing_metadata(((RETRY_AFTER_MS, "100"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the disk is full")
        if self.role == "hangs":
            self.go_on.wait(30.0)


@contextmanager
def playing(*roles: str) -> Iterator[tuple[list[Player], list[str]]]:
    """Servers with these roles, and their addresses; one that is ``gone`` is nobody's."""
    with ExitStack() as stack:
        players, addresses = [], []
        for number, role in enumerate(roles):
            player = Player(f"c{number}", role)
            if role == "gone":
                # Its port stays taken, and nobody listens there.
                reserved = stack.enter_context(socket.socket())
                reserved.bind(("127.0.0.1", 0))
                port = reserved.getsockname()[1]
            else:
                threads = futures.ThreadPoolExecutor(4)
                server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
                pb_grpc.add_ControllerServicer_to_server(player, server)
                port = server.add_insecure_port("127.0.0.1:0")
                server.start()
                stack.callback(lambda server=server: server.stop(None).wait())
                stack.callback(player.go_on.set)
            players.append(player)
            addresses.append(f"http://127.0.0.1:{port}")
        yield players, addresses


def client(addresses: list[str], timeout_s: float = 20.0) -> ControllerClient:
    return ControllerClient(",".join(addresses), token="t", timeout_s=timeout_s)


@pytest.mark.parametrize("other", ["follows", "gone"])
def test_calls_go_to_the_one_that_leads(other: str) -> None:
    with playing(other, "leads") as (players, addresses), client(addresses) as asker:
        for _ in range(3):
            assert [tenant.name for tenant in asker.list_tenants()] == ["c1"]
        assert asker.add_tenant("x").name == "c1"
        # The other was asked once: a client stays with the leader that it has found.
        assert players[0].heard == (other == "follows")
        assert str(asker.address) in addresses[1]
        players[0].role, players[1].role = "leads", "follows"
        if other == "follows":
            assert [tenant.name for tenant in asker.list_tenants()] == ["c0"]


def test_a_client_waits_until_one_leads() -> None:
    with (
        playing("follows", "follows") as (players, addresses),
        client(addresses) as asker,
        futures.ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(asker.list_tenants)
        while players[1].heard < 2 and not answer.done():
            time.sleep(0.01)
        players[1].role = "leads"
        assert [tenant.name for tenant in answer.result(30.0)] == ["c1"]


def test_a_client_that_finds_no_leader_says_what_it_has_heard() -> None:
    with playing("follows", "gone") as (_, addresses), client(addresses, 1.0) as asker:
        with pytest.raises(
            NotLeading, match=r"none of the controllers .* leads: c0 does"
        ) as caught:
            asker.list_tenants()
        # Somebody is there: a worker's lease is not given up for it.
        assert caught.value.retry_after_s is not None
    with playing("gone", "gone") as (_, addresses), client(addresses) as asker:
        with pytest.raises(ControllerError, match=r"can be reached; the last: .* refused") as found:
            asker.list_tenants()
        assert (found.value.code, found.value.retry_after_s) == ("UNAVAILABLE", None)
        assert ",".join(addresses) in str(found.value)


def test_a_store_that_fails_is_no_reason_to_ask_another() -> None:
    with playing("fails", "leads") as (players, addresses), client(addresses) as asker:
        with pytest.raises(ControllerError, match="disk is full"):
            asker.list_tenants()
        assert players[1].heard == 0


def test_what_may_have_happened_is_not_done_twice() -> None:
    """The first hears the call and dies; the second leads by then."""
    with playing("hangs", "leads") as (players, addresses), client(addresses, 3.0) as asker:
        with pytest.raises(ControllerError, match="did not answer within 3 s"):
            asker.add_tenant("x")
        assert (players[0].heard, players[1].heard) == (1, 0)
        # The next call begins with the other.
        assert [tenant.name for tenant in asker.list_tenants()] == ["c1"]


def test_addresses_have_commas_between_them() -> None:
    found = parse_addresses("a:1, http://127.0.0.1:2,a:1")
    assert list(map(str, found)) == ["a:1", "http://127.0.0.1:2"]
    for wrong in ("a:1,", ",", "a:1;b:2"):
        with pytest.raises(AddressError, match="HOST:PORT"):
            parse_addresses(wrong)
