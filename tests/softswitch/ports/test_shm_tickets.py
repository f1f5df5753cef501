"""shm ports: a worker that connects again proves by its ticket that an address was its own."""

import resource
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from echo_program import BACK
from shm_peer import CONTROL_BYTES, OTHER_ADDRESS, Refused, ShmPeer

from support.switch_process import SwitchProcess

Serve = Callable[..., SwitchProcess]

Claim = tuple[tuple[str, int], int]


def claim(peer: ShmPeer) -> Claim:
    """The claim with which its worker gets its address back."""
    return peer.address, peer.ticket


def refused(path: Path, shown: Claim) -> bool:
    """Whether the switch refuses to give this address back."""
    try:
        ShmPeer(path, claim=shown).close()
    except Refused as refusal:
        return bool(refusal.args == (OTHER_ADDRESS,))
    return False


def answers(peer: ShmPeer, text: bytes = b"") -> bool:
    """Whether its own datagram comes back to it."""
    peer.send(bytes([BACK]) + text)
    return peer.receive() == bytes([BACK]) + text


def test_a_worker_gets_its_address_back(serve: Serve, path: Path) -> None:
    """No other worker can get the address: it returns to the same process and to the next one."""
    first = serve("--port", f"2=shm:{path}")
    with ExitStack() as stack:
        peer = stack.enter_context(ShmPeer(path))
        # While it is connected: the ticket proves the same worker, which wants another connection.
        second = stack.enter_context(ShmPeer(path, claim=claim(peer)))
        assert second.address == peer.address
        assert second.ticket != peer.ticket
        assert peer.is_cut_off()
        assert answers(second, b"second")
        other = stack.enter_context(ShmPeer(path))
        for wrong in (
            (second.address, second.ticket ^ 1),
            (other.address, second.ticket),
            ((second.address[0], second.address[1] ^ 1), second.ticket),
            (("1.2.3.4", second.address[1]), second.ticket),
        ):
            assert refused(path, wrong)
        assert answers(other)

        first.process.kill()
        assert second.is_cut_off()
        serve("--port", f"2=shm:{path}")
        strangers = [stack.enter_context(ShmPeer(path)) for _ in range(20)]
        again = [stack.enter_context(ShmPeer(path, claim=claim(each))) for each in (second, other)]
        everybody = [*strangers, *again]
        assert len({each.address for each in everybody}) == 22
        assert len({each.ticket for each in (second, other, *everybody)}) == 24
        assert [each.address for each in again] == [second.address, other.address]
        for number, each in enumerate(everybody):
            each.send(bytes([BACK, number]))
        for number, each in enumerate(everybody):
            assert each.receive() == bytes([BACK, number])
            assert not each.waiting()
        # Gone again, and back again.
        gone = again.pop()
        gone.close()
        back = stack.enter_context(ShmPeer(path, claim=claim(gone)))
        assert answers(back)


def test_only_the_last_ticket_of_an_address_is_valid(serve: Serve, path: Path) -> None:
    """Also for a switch that was killed in between, and then for the first worker that connects."""
    switch = serve("--port", f"2=shm:{path}")
    with ExitStack() as stack:
        peer = stack.enter_context(ShmPeer(path))
        kept = []
        for killed in (False, False, True, False, True, True):
            kept.append(claim(peer))
            if killed:
                switch.process.kill()
                switch.process.wait()
                switch = serve("--port", f"2=shm:{path}")
                assert all(refused(path, each) for each in kept[:-1])
            peer = stack.enter_context(ShmPeer(path, claim=kept[-1]))
            assert all(refused(path, each) for each in kept)
            assert answers(peer)
        assert {address for address, _ in kept} == {peer.address}
        assert len({ticket for _, ticket in kept} | {peer.ticket, 0}) == len(kept) + 2
        peer.close()
        assert all(refused(path, each) for each in kept)


def test_old_tickets_take_nothing_from_the_present_owner_of_an_address(
    serve: Serve, path: Path
) -> None:
    serve("--port", f"2=shm:{path}?net=10.9.8.0/29")  # five addresses
    kept: list[Claim] = []
    for _ in range(40):
        with ShmPeer(path) as peer:
            kept.append(claim(peer))
    assert len({ticket for _, ticket in kept}) == 40
    with ExitStack() as stack:
        present = []
        while len(present) < 4:  # the fifth is the thief's
            present.append(stack.enter_context(ShmPeer(path)))
        for place in {each.address[0] for each in present}:
            hoard = [shown for shown in kept if shown[0][0] == place]
            assert len(hoard) >= 5
            assert all(refused(path, shown) for shown in hoard)
        for each in present:
            assert all(refused(path, (each.address, ticket)) for _, ticket in kept)
            assert answers(each)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_reassigned_address_has_a_new_ticket(serve: Serve, path: Path) -> None:
    """After 64,512 connections the same port is handed out with the same address."""
    serve("--port", f"2=shm:{path}?net=10.9.8.0/29")
    kept: dict[tuple[str, int], int] = {}
    while True:
        with ShmPeer(path, payload_bytes=64, records=16) as peer:
            if peer.address in kept:
                break
            kept[peer.address] = peer.ticket
    assert len(kept) > 60_000
    with ShmPeer(path) as victim:
        assert victim.address in kept
        assert refused(path, (victim.address, kept[victim.address]))
        assert answers(victim)


def test_newcomers_get_no_address_of_an_expected_worker(serve: Serve, path: Path) -> None:
    options = ("--port", f"2=shm:{path}?net=10.9.8.0/29")  # five addresses
    switch = serve(*options)
    with ExitStack() as stack:
        old = [stack.enter_context(ShmPeer(path)) for _ in range(3)]
        switch.process.kill()
        switch.process.wait()
        serve(*options)
        new = [stack.enter_context(ShmPeer(path)) for _ in range(2)]
        back = [stack.enter_context(ShmPeer(path, claim=claim(each))) for each in old]
        assert [each.address for each in back] == [each.address for each in old]
        assert all(answers(each) for each in (*new, *back))


def test_an_address_that_was_given_away_is_not_given_back(serve: Serve, path: Path) -> None:
    options = ("--port", f"2=shm:{path}?net=10.9.8.0/29")
    switch = serve(*options)
    with ExitStack() as stack:
        old = [stack.enter_context(ShmPeer(path)) for _ in range(5)]
        switch.process.kill()
        switch.process.wait()
        switch = serve(*options)
        new = stack.enter_context(ShmPeer(path))
        (lost,) = [each for each in old if each.address[0] == new.address[0]]
        assert refused(path, claim(lost))
        back = [
            stack.enter_context(ShmPeer(path, claim=claim(each))) for each in old if each != lost
        ]
        assert all(answers(each) for each in (new, *back))
        switch.process.kill()
        switch.process.wait()
        serve(*options)
        assert refused(path, claim(lost))
        assert answers(stack.enter_context(ShmPeer(path, claim=claim(new))))


def test_tickets_that_cannot_be_stored_are_valid_for_this_process_only(
    serve: Serve, path: Path
) -> None:
    """The old contents of a file that cannot be written would accept an old ticket."""
    switch = serve("--port", f"2=shm:{path}")
    key = path.with_name(path.name + ".key")
    small = {"payload_bytes": 64, "records": 16}
    for _ in range(150):  # so that the next tickets lie far behind in the file
        ShmPeer(path, **small).close()
    with ShmPeer(path, **small) as peer, ShmPeer(path, **small) as other:
        # The memory of small rings may still be made.
        limit = (CONTROL_BYTES + 2 * 16 * 128, resource.RLIM_INFINITY)
        assert key.read_bytes().index(peer.ticket.to_bytes(8, sys.byteorder)) > limit[0]
        resource.prlimit(switch.process.pid, resource.RLIMIT_FSIZE, limit)
        with ShmPeer(path, claim=claim(peer), **small) as second:
            assert answers(second)
            assert refused(path, claim(peer))
            assert not key.exists()
            switch.process.kill()
            switch.process.wait()
            serve("--port", f"2=shm:{path}")
            assert all(refused(path, claim(each)) for each in (peer, second, other))


def test_a_key_of_an_earlier_version_is_replaced(serve: Serve, path: Path) -> None:
    key = path.with_name(path.name + ".key")
    key.write_bytes(bytes(16))
    key.chmod(0o600)
    switch = serve("--port", f"2=shm:{path}")
    with ShmPeer(path) as peer:
        switch.process.kill()
        switch.process.wait()
        serve("--port", f"2=shm:{path}")
        with ShmPeer(path, claim=claim(peer)) as again:
            assert again.address == peer.address
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, key.name]


@pytest.mark.parametrize("file", ["open", "short", "folder", "link"])
def test_a_key_that_others_can_read_is_not_used(serve: Serve, path: Path, file: str) -> None:
    key = path.with_name(path.name + ".key")
    if file == "folder":
        key.mkdir()
    elif file == "link":
        key.symlink_to("/dev/zero")
    else:
        key.write_bytes(bytes(16 if file == "open" else 3))
        key.chmod(0o644 if file == "open" else 0o600)
    before = key.lstat()
    for _ in range(2):
        switch = serve("--port", f"2=shm:{path}")
        with ShmPeer(path) as peer, ShmPeer(path, claim=claim(peer)) as again:
            assert peer.is_cut_off()
        switch.process.kill()
        switch.process.wait()
    serve("--port", f"2=shm:{path}")
    assert refused(path, claim(again))
    assert key.lstat().st_mtime_ns == before.st_mtime_ns
