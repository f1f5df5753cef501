"""The command line: how commands declare their options, and how a command is run."""

from wiresum.common.command_line.declare import Argument, Command, Group, Option, Rest
from wiresum.common.command_line.run import UsageError, main

__all__ = ["Argument", "Command", "Group", "Option", "Rest", "UsageError", "main"]
