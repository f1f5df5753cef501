"""One worker of a benchmark: joins a job, reduces, checks every result, says how long it took.

Started by the benchmark inside a worker's namespace. Takes the job from the environment, prints one
line of JSON.
"""

import argparse
import json
import os
import sys

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank
from wiresum.host_agent.agent.lease import open_engine
from wiresum.host_agent.agent.network import mac_of, udp_socket
from wiresum.host_agent.engine import EngineOptions
from wiresum.host_agent.environment import AgentError, environment
from wiresum.measure import lines
from wiresum.measure.bench.checked import timed_reduce


def reduce(rank: int, workers: int, count: int, attempt: int, limit_s: float) -> float:
    """Seconds of one all-reduce of ``count`` elements, after a short one to warm up.

    Raises ``WiresumError``, also for a wrong sum.
    """
    where = environment(os.environ)
    if where is None or where.job is None or where.token is None:
        raise AgentError(lines.NOT_BY_HAND.of())
    with ControllerClient(where.controller, token=where.token) as client:
        job = client.get_job(where.job)
        sock = udp_socket(job.switch_ip, job.switch_udp_port)
        with sock.socket:
            lease = client.join_job(
                where.job,
                where.token,
                JoiningRank(
                    rank=rank,
                    workers=workers,
                    attempt=attempt,
                    ip=sock.ip,
                    udp_port=sock.udp_port,
                    mac=mac_of(sock.ip),
                    field=where.field,
                ),
                timeout_s=limit_s,
            )
            engine = open_engine(sock, lease, where.field, EngineOptions(timeout_s=limit_s))
        try:
            seconds = 0.0
            for seed, size in ((1, min(count, 20_000)), (2, count)):
                seconds = timed_reduce(engine, rank, workers, size, seed, limit_s)
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
