"""Racks for tests of the testbed."""

from support.rack_fixtures import cli, kind, name, need_rack, up

__all__ = ["cli", "kind", "name", "need_rack", "up"]
