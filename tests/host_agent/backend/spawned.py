"""Workers of torch.multiprocessing: nobody sets RANK and LOCAL_RANK.

``spawned.py FOLDER METRICS-PORT``
"""

import atexit
import sys
import urllib.request
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORKERS = 2


def main(rank: int, folder: str, port: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS
    )
    dist.all_reduce(torch.ones(10))
    dist.barrier()
    url = f"http://127.0.0.1:{port + rank}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
    except OSError as error:
        text = str(error)
    (Path(folder) / f"metrics{rank}").write_text(text)
    dist.barrier()
    dist.destroy_process_group()
    atexit._run_exitfuncs()  # multiprocessing ends a fork without them


if __name__ == "__main__":
    # Forks have torch already; started.py spawns.
    mp.start_processes(main, (sys.argv[1], int(sys.argv[2])), WORKERS, start_method="fork")
