"""docs/collectives.md says what the code does."""

import re
from pathlib import Path

from wiresum.host_agent.backend.request import FORMS, label_of
from wiresum.host_agent.backend.routing import CARRIED, MOST_WORDS, NEVER, REFUSED

PAGE = (Path(__file__).parents[3] / "docs" / "collectives.md").read_text()


def table(head: str) -> dict[str, str]:
    rows = PAGE.partition(f"\n| {head} |\n")[2].splitlines()[1:]
    cells = [re.findall(r"\| (.*?) (?=\|)", row) for row in rows[: rows.index("")]]
    return {name.strip("`"): text for name, text in cells}


def test_the_page_has_the_tables_of_the_code() -> None:
    assert table("collective | to the switch") == CARRIED
    assert table("collective | why") == NEVER
    assert table("what | why") == REFUSED
    assert any(f"{MOST_WORDS:,}" in what for what in REFUSED)


def test_every_collective_that_is_carried_is_in_the_table() -> None:
    assert {label_of(method) for method in FORMS} == set(CARRIED)
