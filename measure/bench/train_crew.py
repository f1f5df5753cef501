"""Forks the ranks of each training from one process that has imported torch.

Importing torch takes seconds of a core in each process. Orders are lines of JSON on stdin, one a
training; each is answered with one line. Started by ``train_rack.py`` with the name of the module
whose ``train(order)`` is a rank's training, and which may have a ``prepare()`` for all of them; not
run by hand.
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from wiresum.testbed.namespaces import go_into


def main() -> None:
    """Serve orders until stdin ends."""
    import torch._dynamo
    import torch.distributed

    train = importlib.import_module(sys.argv[1])
    if hasattr(train, "prepare"):
        train.prepare()
    assert torch.distributed.is_available()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), train)), flush=True)


def _run(order: dict[str, Any], train: Any) -> dict[str, Any]:
    """One training of all its ranks."""
    folder = Path(order["folder"])
    children: dict[int, int] = {}
    for rank, place in enumerate(order["ranks"]):
        pid = os.fork()
        if pid == 0:
            _rank(order, rank, place, folder, train)
        children[pid] = rank
    late = time.monotonic() + order["limit_s"]
    failed: str | None = None
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if time.monotonic() > late or failed:
                failed = failed or f"no end within {order['limit_s']:g} s"
                for each in children:
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.02)
            continue
        rank = children.pop(pid)
        if status != 0 and failed is None:
            failed = f"rank {rank}: {_last_line(folder / f'{rank}.log')}"
    if failed:
        return {"error": failed}
    found = [
        json.loads((folder / f"{rank}.json").read_text()) for rank in range(len(order["ranks"]))
    ]
    return {"ranks": found}


def _last_line(log: Path) -> str:
    said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return said[-1] if said else "no reason given"


def _rank(
    order: dict[str, Any], rank: int, place: dict[str, Any], folder: Path, train: Any
) -> None:
    """In the child: go into the rank's network, train, leave the result. Does not return."""
    status = 1
    try:
        log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        go_into(place["namespace"])
        os.environ.clear()
        os.environ.update(place["env"])
        result = train.train(order)
        _finish()
        (folder / f"{rank}.json").write_text(json.dumps(result))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _finish() -> None:
    """What the end of a process would do: wiresum's recorder writes its files then."""
    import atexit

    atexit._run_exitfuncs()


if __name__ == "__main__":
    main()
