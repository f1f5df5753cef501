"""Declared error lines: their texts and codes."""

import copy
import json
import logging
import pickle

import pytest

from wiresum.common import logs
from wiresum.common.errors import Line, LineText, WiresumError, code_of
from wiresum.controller.errors import ControllerError

LINE = Line("X001", "port {port!r} has {rate:.1f} Mbit/s")
TEXT = "port 'a' has 2.5 Mbit/s"


def test_a_line_with_its_values_is_its_text() -> None:
    line = LINE.of(port="a", rate=2.5)
    assert line == TEXT
    assert isinstance(line, str)
    assert line.code == "X001"


def test_a_line_needs_all_its_values() -> None:
    with pytest.raises(KeyError):
        LINE.of(port="a")


def test_an_error_has_the_code_of_its_line() -> None:
    assert WiresumError(LINE.of(port="a", rate=2.5)).line_code == "X001"
    assert ControllerError("NOT_FOUND", LINE.of(port="a", rate=2.5)).line_code == "X001"
    assert WiresumError("not declared").line_code is None
    assert WiresumError().line_code is None


def test_an_error_that_repeats_anothers_line_has_its_code() -> None:
    first = WiresumError(LINE.of(port="a", rate=2.5))
    assert WiresumError(str(first)).line_code == "X001"
    assert WiresumError(f"while this: {first}").line_code is None


def test_a_copy_of_a_line_keeps_its_code() -> None:
    error = ControllerError("NOT_FOUND", LINE.of(port="a", rate=2.5))
    for same in (copy.deepcopy(error.args), pickle.loads(pickle.dumps(error.args))):
        assert same == (TEXT,)
        assert code_of(same[0]) == "X001"


def test_a_line_is_written_to_json_as_a_text() -> None:
    assert json.loads(json.dumps({"reason": LINE.of(port="a", rate=2.5)})) == {"reason": TEXT}


@pytest.mark.parametrize(
    "value", [LINE.of(port="a", rate=2.5), WiresumError(LineText("x", "X001"))]
)
def test_json_logs_have_the_code_of_a_line_in_the_message(value: object) -> None:
    record = logging.makeLogRecord({"msg": "switch %s is down: %s", "args": ("s1", value)})
    assert json.loads(logs.JsonFormatter().format(record))["line_code"] == "X001"
    record = logging.makeLogRecord({"msg": "switch %s is down: %s", "args": ("s1", "why")})
    assert "line_code" not in json.loads(logs.JsonFormatter().format(record))
