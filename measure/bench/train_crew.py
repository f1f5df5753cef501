"""Forks the ranks of each training from one process that has imported torch.

Orders are lines of JSON on stdin, one a
training; each is answered with one line. Started by ``train_rack.py`` with the name of the module
whose ``train(order)`` is a rank's training, and which may have a ``prepare()`` for all of them; not
run by hand.
"""

import functools
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from wiresum.measure.bench.forks import fork


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
        work = functools.partial(_rank, order, folder / f"{rank}.json", train)
        children[fork(place["namespace"], place["env"], folder / f"{rank}.log", work)] = rank
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


def _rank(order: dict[str, Any], result: Path, train: Any) -> None:
    """In the child: train, leave the result."""
    said = train.train(order)
    _finish()
    result.write_text(json.dumps(said))


def _finish() -> None:
    """What the end of a process would do: wiresum's recorder writes its files then."""
    import atexit

    atexit._run_exitfuncs()


if __name__ == "__main__":
    main()
