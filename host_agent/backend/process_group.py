"""The two shapes in which torch takes a backend that is written in Python.

Up to 2.14 it is a ``ProcessGroup`` that replaces the whole group; from 2.15 a ``Backend`` for a
device. Both are the same thin adapter over :class:`~wiresum.host_agent.backend.core.Core`.
"""

import torch.distributed as dist
from torch._C._distributed_c10d import Backend, Store

from wiresum.host_agent.backend.collectives import Collectives
from wiresum.host_agent.backend.core import Core


class WiresumProcessGroup(Collectives, dist.ProcessGroup):  # type: ignore[misc]
    """A ``torch.distributed`` group whose all-reduces use the switch."""

    def __init__(self, core: Core, store: Store) -> None:
        # (rank, size) alone: the other constructors make C++ look for a backend of its own.
        dist.ProcessGroup.__init__(self, core.rank, core.size)  # type: ignore[call-arg]
        self.core = core
        self._store = store
        # The group's name and device types live in its registered backends. No collective gets
        # there past the overrides; `group_name` must stay what C++ makes of it.
        kinds = {"cpu": self.BackendType.GLOO, "cuda": self.BackendType.NCCL}
        for device in core.inner._device_types:
            backend = core.inner._get_backend(device)
            self._register_backend(device, kinds[device.type], backend)

    def get_group_store(self) -> Store:
        """The store that the group was made with."""
        return self._store


class WiresumBackend(Collectives, Backend):
    """The same for releases of torch in which Python can implement a ``Backend``."""

    def __init__(self, core: Core) -> None:
        Backend.__init__(self, core.rank, core.size)
        self.core = core


def adapt(core: Core, store: Store) -> WiresumProcessGroup | WiresumBackend:
    """The object to hand to torch."""
    try:
        return WiresumBackend(core)
    except TypeError:  # 2.13: "No constructor defined!"
        return WiresumProcessGroup(core, store)
