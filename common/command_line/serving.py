"""Options of the commands that serve until a signal ends them."""

from typing import Annotated

from wiresum.common.command_line.declare import Option

ExitWithParent = Annotated[
    bool, Option("--exit-with-parent", help="End when the starting process ends.")
]
Metrics = Annotated[
    str | None, Option(metavar="HOST:PORT", help="Serve Prometheus metrics there (port 0: any).")
]
LogFormat = Annotated[
    str | None,
    Option(
        metavar="text|json", help="How to log to stderr.  [default: WIRESUM_LOG_FORMAT, or text]"
    ),
]
