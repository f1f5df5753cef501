"""The error lines of the translator. Codes X…; docs/operations.md has the cures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiresum.common.errors import Line
else:
    try:
        from wiresum.common.errors import Line
    except ImportError:  # inside the build, where wiresum is not installed yet
        from common.errors import Line

UNSUPPORTED = Line("X001", "{at}the embedded switch does not support {construct}{reason}")
NOT_TEXT = Line("X002", "not a JSON: byte {offset} is not text in {encoding}")
NOT_JSON = Line("X003", "not a JSON: {why}")
TOO_DEEP = Line("X004", "not a BMv2 JSON: it is nested too deeply")
INVALID_AT = Line("X005", "not a valid BMv2 JSON: {place}: {fault}")
NOT_BMV2_JSON = Line("X006", "not a BMv2 JSON: 'pipelines' or 'header_types' is missing")
NOT_V1MODEL = Line("X007", "not a v1model program: there is no standard_metadata")
