"""The probe between two hosts, in network namespaces, whose link is slower in one direction."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from support.torchruns import clean_environment, finish
from support.training import spawned
from wiresum.measure.probe.links import Pair, fitted

pytest.importorskip("torch", reason="the extra `torch` is not installed")

SCRIPT = Path(__file__).with_name("probing_rank.py")
FAST, SLOW = 0.1, 0.04  # Gbit/s
# A mount namespace of their own keeps the names of the network namespaces from everybody else.
HOSTS = """
set -e
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip netns add a && ip netns add b
ip link add va netns a type veth peer name vb netns b
limit() { ip netns exec $1 tc qdisc add dev v$1 root tbf rate $2 burst 32kb latency 1s; }
for host in a b; do ip -n $host link set lo up; ip -n $host link set v$host up; done
ip -n a addr add 10.77.0.1/24 dev va && ip -n b addr add 10.77.0.2/24 dev vb
limit a 100mbit && limit b 40mbit
"""


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "tc"))),
    reason="needs root, unshare, ip and tc: two network namespaces",
)
def test_a_link_that_is_slower_in_one_direction_is_told_by_direction(tmp_path):
    def rank(number: int, host: str) -> str:
        command = [*spawned(1), str(SCRIPT), str(number), str(tmp_path)]
        return f"GLOO_SOCKET_IFNAME=v{host} ip netns exec {host} {shlex.join(command)}"

    script = f"{HOSTS}\n{rank(1, 'b')} &\n{rank(0, 'a')}\nwait $!\n"
    done = finish(["unshare", "--net", "--mount", "sh", "-c", script], clean_environment())
    assert done.status == 0, done.output
    found = json.loads((tmp_path / "0.json").read_text())
    links = fitted(found["links"], found["links_note"])
    assert links.note == ""
    there, back = links.pairs
    assert there == Pair(0, 1, there.alpha_us, pytest.approx(FAST, rel=0.3))
    assert back == Pair(1, 0, back.alpha_us, pytest.approx(SLOW, rel=0.3))
    assert links.slowest == back
    assert links.unequal() == [(back, there)]
