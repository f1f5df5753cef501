"""The command ``wiresum bench flood``."""

import os
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.measure.attack.frames import KINDS
from wiresum.testbed.errors import RackError, RackUsageError
from wiresum.testbed.options import RackOptions, check_name, parse_rate

DEFAULT_KINDS = "elsewhere,garbage,wrong-key,pings,socket,broadcast"


def flood(
    switch: Annotated[str, Option(metavar="bmv2|soft", help="The rack's switch.")] = "soft",
    rate: Annotated[str, Option(help="Rate of every link, the attacker's too.")] = "100mbit",
    workers: Annotated[int, Option(min=1, max=63, help="Workers of the job.")] = 3,
    lanes: Annotated[int, Option(help="Lanes of the switch program.")] = 64,
    kinds: Annotated[str, Option(help=f"Kinds of flood: {', '.join(KINDS)}.")] = DEFAULT_KINDS,
    repeat: Annotated[int, Option(min=1, help="Rounds.")] = 5,
    seconds: Annotated[
        float, Option(min=0.1, max=30, help="Approximate length of an all-reduce without a flood.")
    ] = 1.0,
    priority: Annotated[
        bool,
        Option("--priority", help="A queue of their own for what the switch itself sends."),
    ] = False,
    name: Annotated[str, Option(help="The rack's name.")] = "",
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """How much longer an all-reduce takes while a host floods at the rate of its link."""
    asked = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    for kind in asked:
        if kind not in KINDS:
            raise RackUsageError(lines.UNKNOWN_KIND.of(kind=kind, kinds=", ".join(KINDS)))
    if not asked:
        raise RackUsageError(lines.NO_KIND.of())
    options = RackOptions(
        switch=switch, workers=workers + 1, rate_mbit=parse_rate(rate), lanes=lanes,
        name=check_name(name or f"flood-{os.getpid()}"),
    ).check()  # fmt: skip
    if options.rate_mbit is None:
        raise RackUsageError(lines.NO_RATE.of(text=rate))
    import json
    import statistics
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from wiresum.measure.attack.bench import measure
    from wiresum.testbed.interrupts import Interrupts

    with Interrupts():
        chunks, found, drops = measure(options, asked, repeat, seconds, priority=priority)
    if json_file is not None:
        content = {
            "kind": "flood", "switch": switch, "rate_mbit": options.rate_mbit, "workers": workers,
            "lanes": lanes, "chunks": chunks, "priority": priority, "drops": drops,
            "floods": [asdict(each) | {"ratios": each.ratios} for each in found],
        }  # fmt: skip
        try:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise RackError(lines.CANNOT_WRITE.of(path=json_file, why=error.strerror)) from None
    table = Table(
        title=f"All-reduce of {chunks:,} chunks of {lanes} lanes, {workers} workers, {switch}, "
        f"links of {rate}{', with priority' if priority else ''}"
    )
    for heading in ("flood", "Mbit/s", "frames/s", "times as long", "lowest", "highest", "resent"):
        table.add_column(heading, justify="left" if heading == "flood" else "right")
    for each in found:
        table.add_row(
            each.kind,
            f"{statistics.median(r.mbit for r in each.rounds):,.1f}",
            f"{statistics.median(r.frames_s for r in each.rounds):,.0f}",
            f"{each.median:.2f} ×",
            f"{min(each.ratios):.2f}",
            f"{max(each.ratios):.2f}",
            f"{100 * statistics.median(r.retransmitted for r in each.rounds):.1f} %",
        )
    Console().print(table)
