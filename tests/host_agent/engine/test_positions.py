"""What an engine says of its streams while it works, and errors that it is told to end with."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from engine_rig import LIMIT_S, InThread, Rig, eventually, normal

from reference_switch import Faults
from support.engines import SOURCE
from wiresum.common.errors import LineText
from wiresum.host_agent.engine import error_of
from wiresum.host_agent.errors import (
    CollectiveTimeout,
    EngineClosed,
    EngineError,
    SwitchUnreachable,
)

LANES = 64


def test_positions_count_chunks_from_the_first() -> None:
    first = 2**33 - 3
    with Rig(2, lanes=LANES, first_position=first) as rig:
        before = rig.engines[0].positions()
        assert set(before) == {"exponent", "data", "copy"}
        for each in before.values():
            assert (each.oldest, each.next) == (first, first)
            assert each.result_s is None
            assert each.wait is None
            assert each.wait_s is None
        rig.finish(rig.start(normal(2, 256 * LANES + 1)))  # two chunks of exponents

        chunks = {"exponent": 2, "data": rig.engines[0].stats()["data_results"]}
        assert chunks["data"] > 0

        def done() -> bool:  # a tensor is finished before the thread says how far its streams are
            now = rig.engines[0].positions()
            return all(
                now[name].oldest == now[name].next == first + chunks[name] for name in chunks
            )

        eventually(done, "all chunks past")
        after = rig.engines[0].positions()
        assert after["copy"].next == first
        for each in (after["exponent"], after["data"]):
            assert each.result_s is not None
            assert 0 <= each.result_s < LIMIT_S


def test_the_last_wait_tells_whom_the_switch_has_a_chunk_from() -> None:
    with Rig(3, lanes=LANES, first_position=70) as rig:
        arrays = [np.ones(100, np.float32) for _ in range(3)]
        early = {
            rank: rig.engines[rank].all_reduce(arrays[rank].ctypes.data, 100, "float32")
            for rank in (0, 2)
        }

        def told() -> bool:
            return rig.engines[2].positions()["exponent"].wait == (70, 0b101)

        eventually(told, "a WAIT that names both")
        waiting = rig.engines[2].positions()["exponent"]
        assert (waiting.oldest, waiting.next) == (70, 72)  # of 64 blocks each
        assert waiting.wait_s is not None
        assert waiting.result_s is None
        late = rig.engines[1].all_reduce(arrays[1].ctypes.data, 100, "float32")
        rig.finish([early[0], late, early[2]])


def test_a_lost_result_shows_as_one_rank_behind() -> None:
    """Rank 1 never gets the result of data chunk 0: the others are past it, and it asks for it."""

    def lose(data: bytes, peer: Any, direction: str) -> bool:
        return direction == "out" and data[2] == 0 and peer == rig.addresses[1]

    rig = Rig(2, lanes=LANES, faults=Faults(intercept=lose))
    with rig:
        arrays = normal(2, LANES)
        tickets = rig.start(arrays)
        assert rig.engines[0].wait(tickets[0], LIMIT_S) is not None
        eventually(lambda: rig.engines[0].positions()["data"].oldest == 1, "rank 0 past chunk 0")
        eventually(lambda: rig.engines[1].positions()["data"].next == 1, "rank 1 has sent it")
        behind = rig.engines[1].positions()["data"]
        assert behind.oldest == 0
        assert behind.result_s is None


def test_asking_for_positions_does_not_hinder_the_engine() -> None:
    """Readers that never rest see states that fit together, and the sums stay right."""
    with Rig(2, lanes=LANES, first_position=11) as rig:
        going = {"on": True}

        def read() -> int:
            seen = 0
            last = {"exponent": 11, "data": 11, "copy": 11}
            while going["on"]:
                for name, each in rig.engines[0].positions().items():
                    assert last[name] <= each.oldest <= each.next
                    last[name] = each.oldest
                seen += 1
            return seen

        readers = [InThread(read) for _ in range(3)]
        for seed in range(3):
            arrays = normal(2, 15_000, seed)
            rig.finish(rig.start(arrays))
            assert arrays[0].tobytes() == arrays[1].tobytes()
        going["on"] = False
        assert all(each.result() > 0 for each in readers)


def test_an_engine_ends_with_the_error_that_it_is_told() -> None:
    line = LineText("rank 1 on host b was killed (signal 9)", "A037")
    with Rig(2) as rig:
        arrays = [np.ones(5000, np.float32) for _ in range(3)]
        engine = rig.engines[0]
        tickets = [engine.all_reduce(x.ctypes.data, x.size, "float32") for x in arrays]
        polling = InThread(lambda: engine.wait(tickets[2], LIMIT_S))
        engine.fail("SwitchUnreachable", line)
        with pytest.raises(EngineClosed, match="signal 9"):
            engine.all_reduce(arrays[0].ctypes.data, 1, "float32")
        engine.fail("CollectiveTimeout", "too late")
        for completion in (*(engine.wait(each, LIMIT_S) for each in tickets[:2]), polling.result()):
            assert completion is not None
            assert completion.kind == "SwitchUnreachable"
            error = error_of(completion)
            assert isinstance(error, SwitchUnreachable)
            assert str(error) == line
            assert error.line_code == "A037"
        assert not engine.closed
        engine.close()
        engine.fail("CollectiveTimeout", "too late as well")
        for array in arrays:
            assert (array == 1).all()


def test_a_failed_engine_touches_no_tensor_any_more() -> None:
    """After the completion with the error, results that come late are not written."""
    held: dict[str, Any] = {"hold": True}

    def hold(data: bytes, _peer: Any, direction: str) -> bool:
        return bool(held["hold"] and direction == "in" and data[2] == 0)  # data stay away

    with Rig(2, faults=Faults(intercept=hold)) as rig:
        arrays = [np.ones(5000, np.float32) for _ in range(2)]
        tickets = rig.start(arrays)
        eventually(lambda: rig.total("exponent_results") > 0, "exponents agreed")
        rig.engines[0].fail("CollectiveTimeout", "told")
        completion = rig.engines[0].wait(tickets[0], LIMIT_S)
        assert completion is not None
        assert isinstance(error_of(completion), CollectiveTimeout)
        arrays[0][:] = 5
        held["hold"] = False
        time.sleep(0.2)  # rank 1's contributions are summed, or not; nothing may be written here
        assert (arrays[0] == 5).all()


@pytest.mark.parametrize("kind", ["", "Nonsense", "engine_error", "WiresumError", "KeyError"])
def test_an_unknown_kind_of_error_is_refused(kind: str) -> None:
    with Rig(2) as rig:
        with pytest.raises(EngineError, match="must be the name of an EngineError"):
            rig.engines[0].fail(kind, "a line")
        rig.finish(rig.start(normal(2, 100)))  # and nothing has failed


_STOPPED = (
    SOURCE
    + """
import sys, time
import numpy as np
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
t.bind(("127.0.0.1", 0))
e = open_engine(s, t.getsockname()[1], workers=1)
x = np.ones(10, np.float32)
e.all_reduce(x.ctypes.data, x.size, "float32")
data, peer = t.recvfrom(2048)
result = bytearray(data)
result[1] = 2  # the exponents of one worker are the result
result[16:24] = (2).to_bytes(8)  # the reply key
t.sendto(bytes(result), peer)
while e.positions()["exponent"].result_s is None:
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.readline()
print(e.positions()["exponent"].result_s, flush=True)
"""
)


def test_time_for_which_the_process_was_stopped_is_left_out() -> None:
    born = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(7)
        stopped = time.monotonic() - began
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("\n")
        child.stdin.flush()
        silent = float(child.stdout.readline())
        running = time.monotonic() - born - stopped
        child.stdin.close()
    assert silent < running + 3
