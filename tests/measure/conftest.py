"""Racks for tests of what measures on them."""

from support.command_fixtures import cli
from support.rack_fixtures import kind, name, need_rack, up

__all__ = ["cli", "kind", "name", "need_rack", "up"]
