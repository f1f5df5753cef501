"""``python -m wiresum.controller``: the controller's commands without the others."""

from wiresum.common import command_line
from wiresum.controller.commands.table import ALONE

if __name__ == "__main__":
    command_line.main(ALONE, name="python -m wiresum.controller")
