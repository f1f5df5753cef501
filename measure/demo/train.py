"""One worker of the demo, started by torchrun: trains with DDP and reports what it did.

Reports go to ``--report``: ``progressN.jsonl`` (one line per step) and ``rankN.json``.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent
from wiresum.common.tcp import tcp_bytes
from wiresum.controller.client.address import parse_addresses
from wiresum.measure.demo.model import CharacterTransformer
from wiresum.measure.demo.text import Corpus, load, windows

LENGTH = 64  # characters of context
BATCH = 8  # sequences per worker and step
BUCKET_MB = 0.5  # several buckets, so that the all-reduces overlap with backward
LEARNING_RATE = 3e-3
VALIDATION_BATCHES = 8
ENGINE_BYTES = ("bytes_sent", "bytes_received", "header_bytes_sent", "header_bytes_received")


def _loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, targets = batch
    return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def _mean(value: float) -> float:
    """The mean over all ranks."""
    total = torch.tensor([value], dtype=torch.float32)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def _validate(model: torch.nn.Module, corpus: Corpus, rank: int, workers: int) -> float:
    """Mean loss over fixed windows of the validation text, shared out among the ranks."""
    count = workers * VALIDATION_BATCHES * BATCH
    starts = torch.linspace(0, len(corpus.validation) - LENGTH - 2, count).long()
    total = 0.0
    with torch.no_grad():
        for mine in torch.split(starts[rank::workers], BATCH):
            total += float(_loss(model, windows(corpus.validation, mine, LENGTH)))
    return _mean(total / VALIDATION_BATCHES)


def _traffic() -> dict[str, float]:
    """This worker's bytes so far: over UDP to the switch (with headers), over TCP (payload)."""
    skip = [int(os.environ["MASTER_PORT"])]
    if "WIRESUM_CONTROLLER" in os.environ:
        controllers = parse_addresses(os.environ["WIRESUM_CONTROLLER"])
        skip += [controller.endpoint.port for controller in controllers]
    engine = host_agent.stats()["engine"]
    switch = sum(engine.get(name, 0) for name in ENGINE_BYTES)
    return {"switch": switch, "tcp": sum(tcp_bytes(skip))}


def _digest(model: torch.nn.Module) -> str:
    """A hash of all weights, to see whether ranks agree to the last bit."""
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train and return this rank's report."""
    rank, workers = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(options.seed)
    corpus = load()
    model = CharacterTransformer(corpus.characters, LENGTH)
    parallel = DistributedDataParallel(model, bucket_cap_mb=BUCKET_MB)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(options.seed * 1000 + rank)
    losses: list[float] = []
    before = _traffic()
    with (options.report / f"progress{rank}.jsonl").open("w") as progress:
        for step in range(options.steps):
            starts = torch.randint(len(corpus.train) - LENGTH - 1, (BATCH,), generator=order)
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(parallel, windows(corpus.train, starts, LENGTH))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            if rank == 0:
                progress.write(json.dumps({"step": step + 1, "loss": losses[-1]}) + "\n")
                progress.flush()
    after = _traffic()
    last = losses[-max(1, options.steps // 10) :]
    return {
        "rank": rank,
        "losses": losses,
        "train_loss": _mean(sum(last) / len(last)),
        "validation_loss": _validate(model, corpus, rank, workers),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights": _digest(model),
        "bytes_per_step": {name: (after[name] - before[name]) / options.steps for name in after},
    }


def main() -> None:
    """Entry point of a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    dist.init_process_group(options.backend)
    report = train(options)
    dist.barrier()
    dist.destroy_process_group()
    report["stats"] = host_agent.stats()
    (options.report / f"rank{report['rank']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
