"""The two shapes in which torch takes a backend that is written in Python.

Up to 2.14 it is a ``ProcessGroup`` that replaces the whole group; from 2.15 a ``Backend`` for a
device. Both are the same thin adapter over
:class:`~wiresum.host_agent.backend.collective_router.CollectiveRouter`.
"""

import torch.distributed as dist
from torch._C._distributed_c10d import Backend, Store

from wiresum.host_agent.backend.collective_router import CollectiveRouter
from wiresum.host_agent.backend.collectives import Collectives


class WiresumProcessGroup(Collectives, dist.ProcessGroup):  # type: ignore[misc]
    """A ``torch.distributed`` group whose all-reduces use the switch."""

    def __init__(self, router: CollectiveRouter, store: Store) -> None:
        # (rank, size) alone: the other constructors make C++ look for a backend of its own.
        dist.ProcessGroup.__init__(self, router.rank, router.size)  # type: ignore[call-arg]
        self.router = router
        self._store = store
        # The group's name and device types live in its registered backends. No collective gets
        # there past the overrides; `group_name` must stay what C++ makes of it.
        kinds = {"gloo": self.BackendType.GLOO, "nccl": self.BackendType.NCCL}
        for device in router.inner._device_types:
            backend = router.inner._get_backend(device)
            self._register_backend(device, kinds[backend.name()], backend)

    def get_group_store(self) -> Store:
        """The store that the group was made with."""
        return self._store


class WiresumBackend(Collectives, Backend):
    """The same for releases of torch in which Python can implement a ``Backend``."""

    def __init__(self, router: CollectiveRouter) -> None:
        Backend.__init__(self, router.rank, router.size)
        self.router = router


def adapt(router: CollectiveRouter, store: Store) -> WiresumProcessGroup | WiresumBackend:
    """The object to hand to torch."""
    try:
        return WiresumBackend(router)
    except TypeError:  # 2.13: "No constructor defined!"
        return WiresumProcessGroup(router, store)
