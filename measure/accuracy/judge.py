"""What the losses of a run of `wiresum bench accuracy` say. Pure functions of its JSON."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from wiresum.measure.accuracy.methods import FLOAT32, METHODS

KIND, VERSION = "wiresum accuracy", 3

CONTROL_EXCESS = 0.05
"""By so much, relatively, a control's loss must lie above float32's; else nothing can be told."""

RATES = (100, 1000)
"""Mbit/s, for which the time on the wire is computed."""


def checked(content: Any) -> dict[str, Any]:
    """What a file holds, if it is one of `bench accuracy`. Raises ``ValueError``, which says why.

    A NaN is a loss: that of a training that has diverged.
    """
    if not isinstance(content, dict) or (content.get("kind"), content.get("version")) != (
        KIND,
        VERSION,
    ):
        raise ValueError(f"it is not of kind {KIND!r}, version {VERSION}")
    for key, kind in (("task", str), ("workers", int), ("steps", int)):
        if type(content.get(key)) is not kind:
            raise ValueError(f"{key!r} is missing, or no {kind.__name__}")
    if not isinstance(content.get("seeds"), list):
        raise ValueError("'seeds' is missing, or no list")
    content.setdefault("encoding", {})
    for key in ("losses", "bytes", "encoding"):
        if not isinstance(content.get(key), dict):
            raise ValueError(f"{key!r} is missing, or no table")
        for name, found in content[key].items():
            if name not in METHODS:
                raise ValueError(f"{key!r} has {name!r}, which is no method")
            if key == "losses":
                right = isinstance(found, list) and all(map(_is_number, found))
            elif key == "bytes":
                right = _is_number(found) and 0 < found < math.inf
            else:
                right = found is None or (_is_number(found) and 0 < found < math.inf)
            if not right:
                raise ValueError(f"{key!r} of {name!r} is {str(found)[:40]}")
    for name, found in content["losses"].items():
        if found and name not in content["bytes"]:
            raise ValueError(f"'bytes' has nothing of {name!r}")
    return content


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def excesses(losses: Sequence[float], plain: Sequence[float]) -> list[float]:
    """How far each seed's loss lies above float32's of the same seed, relative to that."""
    return [loss / base - 1 for loss, base in zip(losses, plain, strict=True)]


def doubt(found: Sequence[float]) -> float:
    """The standard error of the mean of excesses; NaN of a single one."""
    return stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan


def noise(plain: Sequence[float]) -> float:
    """Half of the range of float32's own losses over the seeds, relative to their mean."""
    return (max(plain) - min(plain)) / 2 / fmean(plain)


def verdict(name: str, losses: Sequence[float], plain: Sequence[float]) -> str:
    """``holds``, ``exceeds`` its limit; of a control ``fails, as it must``; empty: no limit."""
    method, excess = METHODS[name], fmean(excesses(losses, plain))
    if method.control:
        return "does not fail" if excess <= CONTROL_EXCESS else "fails, as it must"
    if method.limit is None:
        return ""
    return "holds" if excess <= method.limit else "exceeds"


def discriminates(content: Mapping[str, Any]) -> bool:
    """Whether there is a control, and all fail."""
    losses = content["losses"]
    found = [verdict(n, losses[n], losses[FLOAT32]) for n in losses if METHODS[n].control]
    return bool(found) and all(each == "fails, as it must" for each in found)


def only(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The same of these methods, and without those whose trainings are not complete."""
    count = len(content["seeds"])
    losses = {
        name: content["losses"][name]
        for name in names
        if len(content["losses"].get(name, ())) == count
    }
    return {**content, "losses": losses}


def encoding_ms(content: Mapping[str, Any], name: str) -> float:
    """Milliseconds of one core per step for encoding and decoding the gradients of this model."""
    rate = content["encoding"].get(name)
    if not rate:
        return 0.0
    seconds: float = content["bytes"][FLOAT32] / rate
    return 1e3 * seconds / METHODS[name].every


def wire_ms(size: float, workers: int, rate_mbit: float) -> float:
    """Milliseconds of a step on the wire of a ring: each byte crosses a link 2(n−1)/n times."""
    return size * 2 * (workers - 1) / workers * 8 / (rate_mbit * 1e3)


def table(content: Mapping[str, Any]) -> list[list[str]]:
    """Heading and rows."""
    losses, sizes, workers = content["losses"], content["bytes"], content["workers"]
    plain = losses[FLOAT32]
    rows = [
        [
            "method", "bytes per step", "fewer by", "loss", "lowest–highest", "above float32",
            "limit", "verdict", "encoding, GB/s",
            *(f"wire and encoding at {rate} Mbit/s, ms" for rate in RATES),
        ]
    ]  # fmt: skip
    for name, own in losses.items():
        limit, encoding = METHODS[name].limit, content["encoding"].get(name)
        over = excesses(own, plain)
        error = doubt(over)
        rows.append(
            [
                f"`{name}`", f"{sizes[name]:,.0f}", f"{sizes[FLOAT32] / sizes[name]:.1f} ×",
                f"{fmean(own):.4f}", f"{min(own):.4f}–{max(own):.4f}",
                f"{100 * fmean(over):+.2f} %"
                + ("" if math.isnan(error) or name == FLOAT32 else f" ± {100 * error:.2f}"),
                "" if limit is None else f"{100 * limit:g} %",
                verdict(name, own, plain),
                f"{encoding / 1e9:.2g}" if encoding else "",
                *(
                    f"{wire_ms(sizes[name], workers, rate) + encoding_ms(content, name):.3g}"
                    for rate in RATES
                ),
            ]
        )  # fmt: skip
    return rows


def conclusion(content: Mapping[str, Any]) -> str:
    """What may be concluded, in two sentences."""
    plain = content["losses"][FLOAT32]
    words = f"float32's own loss varies by ±{100 * noise(plain):.2f} % between the seeds. "
    if discriminates(content):
        return words + f"All controls fail by more than {100 * CONTROL_EXCESS:g} %."
    if not any(METHODS[name].control for name in content["losses"]):
        return words + "No control was run: it is not known whether this run can discriminate."
    return words + "The controls do not fail: this run cannot discriminate between methods."


def markdown(content: Mapping[str, Any]) -> str:
    """The table and the conclusion as a page's part."""
    head, *rows = table(content)
    lines = [head, ["---"] * len(head), *rows]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return (
        f"Task {content['task']}, {content['workers']} workers, {content['steps']} steps, seeds "
        f"{', '.join(map(str, content['seeds']))}.\n\n{text}\n{conclusion(content)}\n"
    )
