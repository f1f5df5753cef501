"""A controller whose host dies silently loses its role, although its connection stays open."""

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from finsy.proto import p4r_grpc, rpc_code

from support.half_open import Wire
from support.p4runtime import Client

BASE = 1 << 90
LIMIT_S = 60.0


@pytest.fixture
def embedded(target: str, address: str) -> str:
    if target != "embedded":
        pytest.skip("how BMv2 watches over its connections is not ours to say")
    return address


@pytest.fixture
def wire(embedded: str) -> Iterator[Wire]:
    with Wire(embedded) as made:
        yield made


def stay(client: Client, election_id: int) -> None:
    """Open the stream of a controller that does not say when it will end."""
    client._stream = client.stub.StreamChannel(client._outgoing())
    client.arbitrate(election_id)
    # A stream of which nothing comes any more must fail the test and not hang it.
    timer = threading.Timer(LIMIT_S, client._stream.cancel)
    timer.daemon = True
    timer.start()


def test_a_silent_primary_makes_room_for_its_successor(wire: Wire, embedded: str) -> None:
    with Client(wire.address) as dead, Client(embedded) as successor:
        stay(dead, BASE + 9)
        assert dead.standing() == (rpc_code.OK, BASE + 9)
        stay(successor, BASE + 5)
        assert successor.standing() == (rpc_code.ALREADY_EXISTS, BASE + 9)
        wire.cut()
        assert successor.standing() == (rpc_code.OK, BASE + 5)


def test_a_live_controller_stays_however_often_it_pings(embedded: str) -> None:
    """It sends no message for longer than the limit for silent clients, and many pings."""
    options = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with Client(embedded) as client:
        client.channel.close()
        client.channel = grpc.insecure_channel(embedded, options=options)
        client.stub = p4r_grpc.P4RuntimeStub(client.channel)
        stay(client, BASE + 20)
        assert client.standing() == (rpc_code.OK, BASE + 20)
        time.sleep(12.0)
        client.arbitrate(BASE + 21)
        assert client.standing() == (rpc_code.OK, BASE + 21)
