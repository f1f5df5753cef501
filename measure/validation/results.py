"""The table of predictions beside measurements, as Markdown: pure, from the JSON."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

KIND = "advise validation"
BEGIN = "<!-- made by `wiresum bench advise`: do not edit from here -->"


def errors(entry: Mapping[str, Any]) -> dict[str, float]:
    """By remedy: the predicted step by the measured one, less 1."""
    return {
        name: entry["predicted"][name] / seconds - 1 for name, seconds in entry["measured"].items()
    }


def inside(entry: Mapping[str, Any]) -> int:
    """How many measured steps lie in their predicted intervals."""
    return sum(
        entry["low"][name] <= seconds <= entry["high"][name]
        for name, seconds in entry["measured"].items()
    )


def page(content: Mapping[str, Any]) -> str:
    """The table and its summary."""
    entries = content["cases"]
    machine = content["machine"]
    names = list(dict.fromkeys(name for entry in entries for name in entry["measured"]))
    head = ["model", "links", "n", "exposed", *names, "predicted verdict", "right?"]
    rows = [head, ["---"] * len(head)]
    for entry in entries:
        off = errors(entry)
        links = f"{entry['rate_mbit']:g} Mbit/s" + (", one half" if entry["unequal"] else "")
        rows.append(
            [
                entry["model"], links, str(entry["workers"]),
                f"{100 * entry['exposed_share']:.0f} %",
                *(_cell(entry, name, off) for name in names),
                _verdict(entry["verdict"]),
                "yes" if _same(entry) else f"no: {_verdict(entry['right'])}",
            ]
        )  # fmt: skip
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return (
        f"Measured on {machine['cores']} cores of {machine['model'] or 'an unnamed processor'}, "
        f"Linux {machine['kernel']}.\n\n{table}\n{summary(entries)}\n"
    )


def _cell(entry: Mapping[str, Any], name: str, off: Mapping[str, float]) -> str:
    if name not in off:
        return ""
    text = f"{1e3 * entry['measured'][name]:.0f} ({100 * off[name]:+.0f} %)"
    return f"**{text}**" if abs(off[name]) > 0.1 else text


def _verdict(answer: Mapping[str, str]) -> str:
    return answer["verdict"] + (f", {answer['choice']}" if answer["choice"] else "")


def _same(entry: Mapping[str, Any]) -> bool:
    return bool(entry["verdict"]["verdict"] == entry["right"]["verdict"])


def summary(entries: Sequence[Mapping[str, Any]]) -> str:
    """How far off, in one sentence each."""
    off = [abs(each) for entry in entries for each in errors(entry).values()]
    if not off:
        return "Nothing was measured."
    within = sum(each <= 0.1 for each in off)
    count = sum(inside(entry) for entry in entries)
    right = sum(_same(entry) for entry in entries)
    alike = sum(entry["verdict"] == entry["right"] for entry in entries)
    stops = sum(_same(entry) and entry["right"]["verdict"] == "stop here" for entry in entries)
    return (
        f"{len(off)} steps: the prediction is off by {100 * statistics.median(off):.1f} % in the "
        f"median and {100 * max(off):.0f} % at most; {within} are within 10 %, and {count} lie in "
        f"their intervals. The verdict is right in {right} of {len(entries)} cases ({stops} of "
        f"them *stop here*), with the same remedy in {alike}."
    )
