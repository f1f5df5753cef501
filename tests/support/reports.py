"""Reports as ``wiresum measure --json`` writes them, from a few figures."""

import json
from pathlib import Path
from typing import Any

MIB = 1 << 20


def report(
    *,
    workers: int = 4,
    computation_ms: float = 100.0,
    exposed_ms: float = 300.0,
    comm_ms: float = 350.0,
    waiting_share: float = 0.0,
    sizes: tuple[tuple[int, float], ...] = ((25 * MIB, 1.0),),
    dtype: str = "float32",
    carrier: str = "gloo",
    links: tuple[float, float] | None = (50.0, 1.0),
) -> dict[str, Any]:
    """``sizes``: bytes and number per step; ``links``: µs and Gbit/s of all pairs."""
    shares = {
        "computation_time": computation_ms,
        "exposed_comm_time": exposed_ms,
        "exposed_memcpy_time": 0.0,
        "idle_time": 0.0,
        "total_time": computation_ms + exposed_ms,
        "total_comm_time": comm_ms,
        "overlapped_comm_time": comm_ms - exposed_ms,
    }
    step = computation_ms + exposed_ms
    made: dict[str, Any] = {
        "kind": "wiresum measure",
        "version": 1,
        "threshold": 0.05,
        "exposed_share": exposed_ms / step,
        "comm_share": comm_ms / step,
        "waiting_share": waiting_share,
        "steps": 10,
        "median": shares,
        "ranks": [{"rank": rank, **shares} for rank in range(workers)],
        "collectives": [
            {
                "kind": "all_reduce",
                "carrier": carrier,
                "dtype": dtype,
                "size": size,
                "group": f"default of {workers} ranks",
                "ranks": workers,
                "per_step": count,
                "latency_ms": comm_ms / len(sizes) / count,
            }
            for size, count in sizes
        ],
        "notes": [],
    }
    if links is not None:
        pairs = [
            {"from": a, "to": b, "alpha_us": links[0], "beta_gbit": links[1]}
            for a in range(workers)
            for b in range(workers)
            if a != b
        ]
        made["links"] = {"pairs": pairs, "slowest": [0, 1], "note": ""}
    return made


def write(path: Path, content: dict[str, Any]) -> Path:
    """As a file."""
    path.write_text(json.dumps(content))
    return path
