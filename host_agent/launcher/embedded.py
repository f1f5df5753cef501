"""A switch and a controller of its own for one run."""

import os

from wiresum.common.children.child import START_S, SlowStart
from wiresum.common.temporary import PrivateFolder
from wiresum.controller.client.local_site import LocalSite, SiteOptions
from wiresum.host_agent import lines
from wiresum.host_agent.environment import without_secrets


class Embedded(LocalSite):
    """The switch and the controller of one run. Use as a context manager.

    ``shm`` is the socket of the switch's port in shared memory, or empty if it has none. ``folder``
    holds the sockets and logs of this run: only this user can open it; it is removed at the end.
    """

    def __init__(self, limit_s: float = START_S, *, shm: bool = True) -> None:
        self.folder = PrivateFolder("run", for_sockets=True)
        socket = self.folder.path / "shm.sock" if shm else None
        self.shm = "" if socket is None else str(socket)
        options = SiteOptions(name="embedded", label="embedded ", shm=socket, limit_s=limit_s)
        try:
            super().__init__(self.folder.path, options, without_secrets(os.environ))
        except SlowStart as slow:
            raise SlowStart(lines.SLOW_START.of(why=slow)) from None

    def close(self) -> None:
        """Stop both, and remove the folder."""
        super().close()
        self.folder.close()
