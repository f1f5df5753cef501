"""The fallback's connections are found among all others, and only they are ended."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from wiresum.host_agent.backend.connections import Connections


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def connect(stack: ExitStack, server: socket.socket) -> socket.socket:
    ours = stack.enter_context(socket.create_connection(server.getsockname()))
    theirs, _ = server.accept()
    # In the same process, but not one of the connections that count: as if it were another's.
    stack.enter_context(theirs)
    theirs.settimeout(10.0)
    ours.settimeout(10.0)
    return ours


def test_what_was_opened_inside_is_ended_and_nothing_else(server: socket.socket) -> None:
    with ExitStack() as stack:
        before = connect(stack, server)
        with Connections() as opened:
            inside = connect(stack, server)
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # listens only
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        after = connect(stack, server)
        assert opened.sever(2)  # both ends are in this process
        assert inside.recv(1) == b""
        for other in (before, after):
            other.sendall(b"x")


def test_nothing_is_ended_if_it_is_not_clear_whose_it_is(server: socket.socket) -> None:
    with ExitStack() as stack:
        with Connections() as opened:
            inside = connect(stack, server)
        assert not opened.sever(1)
        inside.sendall(b"x")


def test_a_descriptor_that_is_another_socket_by_now_is_left_alone(server: socket.socket) -> None:
    with ExitStack() as stack:
        with Connections() as opened:
            gone = connect(stack, server)
        number = gone.fileno()
        gone.close()
        another = connect(stack, server)
        assert another.fileno() == number
        assert not opened.sever(2)
        another.sendall(b"x")
