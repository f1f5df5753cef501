"""One worker of a benchmark: joins a job, reduces, checks every result, says how long it took.

Started by the benchmark inside a worker's namespace. Takes the job from the environment, prints one
line of JSON.
"""

import argparse
import json
import os
import sys
import time

import numpy as np

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.host_agent.agent.lease import open_engine
from wiresum.host_agent.agent.network import mac_of, udp_socket
from wiresum.host_agent.engine import EngineOptions, raise_for
from wiresum.host_agent.environment import AgentError, environment

LARGEST = 1000  # of the integers that are summed: sums stay exact with 32-bit fields


def contribution(
    rank: int, count: int, seed: int
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """What ``rank`` contributes: ``count`` integers, none of whose blocks is all zero."""
    values = np.random.default_rng([seed, rank]).integers(1, LARGEST, count)
    return values.astype(np.float32)


def reduce(rank: int, workers: int, count: int, attempt: int, limit_s: float) -> float:
    """Seconds of one all-reduce of ``count`` elements, after a short one to warm up.

    Raises ``WiresumError``, also for a wrong sum.
    """
    where = environment(os.environ)
    if where is None or where.job is None or where.token is None:
        raise AgentError("this is a part of `wiresum bench`: it is not run by hand")
    with ControllerClient(where.controller, token=where.token) as client:
        job = client.get_job(where.job)
        sock = udp_socket(job.switch_ip, job.switch_udp_port)
        with sock.socket:
            lease = client.join_job(
                where.job, where.token, rank=rank, workers=workers, attempt=attempt, ip=sock.ip,
                udp_port=sock.udp_port, mac=mac_of(sock.ip), field=where.field, timeout_s=limit_s,
            )  # fmt: skip
            engine = open_engine(sock, lease, where.field, EngineOptions(timeout_s=limit_s))
        try:
            seconds = 0.0
            for seed, size in ((1, min(count, 20_000)), (2, count)):
                data = contribution(rank, size, seed)
                want = sum(contribution(r, size, seed) for r in range(workers))
                started = time.perf_counter()
                ticket = engine.all_reduce(data.ctypes.data, size, "float32", False)
                done = engine.wait(ticket, limit_s)
                seconds = time.perf_counter() - started
                if done is None:
                    raise AgentError(f"rank {rank}: no result of the all-reduce in {limit_s:g} s")
                raise_for(done)
                if not np.array_equal(data, want):
                    raise AgentError(f"rank {rank}: the switch returned a wrong sum")
        finally:
            engine.close()
    return seconds


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    for name in ("rank", "workers", "count", "attempt"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True)
    asked = parser.parse_args()
    try:
        seconds = reduce(asked.rank, asked.workers, asked.count, asked.attempt, asked.limit)
    except WiresumError as error:
        print(f"wiresum: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
