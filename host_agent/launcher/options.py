"""The options of a run, as one value from the command line down to the session."""

import dataclasses
from dataclasses import dataclass

from wiresum.controller.client.requests import SlotRequest
from wiresum.host_agent.environment import Carrier, Transport


@dataclass(frozen=True)
class JobOptions:
    """A job to make, and how its workers use it. ``dataclasses.replace`` derives another."""

    controller: str | None = None
    """``HOST:PORT``; None: a switch and a controller are started for this job alone."""
    field: int = 32
    """Bits of a quantized element: 32, 16 or 8."""
    name: str = ""
    """Launchers with the same name share a job; empty: the controller chooses."""
    slots: SlotRequest = dataclasses.field(default_factory=SlotRequest)
    timeout_s: float | None = None
    """Limit of the start, and of the workers' joining and collectives; None: the group's own."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """The tenant's; None: as the environment says."""
    ca: str | None = None
    """File with the authority of the controller's certificate; None: as the environment says."""
    transport: Transport = Transport.AUTO
    """How the workers reach the switch."""
    carrier: Carrier = Carrier.AUTO
    """The carrier; with ``RANKS``, there is no job."""
    tune: str = ""
    """Limits within which the ranks choose the field, see ``agent.tuning.wish``; empty: none."""
    codec: str = ""
    """What is put on the script's DDP models, see ``remedies.spec``; empty: nothing."""
    switch_timeout_s: float | None = None
    """How long the switch may say nothing while workers wait; None: as the environment says."""
