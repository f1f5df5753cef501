"""One worker of the job that ``wiresum bench flood`` attacks.

Started inside its namespace with the job in its environment. Joins, prints its address and its
lease as one line of JSON, and then takes orders as lines of JSON on stdin: all-reduce so many
elements. Each is answered with the seconds that it took; every sum is checked. Not run by hand.
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


def serve(rank: int, workers: int, limit_s: float) -> None:
    """Join, and carry out orders until stdin ends. Raises ``WiresumError``."""
    where = environment(os.environ)
    if where is None or where.job is None or where.token is None:
        raise AgentError(lines.NOT_BY_HAND.of())
    with ControllerClient(where.controller, token=where.token) as client:
        job = client.get_job(where.job)
        sock = udp_socket(job.switch_ip, job.switch_udp_port)
        with sock.socket:
            mac = mac_of(sock.ip)
            lease = client.join_job(
                where.job,
                where.token,
                JoiningRank(
                    rank=rank,
                    workers=workers,
                    attempt=0,
                    ip=sock.ip,
                    udp_port=sock.udp_port,
                    mac=mac,
                    field=where.field,
                ),
                timeout_s=limit_s,
            )
            engine = open_engine(sock, lease, where.field, EngineOptions(timeout_s=limit_s))
    try:
        print(
            json.dumps(
                {"address": [mac, sock.ip, sock.udp_port], "job": lease.job, "epoch": lease.epoch}
            ),
            flush=True,
        )
        for line in sys.stdin:
            order = json.loads(line)
            before = engine.stats()
            seconds = timed_reduce(engine, rank, workers, order["count"], order["seed"], limit_s)
            after = engine.stats()
            counted = ("retransmissions", "contributions", "drops_foreign")
            print(
                json.dumps({"seconds": seconds} | {k: after[k] - before[k] for k in counted}),
                flush=True,
            )
    finally:
        engine.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    for name in ("rank", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--limit", type=float, required=True)
    asked = parser.parse_args()
    try:
        serve(asked.rank, asked.workers, asked.limit)
    except WiresumError as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
