"""DDP hooks that send fewer bytes: ``compress``, with the state ``TopK`` or ``BlockFloat``."""

from wiresum.host_agent.hooks.ddp import compress
from wiresum.host_agent.hooks.state import BlockFloat, TopK

__all__ = ["BlockFloat", "TopK", "compress"]
