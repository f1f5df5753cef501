"""Logs in both formats, as a process writes them."""

import json
import logging
import math
import subprocess
import sys
from datetime import datetime

import pytest

from wiresum.common import logs


def said(code: str, **env: str) -> list[str]:
    """The lines that a process writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", f"import logging\nfrom wiresum.common import logs\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **env},
        check=True,
    )
    return done.stderr.splitlines()


def test_a_json_line_has_the_fields_of_the_record_and_of_the_process():
    (line,) = said(
        "logs.configure('json', level=logging.INFO)\n"
        "logs.bind(job='j1', rank=3, gone=1); logs.bind(gone=None)\n"
        "logging.getLogger('wiresum.x').warning('two\\nlines %d', 7, extra={'switch': 's1'})"
    )
    found = json.loads(line)
    time = datetime.fromisoformat(found.pop("time"))
    assert time.utcoffset() is not None
    assert found == {
        "level": "warning", "logger": "wiresum.x", "message": "two\nlines 7",
        "job": "j1", "rank": 3, "switch": "s1",
    }  # fmt: skip


def test_an_exception_stays_in_its_line():
    (line,) = said(
        "logs.configure('json', level=logging.INFO)\n"
        "try:\n  1 / 0\nexcept ZeroDivisionError:\n  logging.exception('it failed')"
    )
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_fields_of_any_kind_and_name_make_valid_json():
    record = logging.makeLogRecord(
        {
            "levelname": "INFO",
            "msg": "x",
            "bad": math.nan,
            "thing": {1, 2},
            "level": "high",
            "many": [1],
        }
    )
    found = json.loads(logs.JsonFormatter().format(record))
    assert (found["bad"], found["thing"], found["many"]) == ("nan", "{1, 2}", "[1]")
    assert (found["level"], found["level_"]) == ("info", "high")


def test_text_keeps_its_layout():
    code = "logs.configure('text', level=logging.INFO, text='%(name)s: %(message)s')\n"
    assert said(code + "logging.getLogger('a').info('b')") == ["a: b"]


def test_messages_and_final_errors_have_the_log_format():
    code = (
        "from wiresum.common.errors import WiresumError\n"
        "import sys\n"
        "logs.configure({!r}, level=logging.WARNING)\n"
        "logs.say(logging.getLogger('wiresum'), 'job a', job='a')\n"
        "print(logs.last_words(WiresumError('no room')), file=sys.stderr)"
    )
    assert said(code.format("text")) == ["wiresum: job a", "wiresum: no room"]
    first, last = map(json.loads, said(code.format("json")))
    assert (first["message"], first["job"]) == ("job a", "a")
    assert (last["message"], last["level"], last["exit_code"]) == ("no room", "error", 1)


@pytest.mark.parametrize(
    ("value", "lines"), [("", 0), ("text", 1), ("json", 1)], ids=["unset", "text", "json"]
)
def test_a_library_shows_its_log_only_when_asked(value: str, lines: int):
    found = said(
        "logs.configure_library(); logs.configure_library()\n"
        "logging.getLogger('wiresum').info('wiresum: joined')\n"
        "logging.getLogger('other').info('not ours')",
        WIRESUM_LOG_FORMAT=value,
    )
    assert len(found) == lines
    if value == "json":
        assert json.loads(found[0])["message"] == "joined"


def test_an_unknown_format_is_refused():
    with pytest.raises(logs.LogFormatError, match=r"--log-format 'xml': it must be text or json"):
        logs.log_format("xml", {})
    with pytest.raises(logs.LogFormatError, match="WIRESUM_LOG_FORMAT 'xml'"):
        logs.log_format(None, {"WIRESUM_LOG_FORMAT": "xml"})
    assert logs.log_format(None, {"WIRESUM_LOG_FORMAT": "json"}) == "json"
    assert logs.log_format("text", {"WIRESUM_LOG_FORMAT": "json"}) == "text"
