"""The command ``wiresum codec list``."""

import json
import sys
from typing import Annotated

from wiresum.common.command_line import Option

_PIPE_WIDTH = 160


def list_(
    workers: Annotated[int, Option(min=2, max=65535, help="Ranks of the training.")] = 2,
    as_json: Annotated[bool, Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """The codecs that `run --codec` takes: bytes per element, L, error bound, needs."""
    from rich.console import Console
    from rich.table import Table

    from wiresum.host_agent.hooks.catalogue import codecs

    rows = codecs(workers)
    if as_json:
        print(json.dumps([row.as_json() for row in rows], ensure_ascii=False))
        return
    table = Table(title=f"{workers} ranks; M: the largest magnitude of a block on any rank")
    for heading in ("codec", "bytes per element", "L", "error of a rank's element", "needs"):
        table.add_column(
            heading, justify="right" if heading in ("bytes per element", "L") else "left"
        )
    for row in rows:
        level = "–" if row.level is None else f"{row.level:,}"
        table.add_row(row.name, f"{row.bytes_per_element:.3f}", level, row.error, row.needs)
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
