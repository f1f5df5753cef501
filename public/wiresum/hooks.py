"""DDP hooks that send fewer bytes: ``compress``, with a state that says what is sent."""

from wiresum.host_agent.hooks.ddp import compress
from wiresum.host_agent.hooks.shards import compress_shards
from wiresum.host_agent.hooks.state import THC, BlockFloat, Ternary, TopK, Vote

__all__ = ["THC", "BlockFloat", "Ternary", "TopK", "Vote", "compress", "compress_shards"]
