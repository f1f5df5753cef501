"""``python -m wiresum.softswitch``: the embedded switch without the rest of the command line."""

import sys

import typer

from wiresum.common import logs
from wiresum.common.errors import WiresumError
from wiresum.softswitch.cli import serve


def main() -> None:
    """Run ``serve``; an error that wiresum raises on purpose is one line on stderr."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        app()
    except WiresumError as error:
        print(logs.last_words(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
