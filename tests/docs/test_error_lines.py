"""Every error line is declared once, with a code of its own, and used as it is declared."""

import re
from pathlib import Path

import catalogues

RELEASED = Path(__file__).with_name("released_codes.txt")


def test_codes_are_unique_and_begin_with_their_catalogues_letter() -> None:
    codes = [line.code for line in catalogues.declared()]
    assert len(set(codes)) == len(codes), sorted(c for c in codes if codes.count(c) > 1)
    letters = catalogues.CATALOGUES | catalogues.NATIVE
    for line in catalogues.declared():
        assert re.fullmatch(letters[line.catalogue] + r"\d{3}", line.code), line


def test_every_line_is_declared_once_in_its_catalogue() -> None:
    texts = [(line.catalogue, line.template) for line in catalogues.declared()]
    assert len(set(texts)) == len(texts), sorted(t for t in texts if texts.count(t) > 1)


def test_every_declared_line_is_used_and_every_used_line_is_declared() -> None:
    declared = {(line.catalogue, line.name) for line in catalogues.declared()}
    used = {(use.catalogue, use.name): use.where for use in catalogues.uses()}
    assert declared - used.keys() == set(), "no code says this (any more)"
    assert {used[missing] for missing in used.keys() - declared} == set(), "not declared"


def test_every_use_gives_the_fields_that_the_line_has() -> None:
    fields = {(line.catalogue, line.name): line.fields for line in catalogues.declared()}
    wrong = [
        f"{use.where}: {use.name} has {sorted(fields[use.catalogue, use.name])}"
        for use in catalogues.uses()
        if use.given is not None and use.given != fields[use.catalogue, use.name]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_error_has_a_text_that_is_not_declared() -> None:
    found = [f"{where}: {text}" for where, text in catalogues.undeclared()]
    assert not found, "declare the line in the package's lines.py:\n" + "\n".join(found)


def test_released_codes_keep_their_meaning() -> None:
    """A released code names the same line for ever, or none: it is never given to another."""
    released = dict(line.split() for line in RELEASED.read_text().splitlines() if line[0] != "#")
    changed = {
        line.code: f"{released[line.code]} is now {line.name}"
        for line in catalogues.declared()
        if released.get(line.code, line.name) != line.name
    }
    assert not changed
