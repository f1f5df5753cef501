"""``python -m wiresum.softswitch``: the embedded switch without the rest of the command line."""

from wiresum.common import command_line
from wiresum.softswitch.cli import serve


def main() -> None:
    """Run ``serve``; an error that wiresum raises on purpose is one line on stderr."""
    command_line.main(command_line.Command(serve), name="python -m wiresum.softswitch")


if __name__ == "__main__":
    main()
