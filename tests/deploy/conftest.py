"""Commands for tests of the deployments."""

from support.command_fixtures import cli

__all__ = ["cli"]
