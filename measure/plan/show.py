"""A plan on a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wiresum.measure.advise.text import ms
from wiresum.measure.plan.planning import Plan, Timed
from wiresum.measure.remedies import PLAIN, REMEDIES

MOST_ROWS = 30
NOTHING = "–"


def page(made: Plan) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [Text(line) for line in _head(made)]
    parts += [Text(), _jobs(made)]
    if len(made.jobs) > MOST_ROWS:
        parts.append(Text(f"and {len(made.jobs) - MOST_ROWS} more jobs: --json has all"))
    parts += [Text(f"waits: {each.job.name}: {each.waits}") for each in made.waiting[:MOST_ROWS]]
    if len(made.waiting) > MOST_ROWS:
        parts.append(Text(f"and {len(made.waiting) - MOST_ROWS} more jobs wait: --json has all"))
    if made.jobs:
        parts += [Text(), _what_if(made.jobs[:MOST_ROWS])]
    return Group(*parts)


def _head(made: Plan) -> list[str]:
    fabric = made.fabric
    hosts = sum(rack.hosts for rack in made.racks)
    fullest = max(made.racks, key=lambda rack: rack.uplink_share)
    lines = [
        f"{len(made.jobs)} of {len(made.jobs) + len(made.waiting)} jobs are admitted: "
        f"{hosts} of {fabric.racks * fabric.hosts} hosts in {fabric.racks} racks",
        f"links of {fabric.link_gbit:g} Gbit/s, {fabric.uplinks} uplinks of "
        f"{fabric.uplink_gbit:g} Gbit/s a rack: oversubscribed {fabric.oversubscription:.3g} : 1",
        f"the fullest switch holds {max([made.spine_slots, *(r.slots for r in made.racks)])} of "
        f"{fabric.slots} slots, {made.sram_bytes / 1024:,.0f} KiB of registers",
        f"the busiest uplinks are asked for {100 * fullest.uplink_share:.0f} % of what they carry",
    ]
    if made.overbooked:
        racks = ", ".join(map(str, made.overbooked[:8]))
        lines.append(f"overbooked: the uplinks of {len(made.overbooked)} racks ({racks})")
    if any(each.together_s > each.alone_s * 1.001 for each in made.jobs):
        lines.append(
            f"communication phases collide; shifting them makes steps "
            f"{100 * made.shift_gain:.1f} % shorter on average"
        )
    return lines


def _jobs(made: Plan) -> Table:
    table = Table(title="Admitted jobs; a step in ms", title_justify="left")
    for heading in ("job", "remedy"):
        table.add_column(heading)
    for heading in ("workers", "racks", "slots", "alone", "together", "shifted", "begin later by"):
        table.add_column(heading, justify="right")
    for each in made.jobs[:MOST_ROWS]:
        job = each.place.job
        table.add_row(
            job.name, job.remedy, str(job.workers), str(len(each.place.racks)),
            str(each.place.slots) if each.place.slots else NOTHING, ms(each.alone_s),
            ms(each.together_s), ms(each.shifted_s), ms(each.offset_s),
        )  # fmt: skip
    return table


def _what_if(jobs: list[Timed]) -> Table:
    table = Table(title="The same jobs alone under each remedy; a step in ms", title_justify="left")
    table.add_column("job")
    for name in REMEDIES:
        table.add_column("plain" if name == PLAIN else name, justify="right")
    for each in jobs:
        table.add_row(each.place.job.name, *(_step(each, name) for name in REMEDIES))
    return table


def _step(job: Timed, remedy: str) -> str:
    return ms(job.what_if[remedy]) if remedy in job.what_if else NOTHING
