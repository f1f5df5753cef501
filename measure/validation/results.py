"""The table of predictions beside measurements, as Markdown: pure, from the JSON."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from wiresum.measure.validation.judge import CLOSE, Judged, judge

KIND = "advise validation"
BEGIN = "<!-- made by `wiresum bench advise`: do not edit from here -->"


def errors(entry: Mapping[str, Any], judged: Judged) -> dict[str, float]:
    """By remedy: the predicted step by the measured one, less 1."""
    return {
        name: judged.predicted[name].step_s / seconds - 1
        for name, seconds in entry["measured"].items()
    }


def inside(entry: Mapping[str, Any], judged: Judged) -> int:
    """How many measured steps lie in their predicted intervals."""
    return sum(
        judged.predicted[name].low_s <= seconds <= judged.predicted[name].high_s
        for name, seconds in entry["measured"].items()
    )


def page(content: Mapping[str, Any]) -> str:
    """The table and its summary."""
    entries = content["cases"]
    machine = content["machine"]
    found = [judge(entry, machine["cores"]) for entry in entries]
    names = list(dict.fromkeys(name for entry in entries for name in entry["measured"]))
    head = ["model", "links", "n", "exposed", *names, "predicted verdict", "right?"]
    rows = [head, ["---"] * len(head)]
    for entry, judged in zip(entries, found, strict=True):
        off = errors(entry, judged)
        links = f"{entry['rate_mbit']:g} Mbit/s" + (", one half" if entry["unequal"] else "")
        rows.append(
            [
                entry["model"], links, str(entry["workers"]),
                f"{100 * judged.exposed_share:.0f} %",
                *(_cell(entry, name, off) for name in names),
                _verdict(judged.verdict),
                _right(judged),
            ]
        )  # fmt: skip
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return (
        f"Measured on {machine['cores']} cores of {machine['model'] or 'an unnamed processor'}, "
        f"Linux {machine['kernel']}.\n\n{table}\n{summary(entries, found)}\n"
    )


def _cell(entry: Mapping[str, Any], name: str, off: Mapping[str, float]) -> str:
    if name not in off:
        return ""
    text = f"{1e3 * entry['measured'][name]:.0f} ({100 * off[name]:+.0f} %)"
    return f"**{text}**" if abs(off[name]) > 0.1 else text


def _verdict(answer: tuple[str, str]) -> str:
    return ", ".join(filter(None, answer))


def _right(judged: Judged) -> str:
    if _same(judged):
        return "yes"
    return f"{'close' if judged.close else 'no'}: {_verdict(judged.right)}"


def _same(judged: Judged) -> bool:
    return judged.verdict[0] == judged.right[0]


def summary(entries: Sequence[Mapping[str, Any]], found: Sequence[Judged]) -> str:
    """How far off, in one sentence each."""
    pairs = list(zip(entries, found, strict=True))
    off = [abs(each) for entry, judged in pairs for each in errors(entry, judged).values()]
    if not off:
        return "Nothing was measured."
    within = sum(each <= 0.1 for each in off)
    count = sum(inside(entry, judged) for entry, judged in pairs)
    right = sum(_same(judged) for judged in found)
    close = sum(judged.close and not _same(judged) for judged in found)
    alike = sum(judged.verdict == judged.right for judged in found)
    stops = sum(_same(judged) and judged.right[0] == "stop here" for judged in found)
    return (
        f"{len(off)} steps: the prediction is off by {100 * statistics.median(off):.1f} % in the "
        f"median and {100 * max(off):.0f} % at most; {within} are within 10 %, and {count} lie in "
        f"their intervals. The verdict is right in {right} of {len(entries)} cases ({stops} of "
        f"them *stop here*), with the same remedy in {alike}; in {close} of the others the best "
        f"software saves within {100 * CLOSE:.0f} point of the threshold."
    )
