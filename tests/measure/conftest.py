"""Racks for tests of what measures on them."""

from support.rack_fixtures import cli, kind, name, need_rack, up

__all__ = ["cli", "kind", "name", "need_rack", "up"]
