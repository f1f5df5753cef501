"""The probe of the links: who meets whom, and that it ends whatever the other ranks do."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

import torch.distributed as dist  # noqa: E402

from wiresum.host_agent.observe import probe as room  # noqa: E402
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


def test_a_rank_that_cannot_be_reached_is_named(monkeypatch):
    store = dist.HashStore()
    place = room.Place("nowhere", [("127.0.0.1", 9)], bytes(16))
    dist.PrefixStore("wiresum/measure", store).set("at/0", place.said())
    found = probed(range(1, 2), 2, store, 3.0)
    assert found[1]["links"] == []
    assert found[1]["links_note"]
