"""The ranks' own link: what the others hear of a rank that dies, leaves, or waits in vain."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from peers_rig import LIMIT_S, Rank, eventually, linked, meeting, vanish

from wiresum.host_agent.agent.issued import FALLBACK, SWITCH, Issued
from wiresum.host_agent.agent.peers.hub import STRANGERS
from wiresum.host_agent.agent.peers.wire import proof, tune


def all_reduce(sequence: int, path: str = SWITCH, dtype: str = "float32") -> Issued:
    return Issued(sequence, "all_reduce", path, "SUM", dtype, 100)


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_all_hear_of_a_rank_that_dies(dead: int) -> None:
    with linked(3) as ranks:
        for rank in ranks:
            rank.engine.waits(4, 0b111 & ~(1 << dead))
            rank.issued_here.append(all_reduce(9))
        vanish(ranks[dead])
        for number, rank in enumerate(ranks):
            if number == dead:
                continue
            eventually(lambda rank=rank: rank.engine.failed, f"the end on rank {number}")
            ((kind, line),) = rank.engine.failed
            assert kind == "PeerLost"
            assert line.startswith(f"rank {dead} on ")
            assert "has ended without leaving the group: it was killed, or has crashed" in line
            assert f"rank {number} waits in all_reduce 9 (100 float32 SUM, over the switch)" in line
            assert str(rank.over[-1]) == line
            assert rank.aborted == []  # its own connections have broken


def test_what_needs_the_dead_rank_no_more_still_ends_well() -> None:
    """A result that is on its way, or is fetched again, comes from the switch."""
    with linked(2) as ranks:
        ranks[0].engine.waits(4, 0b11)
        ranks[0].engine.data.wait = None
        vanish(ranks[1])
        eventually(lambda: ranks[0].over, "the news")
        for chunk in range(5, 25):  # results keep coming
            time.sleep(0.1)
            ranks[0].engine.data.oldest, ranks[0].engine.data.next = chunk, chunk + 1
        assert ranks[0].engine.failed == []
        ranks[0].engine.ended = ranks[0].engine.completed = 1
        time.sleep(1.5)
        assert ranks[0].engine.failed == []
        # But nothing new can begin.
        assert "rank 1" in str(ranks[0].over[-1])


def one_stays(ranks: list[Rank], first: int) -> tuple[threading.Thread, list[Rank]]:
    """Rank ``first`` has all 5 sums and stays for the others, which lack one; and the others."""
    for rank in ranks:
        rank.engine.asked, rank.engine.ended = 5, 4
    ranks[first].engine.ended = 5
    staying = threading.Thread(target=ranks[first].peers.stay, args=(5, LIMIT_S))
    staying.start()
    return staying, [rank for rank in ranks if rank is not ranks[first]]


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_that_has_all_its_sums_stays_until_all_have_them(first: int) -> None:
    with linked(3) as ranks:
        staying, others = one_stays(ranks, first)
        others[0].engine.ended = 5
        staying.join(0.3)
        assert staying.is_alive()
        others[1].engine.ended = 5
        staying.join(LIMIT_S / 2)
        assert not staying.is_alive()


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_that_stays_waits_for_no_rank_that_is_gone(first: int) -> None:
    with linked(3) as ranks:
        staying, others = one_stays(ranks, first)
        vanish(others[0])
        if first == 0:  # else rank 0 is gone, through which all is said
            staying.join(0.3)
            assert staying.is_alive()
        vanish(others[1])
        staying.join(LIMIT_S / 2)
        assert not staying.is_alive()


def test_ranks_that_leave_together_do_not_wait() -> None:
    with linked(3) as ranks:
        for rank in ranks:
            rank.engine.asked = rank.engine.ended = 5
        began = time.monotonic()
        staying = [threading.Thread(target=rank.peers.stay, args=(5, LIMIT_S)) for rank in ranks]
        for thread in staying:
            thread.start()
        for thread in staying:
            thread.join(LIMIT_S)
        assert time.monotonic() - began < LIMIT_S / 2


def test_a_rank_stays_for_no_longer_than_its_limit() -> None:
    with linked(2) as ranks:
        ranks[0].engine.asked = ranks[0].engine.ended = 5
        ranks[0].peers.stay(5, 0.2)  # rank 1 has none


def test_a_rank_that_leaves_ends_what_it_has_not_taken_part_in() -> None:
    with linked(3) as ranks:
        for rank in ranks:
            rank.engine.asked = rank.engine.ended = rank.engine.completed = 5
            rank.issued_here += [all_reduce(n) for n in range(1, 6)]
        ranks[0].issued_here.append(all_reduce(6))
        ranks[0].engine.waits(4, 0b001)
        ranks[1].peers.leave()
        eventually(lambda: ranks[0].engine.failed, "the end")
        ((kind, line),) = ranks[0].engine.failed
        assert kind == "PeerLost"
        assert line.startswith("rank 1 on ")
        assert "has left the group after 5 collectives; rank 0 waits in all_reduce 6 (" in line
        # Rank 2 has nothing in flight: it hears of it when it begins something.
        eventually(lambda: ranks[2].over, "the news")
        assert ranks[2].engine.failed == []


def test_a_rank_that_leaves_does_not_hurt_those_that_fetch_their_last_results() -> None:
    with linked(2) as ranks:
        ranks[1].engine.asked = ranks[1].engine.ended = ranks[1].engine.completed = 1
        ranks[0].engine.waits(4, 0b11)
        ranks[1].peers.leave()
        time.sleep(2.5)
        assert ranks[0].engine.failed == []


@pytest.mark.parametrize("first", [0, 1])
def test_ranks_that_have_finished_part_without_a_word(first: int) -> None:
    with linked(2) as ranks:
        for rank in ranks:
            rank.engine.asked = rank.engine.ended = rank.engine.completed = 3
        began = time.monotonic()
        ranks[first].peers.leave()
        ranks[1 - first].peers.leave()
        assert time.monotonic() - began < LIMIT_S
        assert [rank.engine.failed for rank in ranks] == [[], []]


def test_different_collectives_end_everywhere_at_once() -> None:
    with linked(3) as ranks:
        for rank in ranks:
            rank.issued_here += [all_reduce(1), all_reduce(2)]
        ranks[2].issued_here[1] = all_reduce(2, FALLBACK, "int64")
        ranks[1].engine.waits(4, 0b010)
        for number, rank in enumerate(ranks):
            eventually(lambda rank=rank: rank.aborted, f"the end on rank {number}")  # what is last
            ((kind, line),) = rank.engine.failed
            assert kind == "CollectiveMismatch"
            assert "all_reduce 2 (100 int64 SUM, over the fallback) of rank 2" in line
            assert [str(error) for error in rank.aborted] == [line]
            assert [type(error).__name__ for error in rank.aborted] == [kind]
            assert [error.line_code for error in rank.aborted] == ["A035"]


def test_a_lost_result_ends_everywhere() -> None:
    with linked(2) as ranks:
        ranks[0].engine.has(9)
        ranks[1].engine.waits(5, 0b10)
        for rank in ranks:
            eventually(lambda rank=rank: rank.engine.failed, "the end")
            ((kind, line),) = rank.engine.failed
            assert kind == "ResultLost"
            assert "data chunk 5" in line


@pytest.mark.parametrize("first", [0, 2])
def test_all_leave_a_switch_that_one_rank_has_lost_and_only_once(first: int) -> None:
    with linked(4, leaves=True) as ranks:
        assert ranks[first].peers.lost_switch(7, "it is silent")
        assert ranks[3].peers.lost_switch(7, "it is silent here, too")
        for rank in ranks:
            eventually(lambda rank=rank: rank.left, "every rank is told")
        assert ranks[0].peers.lost_switch(8, "and again")
        for rank in ranks:
            eventually(lambda rank=rank: len(rank.left) == 2, "every rank is told of the next one")
        for rank in ranks:
            (epoch, why), again = rank.left
            assert epoch == 7
            assert why.startswith((f"rank {first} on ", "rank 3 on "))
            assert "it is silent" in why
            assert again[0] == 8
        assert len({rank.left[0] for rank in ranks}) == 1
        assert not any(rank.engine.failed or rank.over for rank in ranks)


def test_a_lost_result_makes_ranks_that_can_leave_the_switch_leave_it() -> None:
    with linked(2, leaves=True) as ranks:
        ranks[0].engine.has(5)
        ranks[1].engine.waits(4, 0b10)
        for rank in ranks:
            eventually(lambda rank=rank: rank.left, "every rank is told")
            assert "has lost the result of data chunk 4" in rank.left[0][1]
            assert rank.engine.failed == []


def test_a_complaint_that_rank_0_cannot_answer_ends_what_is_in_flight() -> None:
    with linked(2, leaves=True) as ranks:
        ranks[0].peers.leave()
        eventually(lambda: ranks[1].peers._role._channel is None, "rank 1 hears the goodbye")
        assert ranks[1].peers.lost_switch(7, "it is silent")
        eventually(lambda: ranks[1].engine.failed, "rank 1 gives up")
        ((kind, line),) = ranks[1].engine.failed
        assert kind == "SwitchUnreachable"
        assert line == "it is silent (and there is no link to all other ranks)"
        assert ranks[1].left == []


def test_ranks_that_cannot_leave_the_switch_are_not_told_to() -> None:
    with linked(2) as ranks:
        assert ranks[1].peers.lost_switch(7, "it is silent")
        assert ranks[0].peers.lost_switch(7, "it is silent")
        time.sleep(0.3)
        assert [rank.left for rank in ranks] == [[], []]


def test_a_rank_that_waits_for_a_late_one_is_left_alone() -> None:
    with linked(2) as ranks:
        ranks[0].issued_here += [all_reduce(1), all_reduce(2)]
        ranks[1].issued_here += [all_reduce(1)]
        ranks[0].engine.waits(5, 0b01)
        ranks[1].engine.has(5)
        time.sleep(4.0)
        assert ranks[0].engine.failed == ranks[1].engine.failed == []


# -- strangers ------------------------------------------------------------------------------------


def read(sock: socket.socket) -> dict[str, object]:
    size = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))[0]
    answer = json.loads(sock.recv(size, socket.MSG_WAITALL))
    assert isinstance(answer, dict)
    return answer


def send(sock: socket.socket, message: object) -> None:
    data = json.dumps(message).encode()
    sock.sendall(struct.pack(">I", len(data)) + data)


def is_dropped(sock: socket.socket) -> bool:
    sock.settimeout(LIMIT_S)
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def greeting(secret: str, nonce: object, rank: object) -> dict[str, object]:
    shown = proof(secret, "rank", nonce, rank, "x", "n")
    return {"t": "hello", "rank": rank, "host": "x", "nonce": "n", "proof": shown}


@pytest.mark.parametrize("rank", [0, 1, 2, -1, True, None, "1", [1], {}])
def test_a_rank_that_is_none_or_is_there_already_is_dropped(rank: object) -> None:
    where = meeting()
    with linked(2, where) as ranks, socket.create_connection(where.addresses[0]) as sock:
        send(sock, greeting(where.secret, read(sock)["nonce"], rank))
        assert is_dropped(sock)
        assert ranks[0].peers.describe()["dropped"] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 900) + b"[" * 900,
        struct.pack(">I", 3) + b"\xff\xfe\xfd",
    ],
)
def test_nonsense_is_dropped_and_hurts_nobody(data: bytes) -> None:
    where = meeting()
    with linked(2, where) as ranks:
        with socket.create_connection(where.addresses[0]) as sock:
            sock.sendall(data)
            assert is_dropped(sock)
        vanish(ranks[1])
        eventually(lambda: ranks[0].over, "the news of a death")


def test_a_wrong_secret_is_dropped() -> None:
    where = meeting()
    with linked(2, where), socket.create_connection(where.addresses[0]) as sock:
        send(sock, greeting("guess", read(sock)["nonce"], 1))
        assert is_dropped(sock)


def test_many_silent_strangers_keep_no_rank_out() -> None:
    where = meeting()
    address = where.addresses[0]
    idle = [socket.create_connection(address) for _ in range(100)]  # fewer than wait to be accepted
    try:
        with linked(3, where) as ranks:
            idle += [socket.create_connection(address, LIMIT_S) for _ in range(2 * STRANGERS)]
            eventually(lambda: ranks[0].peers.describe()["dropped"] > STRANGERS, "the limit")
            vanish(ranks[1])
            eventually(lambda: ranks[0].over, "the news of a death")
            eventually(lambda: ranks[2].over, "the news of a death")
    finally:
        for sock in idle:
            sock.close()


def test_a_stranger_at_rank_0s_address_learns_nothing_and_is_passed_over() -> None:
    """An address that rank 0 has published may be somebody else's on another host."""
    where = meeting()
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(LIMIT_S)
        where.addresses.insert(0, other.getsockname())
        heard: list[bytes] = []
        import threading

        def impostor() -> None:
            sock, _ = other.accept()
            with sock:
                send(sock, {"t": "challenge", "nonce": "n"})
                read_back = sock.recv(65536)
                heard.append(read_back)
                send(sock, {"t": "welcome", "proof": "trust me"})
                sock.recv(65536)

        thread = threading.Thread(target=impostor)
        thread.start()
        with linked(2, where) as ranks:
            assert ranks[1].peers.describe() == {"complete": True, "dropped": 1}
        thread.join(LIMIT_S)
    assert where.secret.encode() not in heard[0]


# -- processes ------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from peers_rig import HandEngine
from wiresum.host_agent.agent.peers.peers import Peers
from wiresum.host_agent.agent.peers.meeting import Meeting
from wiresum.host_agent.agent.peers.member import Member
import json
where = json.loads(sys.argv[1])
engine = HandEngine()
peers = Peers(Meeting(where["secret"], "h0", [tuple(a) for a in where["addresses"]]), 2,
              Member(1, engine, lambda: 7, lambda error: None))
if sys.argv[2] == "fork":
    if os.fork() == 0:
        peers.leave()  # nothing of it acts in the child
        time.sleep(60)
        os._exit(0)
print("linked", flush=True)
time.sleep(600)
"""


def child(where: object, how: str) -> subprocess.Popen[str]:
    folder = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(where), how],
        env=os.environ | {"PYTHONPATH": folder}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_a_killed_process_is_noticed_even_if_its_children_live_on(how: str) -> None:
    from peers_rig import HandEngine

    from wiresum.host_agent.agent.peers.member import Member
    from wiresum.host_agent.agent.peers.peers import Peers

    where = meeting()
    process = child({"secret": where.secret, "addresses": where.addresses}, how)
    engine, over = HandEngine(), []
    peers = Peers(where, 2, Member(0, engine, lambda: 7, over.append))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "linked\n"
        eventually(lambda: peers.describe()["complete"], "the link")
        time.sleep(1.0)
        assert over == []  # the fork has ended nothing
        os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: over, "the news")
        assert "has ended without leaving the group" in str(over[0])
    finally:
        peers.leave()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_process_that_is_stopped_is_not_taken_for_dead() -> None:
    from peers_rig import HandEngine

    from wiresum.host_agent.agent.peers.member import Member
    from wiresum.host_agent.agent.peers.peers import Peers

    where = meeting()
    process = child({"secret": where.secret, "addresses": where.addresses}, "plain")
    engine, over = HandEngine(), []
    peers = Peers(where, 2, Member(0, engine, lambda: 7, over.append))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "linked\n"
        eventually(lambda: peers.describe()["complete"], "the link")
        os.kill(process.pid, signal.SIGSTOP)
        engine.waits(4, 0b01)  # so that it is asked, again and again
        time.sleep(18.0)  # more than the kernel gives a host that is gone
        assert (over, engine.failed) == ([], [])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        peers.leave()


def test_a_link_whose_network_was_away_is_tried_every_second() -> None:
    """Else its pauses double, and the next try after 7 s is too late for the limit of 15 s."""
    rto_max_ms = 44  # TCP_RTO_MAX_MS
    with socket.socket() as sock:
        try:
            sock.getsockopt(socket.IPPROTO_TCP, rto_max_ms)
        except OSError:
            pytest.skip("this kernel has no TCP_RTO_MAX_MS (Linux 6.15)")
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, rto_max_ms) == 1000
