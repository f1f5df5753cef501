"""The probe of the links: who meets whom, and that it ends whatever the other ranks do."""

import contextlib
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

import torch.distributed as dist  # noqa: E402

from wiresum.host_agent.observe import probe as room  # noqa: E402
from wiresum.host_agent.observe.link import Deadline, Door, reach  # noqa: E402
from wiresum.host_agent.observe.rounds import MOST_MEMBERS, members, partners  # noqa: E402


@given(st.sets(st.integers(0, 500), min_size=2, max_size=20))
def test_everybody_meets_everybody_once_and_one_at_a_time(ranks):
    among = sorted(ranks)
    met = {rank: partners(among, rank) for rank in among}
    for rank, order in met.items():
        assert sorted(order) == [each for each in among if each != rank]
    # Whoever is first in both orders meets, again and again, until all have met: nobody waits.
    while any(met.values()):
        pairs = [(a, met[a][0]) for a in among if met[a] and met[met[a][0]][0] == a]
        assert pairs
        for a, b in pairs:
            assert met[a].pop(0) == b


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=100))
def test_one_rank_of_each_host_probes_or_all_of_one_host(hosts):
    found = members(hosts)
    if len(set(hosts)) == 1:
        assert found == list(range(len(hosts)))[:MOST_MEMBERS]
    else:
        assert [hosts.index(host) for host in sorted(set(hosts), key=hosts.index)] == found


def probed(ranks: range, size: int, store, limit_s: float) -> dict[int, dict]:
    found: dict[int, dict] = {}

    def run(rank: int) -> None:
        found[rank] = room.probe(store, rank, size, limit_s)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return found


def test_all_directions_of_all_pairs_are_timed():
    found = probed(range(3), 3, dist.HashStore(), 20)
    for rank in range(3):
        assert found[rank]["links_note"] == ""
        directions = sorted((each["from"], each["to"]) for each in found[rank]["links"])
        assert directions == [(a, b) for a in range(3) for b in range(3) if a != b]
    for each in found[0]["links"]:
        assert 0 < each["rtt_s"] < 10
        assert each["samples"][0][0] == 1 << 16
        assert each["mss"] > 500


def test_a_rank_that_does_not_come_ends_the_probe_in_time():
    began = time.monotonic()
    found = probed(range(2), 3, dist.HashStore(), 1.0)
    assert time.monotonic() - began < 30
    for each in found.values():
        assert each["links"] == []
        assert "no answer" in each["links_note"]


def test_a_rank_that_cannot_be_reached_is_named_and_the_others_are_measured():
    store = dist.HashStore()
    shared = dist.PrefixStore("wiresum/measure", store)
    shared.set("at/0", room.Place(room._network(), [("127.0.0.1", 9)], bytes(16)).said())
    shared.set("links/0", '[[], ""]')
    for found in probed(range(1, 4), 4, store, 30.0).values():
        assert found["links_note"].startswith("rank 1 and rank 0: ")
        directions = sorted((each["from"], each["to"]) for each in found["links"])
        assert directions == [(a, b) for a in range(1, 4) for b in range(1, 4) if a != b]


def test_strangers_at_the_door_hold_nobody_up():
    with contextlib.ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        door = open_ones.enter_context(contextlib.closing(Door([listener], b"s" * 16)))
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"x" * 20, b"short") * 10:
            stranger = socket.create_connection(listener.getsockname())
            open_ones.enter_context(stranger).sendall(said)
        came: list[socket.socket] = []

        def come() -> None:
            came.append(reach([listener.getsockname()], b"s" * 16, 7, Deadline(30)))

        visitor = threading.Thread(target=come)
        visitor.start()
        admitted = open_ones.enter_context(door.admit(7, Deadline(8)))
        visitor.join(30)
        assert open_ones.enter_context(came[0]).getpeername() == admitted.getsockname()
