"""The command ``wiresum bench advise``."""

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.testbed.errors import RackError

if TYPE_CHECKING:
    from wiresum.measure.validation.cases import Case, Options


def validate(
    rate: Annotated[str, Option(metavar="RATE,…", help="Rates of the links.")] = (
        "100mbit,300mbit,1gbit"
    ),
    workers: Annotated[str, Option(metavar="N,…", help="Numbers of workers.")] = "2,4,8",
    models: Annotated[str, Option(metavar="NAME,…", help="wide, even, deep.")] = "wide,even,deep",
    remedies: Annotated[
        str, Option(metavar="NAME,…", help="What is measured beside the plain run.")
    ] = (
        "fp16,powersgd,top-k,local-steps,sparse-loco,"
        "ranks-32,ranks-16,ranks-8,switch-32,switch-16,switch-8"
    ),
    steps: Annotated[int, Option(min=2, max=100, help="Steps of each training.")] = 6,
    equal: Annotated[bool, Option("--equal", help="No case with unequal links.")] = False,
    json_file: Annotated[
        Path | None,
        Option("--json", metavar="FILE", help="Write the numbers as JSON, after each case."),
    ] = None,
    append: Annotated[
        bool, Option("--append", help="Measure only what the JSON file lacks.")
    ] = False,
    table_only: Annotated[
        bool, Option("--table-only", help="Measure nothing: the table of what the JSON file has.")
    ] = False,
    markdown: Annotated[
        Path | None,
        Option(metavar="FILE", help="A page: the table is put between two marks in it."),
    ] = None,
    name: Annotated[str, Option(help="Name of the rack.")] = "advise",
) -> None:
    """Predict steps with `advise`, then measure them on a rack: how far off it is (needs root)."""
    from wiresum.measure.bench.cases import parse_limits, parse_workers
    from wiresum.measure.bench.record import machine
    from wiresum.measure.page import put
    from wiresum.measure.validation import cases, results

    options = cases.Options(
        rates=parse_limits(rate),
        workers=parse_workers(workers),
        models=cases.parse_models(models),
        remedies=cases.parse_remedies(remedies),
        steps=steps,
        unequal=not equal,
        name=name,
    )
    if table_only and json_file is None:
        raise RackError(lines.TABLE_OF_WHAT.of())
    if json_file is not None and (table_only or (append and json_file.exists())):
        content = _kept(json_file)
    else:
        content = {"kind": results.KIND, "version": 1, "machine": machine(), "cases": []}
    todo = [case for case in options.case_list() if _lacks(_entry(content["cases"], case), options)]
    if todo and not table_only:
        _measure(options, todo, content, json_file)
    made = results.page(content)
    if markdown is not None:
        put(markdown, made, "Planning", results.BEGIN)
    print(made)


def _kept(path: Path) -> dict[str, Any]:
    """What an earlier run has measured, with the machine on which it did."""
    from wiresum.measure.reading import read_at_most
    from wiresum.measure.validation import results

    try:
        content: dict[str, Any] = json.loads(read_at_most(path))
        results.page(content)  # fails where something is missing
    except OSError as error:
        raise RackError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RackError(lines.NOT_A_RESULT.of(path=path, why=error)) from None
    return content


def _entry(entries: "list[dict[str, Any]]", case: "Case") -> "dict[str, Any] | None":
    """What was measured of a case earlier."""
    key = (case.model.name, case.rate_mbit, case.workers, case.unequal)
    names = ("model", "rate_mbit", "workers", "unequal")
    return next((each for each in entries if tuple(each[name] for name in names) == key), None)


def _lacks(entry: "dict[str, Any] | None", options: "Options") -> bool:
    """Whether something is to be measured still."""
    return entry is None or not set(options.remedies) <= set(entry["measured"])


def _measure(
    options: "Options", todo: "list[Case]", content: dict[str, Any], json_file: Path | None
) -> None:
    if os.geteuid() != 0:
        raise RackError(lines.NEEDS_ROOT.of())
    if importlib.util.find_spec("torch") is None:
        raise RackError(lines.NEEDS_TORCH.of())

    from rich.console import Console

    from wiresum.measure.bench.record import write
    from wiresum.measure.validation.run import Validation
    from wiresum.testbed.interrupts import Interrupts

    console = Console(stderr=True)
    with Interrupts(), Validation(options, console.print) as validation:
        for case in todo:
            kept = _entry(content["cases"], case)
            made = validation.case(case, kept)
            if kept is None:
                content["cases"].append(made)
            else:
                kept.update(made)
            if json_file is not None:
                write(json_file, content)
