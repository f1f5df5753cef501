"""``python -m wiresum.softswitch``: the embedded switch without the rest of the command line."""

import typer

from wiresum.common import command_line
from wiresum.softswitch.cli import serve


def main() -> None:
    """Run ``serve``; an error that wiresum raises on purpose is one line on stderr."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    command_line.main(app)


if __name__ == "__main__":
    main()
