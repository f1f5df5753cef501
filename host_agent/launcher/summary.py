"""The last line of a run: what its ranks on this host summed over which path, and why.

The workers keep their totals in files of a folder that the launcher names to them; see
:mod:`wiresum.host_agent.agent.tally`.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from wiresum.common.errors import LineText
from wiresum.common.logs import say
from wiresum.common.temporary import PrivateFolder, TemporaryError
from wiresum.host_agent import lines
from wiresum.host_agent.agent.tally import Totals, read_all
from wiresum.host_agent.environment import TALLY, Carrier

log = logging.getLogger("wiresum")

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@contextlib.contextmanager
def summary(*, as_default: bool, carrier: Carrier) -> Iterator[Mapping[str, str]]:
    """While the command runs; gives variables for its workers, and says the line at the end."""
    try:
        folder = PrivateFolder("tally")
    except TemporaryError as error:
        log.debug("wiresum: there will be no summary: %s", error)
        yield {}
        return
    with folder:
        try:
            yield {TALLY: str(folder.path)}
        finally:
            # The command may have removed the folder, and nobody may read stderr any more.
            with contextlib.suppress(OSError):
                processes = read_all(folder.path)
                tuned = [each.tuned for each in processes if each.tuned]
                if tuned:
                    say(log, tuned[-1])
                line, used = last_line(processes, as_default, carrier)
                say(log, line, level=logging.INFO if used else logging.WARNING)


def last_line(
    processes: Sequence[Totals], as_default: bool, carrier: Carrier
) -> tuple[LineText, bool]:
    """The line for these processes, and whether what was to sum did.

    ``processes`` come in the order of their ranks. The numbers are those of one rank: where the
    ranks differ, the largest of each. What a rank did before a restart counts, too.
    """
    if not processes:
        taken = "ask for it, for gloo or for none in init_process_group"
        cure = taken if as_default else "name it in init_process_group, or give --as-default"
        return lines.NO_GROUP.of(cure=cure), False
    if max(each.size for each in processes) == 1:
        return lines.ONE_RANK.of(), False
    ranks = _of_each_rank(processes)
    most = _most(ranks)
    here = "1 rank here" if len(ranks) == 1 else f"each of {len(ranks)} ranks here"
    by_ranks = _amount(most.ranks, most.ranks_bytes, most.ranks_why)
    fallback = _amount(most.fallback, most.fallback_bytes, most.fallback_why)
    if most.switch or (carrier is Carrier.RANKS and most.ranks):
        switch = _amount(most.switch, most.switch_bytes)
        line = lines.SUMMED.of(ranks=here, switch=switch, by_ranks=by_ranks, fallback=fallback)
        return line, True
    return lines.SWITCH_NOT_USED.of(ranks=here, by_ranks=by_ranks, fallback=fallback), False


def _of_each_rank(processes: Sequence[Totals]) -> list[Totals]:
    """What all processes that have been one rank did together, for each rank."""
    ranks: dict[int, Totals] = {}
    for each in processes:
        sofar = ranks.get(each.rank)
        ranks[each.rank] = each if sofar is None else _together(sofar, each)
    return list(ranks.values())


def _together(one: Totals, other: Totals) -> Totals:
    return one._replace(
        switch=one.switch + other.switch,
        switch_bytes=one.switch_bytes + other.switch_bytes,
        ranks=one.ranks + other.ranks,
        ranks_bytes=one.ranks_bytes + other.ranks_bytes,
        ranks_why=one.ranks_why or other.ranks_why,
        fallback=one.fallback + other.fallback,
        fallback_bytes=one.fallback_bytes + other.fallback_bytes,
        fallback_why=one.fallback_why or other.fallback_why,
    )


def _most(ranks: Sequence[Totals]) -> Totals:
    """The largest of each number; the reasons of the first rank that has one."""
    return Totals(
        switch=max(each.switch for each in ranks),
        switch_bytes=max(each.switch_bytes for each in ranks),
        ranks=max(each.ranks for each in ranks),
        ranks_bytes=max(each.ranks_bytes for each in ranks),
        ranks_why=next((each.ranks_why for each in ranks if each.ranks_why), ""),
        fallback=max(each.fallback for each in ranks),
        fallback_bytes=max(each.fallback_bytes for each in ranks),
        fallback_why=next((each.fallback_why for each in ranks if each.fallback_why), ""),
    )


def _amount(collectives: int, size: int, why: str = "") -> str:
    """``12 collectives (3.4 MB; why)``, or ``0``."""
    if not collectives:
        return "0"
    noun = "collective" if collectives == 1 else "collectives"
    return f"{collectives} {noun} ({_size(size)}{f'; {why}' if why else ''})"


def _size(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    size, unit = float(count), 0
    while size >= 999.5 and unit + 1 < len(_UNITS):
        size, unit = size / 1000, unit + 1
    return f"{count} bytes" if unit == 0 else f"{size:.3g} {_UNITS[unit]}"
