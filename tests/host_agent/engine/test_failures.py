"""Stragglers, missing ranks, dead switches, ranks that disagree, closing: each ends in one line."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from engine_rig import InThread, Rig, eventually, normal

from reference_switch import Faults
from support.engines import LEASE, SOURCE
from wiresum.host_agent.engine import Engine, EngineOptions, UdpSocket, error_of
from wiresum.host_agent.errors import (
    CodecError,
    CollectiveMismatch,
    CollectiveTimeout,
    EngineClosed,
    EngineError,
    SwitchUnreachable,
)


def test_a_missing_rank_is_named() -> None:
    with Rig(4, timeout_s=1.0) as rig:
        present = [0, 1, 3]
        arrays = {rank: np.ones(1000, np.float32) for rank in present}
        tickets = {
            r: rig.engines[r].all_reduce(arrays[r].ctypes.data, 1000, "float32") for r in present
        }
        for rank in present:
            completion = rig.engines[rank].wait(tickets[rank], 10)
            assert completion is not None
            error = error_of(completion)
            assert isinstance(error, CollectiveTimeout)
            assert error.line_code == "E032"
            host, port = rig.switch.address
            assert "waiting for rank 2 of 4" in str(error)
            assert "exponent chunk 0" in str(error)
            assert f"switch s1 ({host}:{port})" in str(error)
            assert "\n" not in str(error)


def test_a_rank_that_stops_in_the_middle_is_named() -> None:
    """Exponents agreed, then rank 1's data never come."""

    def cut(data: bytes, peer: Any, direction: str) -> bool:
        return direction == "in" and data[2] == 0 and peer == rig.addresses[1]

    rig = Rig(2, timeout_s=0.5, faults=Faults(intercept=cut))
    with rig:
        arrays = normal(2, 5000)
        first = rig.completions(rig.start(arrays))[0]
        assert first.kind == "CollectiveTimeout"
        assert "rank 1 of 2 at data chunk 0" in str(first.error)


def test_a_straggler_is_not_a_loss() -> None:
    """Rank 2 comes late: the others ask now and then, and send nothing again needlessly."""
    ranks = normal(3, 50_000)
    with Rig(3, slots=256, rto_initial_s=0.2, rto_min_s=0.2) as rig:  # a busy machine is no loss
        arrays = [each.copy() for each in ranks]
        early = [
            rig.engines[r].all_reduce(arrays[r].ctypes.data, arrays[r].size, "float32")
            for r in (0, 1)
        ]
        eventually(lambda: rig.engines[0].stats()["waits"] > 8, "several WAITs")
        asked = [int(rig.engines[r].stats()["retransmissions"]) for r in (0, 1)]
        late = rig.engines[2].all_reduce(arrays[2].ctypes.data, arrays[2].size, "float32")
        rig.finish([*early, late])
        stats = [engine.stats() for engine in rig.engines]
        chunks = int(stats[0]["contributions"])
        assert max(asked) < 60  # four chunks at a time, ever less often
        for each in stats:
            assert int(each["retransmissions"]) < chunks // 4
    assert arrays[0].tobytes() == arrays[1].tobytes() == arrays[2].tobytes()


def test_a_slow_worker_causes_no_storm() -> None:
    rig = Rig(3, slots=256)
    rig.faults.slow[rig.addresses[1]] = 0.15
    with rig:
        arrays = normal(3, 20_000)
        rig.finish(rig.start(arrays))
        for engine in rig.engines:
            stats = engine.stats()
            # A storm repeats every chunk, again and again. A slow machine repeats some of them.
            assert int(stats["retransmissions"]) < int(stats["contributions"])


def test_polling_backs_off() -> None:
    times: list[float] = []

    def note(data: bytes, peer: Any, direction: str) -> bool:
        if direction == "in" and data[12:16] == bytes(4):
            times.append(time.monotonic())
        return False

    with Rig(2, timeout_s=2.0, poll_max_s=0.2, faults=Faults(intercept=note)) as rig:
        array = np.ones(10, np.float32)
        ticket = rig.engines[0].all_reduce(array.ctypes.data, 10, "float32")
        rig.engines[0].wait(ticket, 10)
    assert 3 <= len(times) <= 24


def test_a_dead_switch_is_named() -> None:
    with Rig(2, switch_timeout_s=0.4) as rig:
        rig.finish(rig.start(normal(2, 100)))
        rig.switch.die()
        for completion in rig.completions(rig.start(normal(2, 100))):
            error = error_of(completion)
            assert isinstance(error, SwitchUnreachable)
            assert error.line_code == "E033"
            host, port = rig.switch.address
            assert f"switch s1 ({host}:{port}) has not answered" in str(error)
            assert "Connection refused" in str(error)
        assert rig.total("refused") > 0


def test_a_silent_switch_is_unreachable() -> None:
    with Rig(2, switch_timeout_s=0.3, faults=Faults(loss=1.0)) as rig:
        for completion in rig.completions(rig.start(normal(2, 100))):
            assert completion.kind == "SwitchUnreachable"


def test_a_switch_that_comes_back_in_time_is_forgiven() -> None:
    gone = {"now": True}
    faults = Faults(intercept=lambda *_: gone["now"])
    with Rig(2, switch_timeout_s=20, faults=faults) as rig:
        arrays = normal(2, 5000)
        tickets = rig.start(arrays)
        eventually(lambda: rig.engines[0].stats()["probes"] >= 4, "a few unanswered probes")
        gone["now"] = False
        rig.finish(tickets)
        assert arrays[0].tobytes() == arrays[1].tobytes()


@pytest.mark.parametrize(
    ("sizes", "average"), [((1000, 1001), (False, False)), ((1000, 1000), (False, True))]
)
def test_ranks_that_disagree(sizes: tuple[int, int], average: tuple[bool, bool]) -> None:
    with Rig(2, timeout_s=1.0) as rig:
        arrays = [np.ones(size, np.float32) for size in sizes]
        tickets = []
        for rank in (0, 1):  # rank 0 has opened the slot before rank 1 comes
            tickets.append(
                rig.engines[rank].all_reduce(
                    arrays[rank].ctypes.data, sizes[rank], "float32", average[rank]
                )
            )
            eventually(lambda: len(rig.rules.events) > 0, "rank 0's first chunk")
        first, second = rig.completions(tickets)
        for completion, me, other in ((first, 0, 1), (second, 1, 0)):
            error = error_of(completion)
            assert isinstance(error, CollectiveMismatch)
            assert error.line_code == "E031"
            words = f"of rank {me} disagrees with rank {other} at exponent chunk 0 on switch s1"
            assert words in str(error)
        assert str(second.error).count("0x") == 2  # who comes later learns both fingerprints
        for array in arrays:
            assert (array == 1).all()  # never a wrong sum


def test_after_an_error_everything_fails_with_its_cause() -> None:
    with Rig(2, timeout_s=0.3) as rig:
        arrays = [np.ones(100, np.float32) for _ in range(4)]
        engine = rig.engines[0]
        tickets = [engine.all_reduce(x.ctypes.data, 100, "float32") for x in arrays]
        errors = set()
        for ticket in tickets:
            completion = engine.wait(ticket, 10)
            assert completion is not None
            errors.add((completion.kind, completion.error))
        assert len(errors) == 1
        (kind, cause) = errors.pop()
        assert kind == "CollectiveTimeout"
        with pytest.raises(EngineClosed) as caught:
            engine.all_reduce(arrays[0].ctypes.data, 100, "float32")
        assert str(cause) in str(caught.value)
        assert engine.poll(0) == []


def test_close_fails_what_is_queued_and_is_idempotent() -> None:
    with Rig(2) as rig:
        array = np.ones(100, np.float32)
        engine = rig.engines[0]
        ticket = engine.all_reduce(array.ctypes.data, 100, "float32")
        polling = InThread(lambda: rig.engines[1].poll(60))
        for each in rig.engines:
            each.close()
            each.close()
            assert each.closed
        assert polling.result() == []
        completion = engine.wait(ticket, 0)
        assert completion is not None
        assert completion.kind == "EngineClosed"
        with pytest.raises(EngineClosed):
            engine.all_reduce(array.ctypes.data, 100, "float32")
        with pytest.raises(EngineError, match="unknown or was taken") as caught:
            engine.wait(ticket, 0)
        assert caught.value.line_code == "E015"


def test_wait_times_out() -> None:
    with Rig(2) as rig:
        array = np.ones(100, np.float32)
        ticket = rig.engines[0].all_reduce(array.ctypes.data, 100, "float32")
        assert rig.engines[0].wait(ticket, 0.05) is None
        assert rig.engines[0].poll(0.05) == []


def test_empty_tensors_complete_alone() -> None:
    with Rig(2, timeout_s=1.0) as rig:
        for ticket in [rig.engines[0].all_reduce(0, 0, "float32") for _ in range(3)]:
            completion = rig.engines[0].wait(ticket, 10)
            assert completion is not None
            assert completion.error is None


def test_bad_arguments() -> None:
    rig = Rig(2)
    with rig:
        with pytest.raises(CodecError, match="float64"):
            rig.engines[0].all_reduce(4096, 1, "float64")
        with pytest.raises(EngineError, match="null"):
            rig.engines[0].all_reduce(0, 1, "float32")
        sock = UdpSocket(fd=rig.sockets[0].fileno())
        Engine(sock, LEASE).close()
        for value, line in (
            ({"switch_ip": "localhost"}, "not an IPv4 address"),
            ({"switch_udp_port": 0}, "not an IPv4 address and a port"),
            ({"rank": 2}, "rank 2"),
            ({"workers": 65}, "65 workers"),
            ({"epoch": 0}, "epoch 0"),
            ({"slots": 2}, "2 slots"),
            ({"lanes": 0}, "0 lanes"),
            ({"field": 7}, "field 7"),
        ):
            with pytest.raises(EngineError, match=line):
                Engine(sock, LEASE.replace(**value))
        for value, line in (({"timeout_s": 0.0}, "time limit"), ({"rto_min_s": 9.0}, "rto_min_s")):
            with pytest.raises(EngineError, match=line):
                Engine(sock, LEASE, EngineOptions(**value))
        with pytest.raises(EngineError, match="not a bound IPv4 UDP socket"):
            Engine(UdpSocket(fd=0), LEASE)


_EXIT = (
    SOURCE
    + """
import sys
import numpy as np
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
t.bind(("127.0.0.1", 0))
e = open_engine(s, t.getsockname()[1])
x = np.ones(100000, np.float32)
e.all_reduce(x.ctypes.data, x.size, "float32")
if sys.argv[1] == "fork":
    import os
    child = os.fork()
    if child == 0:
        try:
            e.all_reduce(x.ctypes.data, x.size, "float32")
        except Exception as error:
            print(type(error).__name__, flush=True)
        e.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("end", flush=True)
"""
)


@pytest.mark.parametrize("how", ["exit", "fork"])
def test_exit_without_close(how: str) -> None:
    """The interpreter goes while a collective is in flight: exit status 0, no noise."""
    done = subprocess.run(
        [sys.executable, "-c", _EXIT, how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split() == (["EngineClosed", "end"] if how == "fork" else ["end"])


def test_signals_reach_the_main_thread() -> None:
    """The engine's thread takes no signal meant for Python."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    try:
        with Rig(2) as rig:
            os.kill(os.getpid(), signal.SIGUSR1)
            eventually(lambda: seen == [signal.SIGUSR1], "the handler")
            rig.finish(rig.start(normal(2, 100)))
    finally:
        signal.signal(signal.SIGUSR1, before)
