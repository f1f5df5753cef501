"""Reads the reports of ``wiresum measure`` and ``wiresum trial``, and checks every figure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.advise.errors import AdviceError
from wiresum.measure.model.job import Job, Message
from wiresum.measure.model.links import Link
from wiresum.measure.reading import read_at_most, shown
from wiresum.measure.remedies import PLAIN, REMEDIES
from wiresum.measure.traces.load import KIND as REPORT_KIND

TRIAL_KIND = "wiresum trial"
VERSION = 1
MOST, LEAST = 1e15, 1e-9
"""Limits of a report's figures: bytes, milliseconds, Gbit/s. The lower one is for divisors."""


@dataclass(frozen=True)
class Report:
    """What a report says of a job, its links and itself.

    ``slowest``: the slowest pair of ranks and its link; None where the links were not probed.
    """

    job: Job
    threshold: float
    slowest: tuple[int, int, Link] | None
    command: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """One remedy of a trial. Milliseconds per step.

    ``accepted``: whether it met the target; ``missed``: whether its loss was the reason why not.
    """

    name: str
    low_ms: float
    median_ms: float
    high_ms: float
    accepted: bool
    why: str
    missed: bool = False


class _Fields:
    """One object of a document; every access checks, and names what is wrong."""

    def __init__(self, value: Any, where: str, path: Path) -> None:
        self._where = where
        self._path = path
        if not isinstance(value, dict):
            raise self.wrong("is no object")
        self._value = value

    def wrong(self, why: str) -> AdviceError:
        """The error that says so."""
        return AdviceError(
            lines.DOCUMENT_WRONG.of(path=self._path, why=f"{self._where or 'it'} {why}")
        )

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def number(
        self, key: str, default: float | None = None, most: float = MOST, least: float = 0.0
    ) -> float:
        """A finite number from ``least`` to ``most``."""
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f"has no number {key!r}")
        if not least <= value <= most:
            raise self.wrong(f"has {key} = {shown(value)}: it must be {least:g} to {most:g}")
        return float(value)

    def text(self, key: str, default: str = "") -> str:
        """A text."""
        value = self._value.get(key)
        return value if isinstance(value, str) else default

    def list(self, key: str) -> "list[_Fields]":
        """A list of objects."""
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self.wrong(f"has no list {key!r}")
        return [
            _Fields(each, f"{self._name(key)}[{at}]", self._path) for at, each in enumerate(value)
        ]

    def object(self, key: str) -> "_Fields | None":
        """An object, if it is there."""
        value = self._value.get(key)
        return None if value is None else _Fields(value, self._name(key), self._path)

    def raw(self, key: str) -> Any:
        """Whatever is there."""
        return self._value.get(key)


def _document(path: Path, kind: str, made_by: str) -> _Fields:
    try:
        raw = read_at_most(path)
    except OSError as error:
        raise AdviceError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except ValueError as error:
        raise AdviceError(lines.DOCUMENT_WRONG.of(path=path, why=error)) from None
    try:
        content = json.loads(raw.decode())
    except RecursionError:
        raise AdviceError(lines.DOCUMENT_WRONG.of(path=path, why="it nests too deeply")) from None
    except ValueError:
        raise AdviceError(lines.OTHER_DOCUMENT.of(path=path, made_by=made_by)) from None
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise AdviceError(lines.OTHER_DOCUMENT.of(path=path, made_by=made_by))
    if content.get("version") != VERSION:
        raise AdviceError(
            lines.OTHER_VERSION.of(path=path, found=shown(content.get("version")), known=VERSION)
        )
    return _Fields(content, "", path)


# ---- the report


def read_report(path: Path) -> Report:
    """Read a report of ``wiresum measure --json``. Raises :class:`AdviceError` in one line."""
    return _report(_document(path, REPORT_KIND, "`wiresum measure --json`"), path)


def report_of(content: Mapping[str, Any]) -> Report:
    """A report that has been parsed already. Raises :class:`AdviceError` in one line."""
    path = Path("the report")
    return _report(_Fields(dict(content), "", path), path)


def _report(document: _Fields, path: Path) -> Report:
    ranks = document.list("ranks")
    if len(ranks) < 2:
        raise AdviceError(lines.ONE_RANK_ONLY.of(path=path))
    typical = document.object("median")
    if typical is None:
        raise document.wrong("has no object 'median'")
    step = typical.number("total_time", least=LEAST)
    comm, exposed = typical.number("total_comm_time"), typical.number("exposed_comm_time")
    if exposed > 1.001 * comm or comm > 1.001 * step:
        raise typical.wrong("has more exposed communication than communication, or than step")
    messages = tuple(_messages(document, len(ranks)))
    if not messages:
        raise AdviceError(lines.NO_MESSAGES.of(path=path))
    totals = [each.number("total_time") for each in ranks]
    about = document.object("job")
    world = _world(about, messages, len(ranks))
    # What the profiler adds is in the recorded steps, and is none of communication.
    added = document.number("overhead_share", default=0.0, least=-1.0, most=10.0)
    if added > 0:
        step = max(step / (1 + added), exposed, comm)
    job = Job(
        workers=world,
        step_s=step / 1e3,
        comm_s=comm / 1e3,
        exposed_s=min(exposed, comm) / 1e3,
        waiting_s=comm / 1e3 * _late(ranks) * document.number("waiting_share", 0.0, 1.0),
        messages=messages,
        device="cpu" if about is None else about.text("device", "cpu"),
        lowest_s=min(*totals, step) / 1e3,
        highest_s=max(*totals, step) / 1e3,
        ranks_per_core=None if about is None else _ranks_per_core(about, world),
    )
    command = "" if about is None else _command(about.raw("command"))
    raw_notes = document.raw("notes")
    notes = tuple(map(str, raw_notes)) if isinstance(raw_notes, list) else ()
    threshold = document.number("threshold", default=0.05, most=1.0)
    return Report(job, threshold, _slowest(document), command, notes)


def _late(ranks: list[_Fields]) -> float:
    """How much of the waiting is for late ranks: 1 if one rank is always last, 0 if each in turn.

    Ranks that are last in turn wait for each other as part of the communication, which becomes
    shorter with it. 1 where the report does not say who is last.
    """
    shares = [each.number("late_share", 0.0, 1.0) for each in ranks]
    if not any(shares):
        return 1.0
    even = 1 / len(ranks)
    return max(0.0, max(shares) - even) / (1 - even)


def _ranks_per_core(about: _Fields, world: int) -> float | None:
    """Of a host; None where the report does not say what hosts have."""
    hosts = about.raw("hosts")
    if about.raw("cores") is None or not isinstance(hosts, list) or not hosts:
        return None
    return world / len(hosts) / about.number("cores", least=1, most=1e6)


def _command(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else ""


def _world(about: _Fields | None, messages: tuple[Message, ...], ranks: int) -> int:
    if about is not None and about.raw("world_size") is not None:
        return max(ranks, int(about.number("world_size", most=1e6)))
    return max(ranks, *(each.ranks for each in messages))


def _messages(document: _Fields, ranks: int) -> list[Message]:
    found = []
    for row in document.list("collectives"):
        if row.raw("size") is None:
            continue
        dtype = row.raw("dtype")
        found.append(
            Message(
                kind=row.text("kind"),
                called=row.text("called") or row.text("kind"),
                carrier=row.text("carrier"),
                dtype=dtype if isinstance(dtype, str) else None,
                size=int(row.number("size")),
                ranks=int(row.number("ranks", default=ranks, least=1, most=1e6)),
                per_step=row.number("per_step", most=1e9),
            )
        )
    return found


def _slowest(document: _Fields) -> tuple[int, int, Link] | None:
    """The pair of ranks whose link has the lowest bandwidth."""
    links = document.object("links")
    pairs = links.list("pairs") if links is not None else []
    found: tuple[int, int, Link] | None = None
    for each in pairs:
        link = Link.of(each.number("alpha_us"), each.number("beta_gbit", least=LEAST))
        if found is None or link.beta < found[2].beta:
            found = (int(each.number("from")), int(each.number("to")), link)
    return found


# ---- the trial

_MEETS, _MISSES = "meets", "misses"
"""Outcomes of remedies in a trial's report; there are others, of runs that did not end."""


def read_trial(path: Path) -> dict[str, Tried]:
    """Read a report of ``wiresum trial --json``: what it measured, by the remedies' names.

    Raises :class:`AdviceError` in one line.
    """
    document = _document(path, TRIAL_KIND, "`wiresum trial --json`")
    found: dict[str, Tried] = {}
    for each in document.list("remedies"):
        name = each.text("name")
        if name not in REMEDIES or each.raw("step_ms") is None:
            continue
        times = each.object("step_ms")
        assert times is not None
        middle = times.number("median", least=LEAST)
        outcome = each.text("outcome")
        found[name] = Tried(
            name,
            times.number("low", middle),
            middle,
            times.number("high", middle),
            outcome == _MEETS or name == PLAIN,
            each.text("why") or outcome,
            missed=outcome == _MISSES,
        )
    if PLAIN not in found:
        raise AdviceError(lines.TRIAL_WITHOUT_PLAIN.of(path=path, plain=PLAIN))
    return found


def measured_steps(job: Job, tried: Mapping[str, Tried]) -> dict[str, tuple[float, float, float]]:
    """Seconds of a step by remedy, from a trial: its ratios to plain gloo, times the job's step.

    The trial runs on a small scale; the ratio is what carries over.
    """
    plain = tried[PLAIN].median_ms
    return {
        name: (
            job.step_s * each.low_ms / plain,
            job.step_s * each.median_ms / plain,
            job.step_s * each.high_ms / plain,
        )
        for name, each in tried.items()
    }
