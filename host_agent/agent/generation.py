"""The name of one start of a group, under which its ranks agree on everything in their store.

torchrun keeps its store when it restarts the workers, so what the ranks of an earlier start have
said is still there. How often torchrun has restarted them tells the starts apart on one node. On
several nodes it does not: each counts for itself, and not when others have made it restart. Then
rank 0 draws a random name, and gives it to each rank that asks with a random number of its own.
"""

import os
import secrets
import time
from collections.abc import Mapping

from wiresum.host_agent import lines
from wiresum.host_agent.agent.worker import Store
from wiresum.host_agent.environment import AgentError

_KEY = "wiresum/generation"
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.2


def generation(
    store: Store,
    rank: int,
    size: int,
    worlds: int,
    limit_s: float,
    env: Mapping[str, str] = os.environ,
) -> str:
    """The name of this start, the same on all ranks. Blocks where they have to agree on one.

    ``worlds``: how many groups this process has made since it was started. Raises ``AgentError`` on
    a rank that rank 0 does not answer within ``limit_s`` seconds.
    """
    kept = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not kept:  # the store is rank 0's, and as new as its process
        return f"0.{worlds}"
    if env.get("GROUP_WORLD_SIZE", "1") == "1" or size == 1:
        return f"{env.get('TORCHELASTIC_RESTART_COUNT', '0')}.{worlds}"
    name = _name(store, size, limit_s) if rank == 0 else _ask(store, rank, limit_s)
    return f"{name}.{worlds}"


def _name(store: Store, size: int, limit_s: float) -> str:
    """On rank 0: draw a name, and answer until all ranks have it.

    If a rank does not come, joining the job names it.
    """
    name = secrets.token_hex(8)
    others = range(1, size)
    answered: dict[int, bytes] = {}
    deadline, pause = time.monotonic() + limit_s, _SHORTEST_LOOK_S
    while not store.check([f"{_KEY}/{name}/{rank}" for rank in others]):
        for rank in others:
            key = f"{_KEY}/asks/{rank}"
            if store.check([key]) and (number := store.get(key)) != answered.get(rank):
                answered[rank] = number
                store.set(f"{_KEY}/answer/{number.decode()}", name)
        if time.monotonic() > deadline:
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_LOOK_S)
    return name


def _ask(store: Store, rank: int, limit_s: float) -> str:
    """On the others: ask rank 0 for the name, with a number that no earlier start has used."""
    number = secrets.token_hex(8)
    store.set(f"{_KEY}/asks/{rank}", number)
    deadline, pause = time.monotonic() + limit_s, _SHORTEST_LOOK_S
    while not store.check([f"{_KEY}/answer/{number}"]):
        if time.monotonic() > deadline:
            raise AgentError(lines.RANK_0_SILENT.of(seconds=limit_s))
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_LOOK_S)
    name = store.get(f"{_KEY}/answer/{number}").decode()
    store.set(f"{_KEY}/{name}/{rank}", "")
    return name
