"""Makes a process group: decides whether it may use the switch, and joins the job if so."""

import atexit
import ctypes
import logging
import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from wiresum.common.errors import derive_errors_from
from wiresum.controller.client import OnFull
from wiresum.controller.client.requests import SlotRequest
from wiresum.host_agent.agent.generation import generation
from wiresum.host_agent.agent.peers.judge import listed
from wiresum.host_agent.backend.agent_face import AgentFace
from wiresum.host_agent.backend.collective_router import CollectiveRouter, GroupOptions, routers
from wiresum.host_agent.backend.fallback import let_gloo_finish, make_fallback
from wiresum.host_agent.backend.monitored import install_monitored_barrier
from wiresum.host_agent.backend.process_group import adapt
from wiresum.host_agent.backend.reducer import install_reducer
from wiresum.host_agent.backend.report import write_at_exit
from wiresum.host_agent.environment import FALLBACK, Carrier, Environment, environment

log = logging.getLogger("wiresum")

derive_errors_from(dist.DistBackendError)

_process = os.getpid()
_worlds: list[str] = []  # every world group that this process has made
_made: Counter[str] = Counter()  # how often groups of each name, since the last of them
_start = ""  # the name of the last of them; groups within it share that
_world: "weakref.ref[CollectiveRouter] | None" = None  # the last world's

ALONE = "the group has one rank"
NO_WORLD = "the default group does not use the switch"
NO_CONTROLLER = "this run has no switch: WIRESUM_CONTROLLER is not set"


def create(options: Any) -> Any:
    """torch's creator: ``options`` has the store, rank, size and timeout of the new group.

    Raises what the agent raises when the controller or the switch cannot be reached or a rank
    is missing: a group never falls back silently where a switch was asked for.
    """
    global _world
    store: Store = options.store
    rank: int = options.group_rank
    size: int = options.group_size
    timeout: timedelta = options.timeout
    members = list(options.global_ranks_in_group)

    if not members:
        _worlds.append(options.group_id)
        _made.clear()
    started = _generation(store, rank, size, timeout, members)
    if members:
        # A name may be used again once its group is gone; the keys in the store are still there.
        _made[options.group_id] += 1
        started += f"/{_made[options.group_id]}"
    beside = Beside(store)
    place: Place | None = None
    agent: AgentFace | None = None
    why: str | None = None
    world = _same_ranks(members)
    where = environment(os.environ)
    if where is None and FALLBACK in os.environ:
        why = os.environ[FALLBACK]  # the launcher has said so
    elif where is None:
        why = NO_CONTROLLER
        if not members and rank == 0:
            log.warning(
                "wiresum: everything goes over gloo, no switch is used: start the training with "
                "`wiresum run -- torchrun ...` (or set WIRESUM_CONTROLLER) to sum on the wire"
            )
    elif world is not None:
        why = world.why_no_agent
    elif members and size == 1:
        why = ALONE
    elif members:
        name = f"group-{options.group_id}.{_made[options.group_id]}"
        label = f"the group of ranks {listed(members)}"
        place = Place(options, beside, where, started, name, members, label)
        agent, why = _part(place)
    else:
        # gRPC and the engine: only where needed.
        from wiresum.host_agent.agent.agent import Agent
        from wiresum.host_agent.agent.control import NoRoom
        from wiresum.host_agent.agent.plan import JobTaken
        from wiresum.host_agent.agent.worker import Worker

        try:
            worker = Worker(where, store, rank, size, timeout, started, _endpoint(store))
            agent = Agent.join(worker)
        except (NoRoom, JobTaken) as full:
            why = str(full)
            if rank == 0:
                log.warning("wiresum: everything goes over gloo, no switch is used: %s", why)

    if agent is not None:
        started += f".{agent.describe().get('attempt', 0)}"

    def make_group(prefix: str) -> dist.ProcessGroup:
        # Threads of ours must not lock the script's out of the store while they wait for ranks.
        ours = prefix == "callbacks" or (prefix == "ranks" and members)
        mine = beside.store if ours else store
        return make_fallback(mine, rank, size, timeout, f"{started}/{prefix}")

    install_monitored_barrier()
    install_reducer()
    name = options.group_id if members else "world"
    own = PrefixStore(f"wiresum/{started}/agreed", store)
    some = () if world is not None or not members else tuple(members)
    given = GroupOptions(name, rank, size, timeout, own, options.group_id, some)
    shared = world if why is None and agent is None else None
    # A group within the world says at its first collective why that goes around the switch.
    said = agent is None and (
        where is None or not members or size == 1 or (world is not None and not shared)
    )

    def below() -> CollectiveRouter:
        assert where is not None
        inside = (place or Place(options, beside, where, started, "world", range(size))).below()
        theirs = GroupOptions(
            *(f"{name}/callbacks", rank, size, timeout, PrefixStore("below", own)),
            members=tuple(inside.members),
        )

        def make(prefix: str) -> dist.ProcessGroup:
            return make_fallback(beside.store, rank, size, timeout, f"{inside.generation}/{prefix}")

        agent_below, why_not = _part(inside)
        return CollectiveRouter(theirs, make, agent_below, why_not, said=True)

    router = CollectiveRouter(
        *(given, make_group, agent, why),
        said=said,
        world=shared,
        below=below if agent is not None else None,
    )
    if not members:
        _world = weakref.ref(router)
    return adapt(router, store)


class Beside:
    """A connection of its own to the store of a group, once it is needed: see ``worker.Store``."""

    def __init__(self, store: Store) -> None:
        self._given = store
        self._lock = threading.Lock()
        self._made: Store | None = None

    @property
    def store(self) -> Store:
        """For threads of ours: one that waits in the store lets no other use its connection."""
        with self._lock:
            if self._made is None:
                self._made = self._given.clone()  # type: ignore[attr-defined]
            return self._made

    def set(self, key: str, value: str) -> None:
        """See ``worker.Store``, also for the others."""
        self.store.set(key, value)

    def get(self, key: str) -> bytes:  # noqa: D102
        return self.store.get(key)

    def wait(self, keys: list[str], timeout: timedelta) -> None:  # noqa: D102
        self.store.wait(keys, timeout)

    def check(self, keys: list[str]) -> bool:  # noqa: D102
        return self.store.check(keys)

    def add(self, key: str, amount: int) -> int:  # noqa: D102
        return self.store.add(key, amount)


@dataclass(frozen=True)
class Place:
    """What a group within the world is made with."""

    options: Any
    """torch's."""
    store: Beside
    where: Environment
    generation: str
    name: str
    """Of its part of the job."""
    members: Sequence[int]
    label: str = ""

    def below(self) -> "Place":
        """The same for what callbacks issue.

        It begins over the ranks even in a run that insists on the switch: the job gives slots to a
        part after one collective of all ranks, and a rank may issue that after the callback alone.
        """
        return replace(
            self,
            where=replace(self.where, carrier=Carrier.AUTO),
            generation=f"{self.generation}/callbacks",
            name=f"{self.name}-callbacks",
            label=f"callbacks in {self.label}" if self.label else "callbacks",
        )


def _part(place: Place) -> tuple[AgentFace | None, str | None]:
    """The agent of a group of some of the ranks, or of all in another order; or why it has none."""
    world = _world() if _world is not None else None
    if world is not None and not world.closed and world.agent is None:
        return None, world.why_no_agent or NO_WORLD
    from wiresum.host_agent.agent.part import NoWhole, PartAgent
    from wiresum.host_agent.agent.worker import Part, Worker

    where, options = place.where, place.options
    request = SlotRequest(on_full=OnFull.WAIT)
    mine = replace(where, job=None, token="", job_file="", fallback="", request=request)
    whole: Any = NoWhole()
    share = 0.0
    if world is None or world.closed:  # of another backend: there is no job to be a part of
        mine = replace(mine, controller="", carrier=Carrier.AUTO, fallback=NO_WORLD)
    else:
        # The groups of one dimension of a mesh together get a quarter of the job's slots.
        whole, share = world.agent, options.group_size / (4 * world.size)
    part = Part(place.name, tuple(place.members), whole, place.label, share)
    worker = Worker(
        *(mine, place.store, options.group_rank, options.group_size, options.timeout),
        place.generation,
        endpoint=_endpoint(options.store),
        part=part,
    )
    return PartAgent.of(worker), None


def _same_ranks(members: list[int]) -> CollectiveRouter | None:
    """The router of the world, for a group that has all its ranks in its order; else None."""
    world = _world() if _world is not None else None
    if world is None or world.closed or members != list(range(world.size)):
        return None
    return world


def _generation(store: Store, rank: int, size: int, timeout: timedelta, members: list[int]) -> str:
    """Keys of the world before may be in the store: see ``agent.generation``."""
    global _start
    if not members:
        _start = generation(store, rank, size, len(_worlds), timeout.total_seconds())
    return _start or f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}.0"


def _endpoint(store: Any) -> str:
    """Where the ranks' store is; empty for one without an address."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    host, port = getattr(store, "host", None), getattr(store, "port", None)
    return f"{host}:{port}" if host and port else ""


@atexit.register
def _leave() -> None:
    if os.getpid() != _process:
        return  # a fork: it has no threads of ours, and the job is its parent's
    # A process that ends with work in flight would be aborted by torch (SIGABRT).
    write_at_exit()
    for router in sorted(routers, key=lambda router: router.number, reverse=True):
        router.shutdown()  # the default group, of whose job others have parts, comes last
    let_gloo_finish()


def _forked() -> None:
    """In a forked child, keep the parent's groups alive for ever.

    A destructor that closed a channel or a socket in the child would end the parent's connection.
    """
    for router in list(routers):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(router))
    routers.clear()


os.register_at_fork(after_in_child=_forked)
