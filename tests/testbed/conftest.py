"""Racks for tests of the testbed."""

from support.command_fixtures import cli
from support.rack_fixtures import kind, name, need_rack, up

__all__ = ["cli", "kind", "name", "need_rack", "up"]
