"""The command line."""

from support.command_fixtures import cli

__all__ = ["cli"]
