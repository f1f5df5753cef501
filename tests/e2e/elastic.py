"""One worker of an elastic training: steps from a checkpoint, until there is a file ``stop``.

The gradients are small integers that follow from the step and the rank, so the weights after a step
follow exactly from those before it and the number of ranks. Each rank appends to a file of its own
a line for what it has loaded and for each step: attempt, ranks, step, digest of the weights, what
has summed. Rank 0 writes the checkpoint ``checkpoint`` after each step.
"""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

SIZE = 5000


def gradients(step: int, rank: int) -> np.ndarray:
    """Of one rank in one step."""
    return np.random.default_rng([step, rank]).integers(-50, 50, SIZE).astype(np.float32)


def digest(weights: np.ndarray) -> str:
    return hashlib.sha256(weights.tobytes()).hexdigest()[:16]


def main() -> None:
    import wiresum.host_agent

    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out

    dist.init_process_group("wiresum")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    checkpoint = folder / "checkpoint.npz"
    step, weights = 0, np.zeros(SIZE, np.float32)
    if checkpoint.exists():
        with np.load(checkpoint) as loaded:
            step, weights = int(loaded["step"]), loaded["weights"]
    attempt = int(wiresum.host_agent.dump()["groups"][0]["lease"]["attempt"])
    with (folder / f"log.{os.getpid()}").open("a", buffering=1) as log:

        def note(what: str) -> None:
            carrier = wiresum.host_agent.dump()["groups"][0]["lease"]["carrier"]
            line = [what, attempt, ranks, rank, step, digest(weights), carrier]
            log.write(json.dumps(line) + "\n")

        note("loaded")
        stop = torch.zeros(1)
        while not stop.item():
            step += 1
            total = torch.from_numpy(gradients(step, rank))
            dist.all_reduce(total)
            weights = weights + total.numpy()
            note("step")
            if rank == 0:
                new = folder / "new.npz"
                np.savez(new, step=step, weights=weights)
                new.rename(checkpoint)
            stop = torch.tensor([float((folder / "stop").exists())])
            dist.all_reduce(stop)
            time.sleep(0.1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
