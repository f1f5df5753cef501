"""Engines that end while others hold them: threads, the process's end, forks."""

import subprocess
import sys

import numpy as np
import pytest
from engine_rig import InThread, Rig, engine_threads, eventually

from support.engines import SOURCE
from wiresum.host_agent import _engine
from wiresum.host_agent.errors import EngineClosed, EngineError

_HEAD = (
    SOURCE
    + """
import atexit, gc, os, socket, sys, threading, time
import numpy as np
from wiresum.host_agent import _engine
from wiresum.host_agent.errors import WiresumError

def bound():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    return s

switch = bound()

# The switch never answers: no limit may end the engine meanwhile, however slow the machine is.
PATIENT = EngineOptions(timeout_s=3600, switch_timeout_s=3600)

def made(sock):
    return open_engine(sock, switch.getsockname()[1], PATIENT)
"""
)

_STRESS = (
    _HEAD
    + """
going = True
counts = []

def come_and_go():
    count = 0
    x = np.ones(2000, np.float32)
    with bound() as sock:
        while going:
            engine = made(sock)
            try:
                engine.all_reduce(x.ctypes.data, x.size, "float32")
            except WiresumError:
                pass  # closed already
            if count % 3 == 0:
                engine.close()
            del engine
            count += 1
    counts.append(count)

def held_by_calls(engine):
    while going and not engine.closed:
        engine.poll(0.05)
        engine.stats(), engine.positions()
        engine.fail("CollectiveTimeout", "told")

def poll():
    while going:
        with bound() as sock:
            held_by_calls(made(sock))

threads = [threading.Thread(target=come_and_go) for _ in range(4)]
threads += [threading.Thread(target=poll) for _ in range(2)]
for each in threads:
    each.start()
closings = 0
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until or closings < 100:
    _engine.close_all()
    closings += 1
going = False
for each in threads:
    each.join()
gc.collect()
names = [open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")]
print(all(counts), sum("wiresum" in name for name in names))
"""
)

_AT_EXIT = (
    _HEAD
    + """
going = True

def come_and_go():
    with bound() as sock:
        while going:
            made(sock)

for _ in range(3):
    threading.Thread(target=come_and_go, daemon=True).start()
kept = [made(bound()) for _ in range(3)]
x = np.ones(100_000, np.float32)
for each in kept:
    each.all_reduce(x.ctypes.data, x.size, "float32")
time.sleep(0.2)
print("end", flush=True)
"""
)

_FORK = (
    _HEAD
    + """
engine = made(bound())
x = np.ones(1000, np.float32)
ticket = engine.all_reduce(x.ctypes.data, x.size, "float32")
# Threads that sit in the engine, and others that take its locks, while this one forks.
threading.Thread(target=engine.poll, args=(60,), daemon=True).start()
threading.Thread(target=engine.wait, args=(ticket, 60), daemon=True).start()
going = True
def busy():
    while going:
        engine.all_reduce(0, 0, "float32")
        engine.poll(0)
threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
for each in threads:
    each.start()
time.sleep(0.1)
for _ in range(20):
    child = os.fork()
    if child == 0:
        for call in (
            lambda: engine.all_reduce(x.ctypes.data, x.size, "float32"),
            lambda: engine.poll(60),
            lambda: engine.wait(ticket, 60),
        ):
            try:
                call()
                os._exit(1)
            except WiresumError as error:
                if "not to its forks" not in str(error):
                    os._exit(2)
        engine.fail("CollectiveTimeout", "of the child's")
        engine.stats(), engine.positions()
        engine.close()
        del engine
        _engine.close_all()
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
going = False
for each in threads:
    each.join()
assert not engine.closed
engine.all_reduce(x.ctypes.data, x.size, "float32")  # the parent's works on
print("end", flush=True)
"""
)


def run(script: str, *arguments: str, limit_s: float = 120) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=limit_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    assert done.stderr == ""
    return done.stdout.strip()


def test_engines_come_and_go_while_all_are_being_closed() -> None:
    assert run(_STRESS, "3") == "True 0"


def test_engines_come_and_go_while_the_interpreter_ends() -> None:
    assert run(_AT_EXIT) == "end"


def test_a_fork_never_waits_for_what_its_parents_threads_hold() -> None:
    assert run(_FORK) == "end"


def test_close_all_ends_waits_and_threads() -> None:
    with Rig(2) as rig:
        array = np.ones(100, np.float32)
        engine = rig.engines[0]
        ticket = engine.all_reduce(array.ctypes.data, 100, "float32")
        polling = InThread(lambda: rig.engines[1].poll(60))
        _engine.close_all()
        assert polling.result() == []
        assert all(each.closed for each in rig.engines)
        completion = engine.wait(ticket, 0)
        assert completion is not None
        assert completion.kind == "EngineClosed"
        with pytest.raises(EngineClosed):
            engine.all_reduce(array.ctypes.data, 100, "float32")
        eventually(lambda: engine_threads() == 0, "the engines' threads gone")
        _engine.close_all()


# -- limits of any length

LONG = (1.1e6, 1e7, 3.2e9, 1e18, 1e300, float("inf"))


@pytest.mark.parametrize("seconds", LONG)
@pytest.mark.parametrize(
    "names",
    [
        ("timeout_s",),
        ("switch_timeout_s",),
        ("poll_max_s",),
        ("rto_max_s",),
        ("rto_initial_s", "rto_min_s", "rto_max_s", "poll_max_s", "timeout_s", "switch_timeout_s"),
    ],
    ids="+".join,
)
def test_limits_of_any_length_are_taken(names: tuple[str, ...], seconds: float) -> None:
    """And do not overflow into short ones: nothing ends before its time."""
    with Rig(2, **dict.fromkeys(names, seconds)) as rig:
        array = np.ones(3000, np.float32)
        other = np.ones(3000, np.float32)
        early = rig.engines[0].all_reduce(array.ctypes.data, array.size, "float32")
        assert rig.engines[0].wait(early, 0.05) is None
        late = rig.engines[1].all_reduce(other.ctypes.data, other.size, "float32")
        rig.finish([early, late])
        assert (array == 2).all()


@pytest.mark.parametrize("seconds", LONG)
def test_waits_of_any_length_end_with_the_completion(seconds: float) -> None:
    with Rig(2) as rig:
        arrays = [np.ones(300, np.float32) for _ in range(2)]
        polling = InThread(lambda: rig.engines[0].poll(seconds))
        tickets = rig.start(arrays)
        waiting = InThread(lambda: rig.engines[1].wait(tickets[1], seconds))
        assert [each.ticket for each in polling.result()] == [tickets[0]]
        assert waiting.result().ticket == tickets[1]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("-inf")])
def test_limits_that_are_none_are_refused(seconds: float) -> None:
    rig = Rig(1)
    with rig:
        for name in ("timeout_s", "switch_timeout_s", "rto_initial_s", "poll_max_s"):
            rig.options = {name: seconds}
            with pytest.raises(EngineError, match="a time limit is not above 0 s"):
                rig.engine(0)
        # Of a wait they mean: do not wait.
        assert rig.engines[0].poll(seconds) == []
