"""Spin searches the models of the protocol: the design holds, each mutation's fault is found.

``make model`` makes all searches; here are those that take seconds, and, marked slow, the others.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[2] / "p4" / "model"


def load():
    specification = importlib.util.spec_from_file_location("wiresum_model", MODEL / "check.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


check = load()
SEARCHES = {each.name: each for each in check.SEARCHES}
needs_spin = pytest.mark.skipif(
    check.missing() is not None,
    reason=f"{check.missing()} is not on PATH: the models of the protocol are not searched",
)


def names(searches, quick):
    return [each.name for each in searches if each.quick == quick]


@needs_spin
@pytest.mark.parametrize("name", names(check.DESIGN, quick=True))
def test_the_design_holds_in_every_state(name):
    assert check.search(SEARCHES[name]).violated is None


@needs_spin
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", names(check.DESIGN, quick=False))
def test_the_design_holds_in_every_state_of_a_long_search(name):
    assert check.search(SEARCHES[name]).violated is None


@needs_spin
@pytest.mark.parametrize("name", names(check.MUTATIONS, quick=True))
def test_a_mutations_fault_is_found(name):
    assert check.search(SEARCHES[name]).violated == SEARCHES[name].finds is not None


@needs_spin
@pytest.mark.parametrize("name", names(check.HARMLESS, quick=True))
def test_a_second_line_of_defence_alone_may_be_lost(name):
    assert check.search(SEARCHES[name]).violated is None


@needs_spin
def test_the_trace_of_a_fault_tells_its_events():
    events = check.trace(SEARCHES["no-bitmap-check"])
    arrivals = [event for event in events if "arrives at the switch" in event]
    assert len(arrivals) > len(set(arrivals)), "no contribution comes twice"
    assert events[-1] == f"violated: {check.NO_WRONG_SUM}"


@needs_spin
def test_an_unknown_search_is_refused_in_one_line():
    done = subprocess.run(
        [sys.executable, str(MODEL / "check.py"), "no-such"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "check.py: there is no search 'no-such': see SEARCHES in check.py\n"


def test_without_spin_the_command_says_what_to_install():
    done = subprocess.run(
        [sys.executable, str(MODEL / "check.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/nonexistent"},
    )
    assert done.returncode == 2
    assert done.stderr == "check.py: spin is not on PATH: apt install spin gcc\n"


def test_every_mutation_changes_a_model():
    for each in check.SEARCHES:
        for macro in each.mutation.split():
            sources = (MODEL / each.model).read_text() + (MODEL / "switch.pml").read_text()
            assert re.search(rf"(ifdef|defined\(|ifndef) ?{macro}\b", sources), macro


def test_the_readme_lists_every_search():
    readme = (MODEL / "README.md").read_text()
    assert [each.name for each in check.SEARCHES if f"`{each.name}`" not in readme] == []
