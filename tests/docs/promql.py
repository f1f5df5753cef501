"""Parses the part of PromQL that our dashboard uses; raises ``SyntaxError`` for all other text.

Grammar after prometheus.io/docs/prometheus/latest/querying/basics and …/operators.
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)|(?P<text>\"[^\"]*\")"
    r"|(?P<range>\[(?:\$__rate_interval|\d+[smhd])\])|(?P<op>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))"
)
_BINARY = {"+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "or", "and", "unless"}
_AGGREGATIONS = {"sum", "count", "max", "min", "avg", "topk"}
_OF_RANGES = {"rate", "increase", "irate", "delta"}
_FUNCTIONS = {"time": 0, "vector": 1}


@dataclass
class Used:
    """The references of an expression: metrics with the labels that it selects by, and others."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    ranges: set[str] = field(default_factory=set)
    """Metrics of which a range is taken, by ``rate`` and the like."""
    labels: set[str] = field(default_factory=set)
    """Labels in ``by``, ``on`` and ``group_left``."""


class Parser:
    """Recursive descent; one expression."""

    def __init__(self, text: str) -> None:
        self.used = Used()
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise SyntaxError(f"{text!r}: what is {text[position : position + 20]!r}?")
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind]))
            position = match.end()
        self._at = 0
        self._expression()
        if self._at < len(self._tokens):
            raise SyntaxError(f"{text!r}: {self._peek()!r} after its end")

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if not token or (wanted and token not in wanted):
            raise SyntaxError(f"{self._text!r}: {token!r} instead of {' or '.join(wanted)}")
        self._at += 1
        return token

    def _name(self) -> str:
        if self._kind() != "name":
            raise SyntaxError(f"{self._text!r}: {self._peek()!r} is no name")
        return self._take()

    def _names(self) -> list[str]:
        self._take("(")
        names = [self._name()]
        while self._peek() == ",":
            self._take()
            names.append(self._name())
        self._take(")")
        return names

    def _expression(self) -> None:
        self._operand()
        while self._peek() in _BINARY:
            self._take()
            while self._peek() in ("on", "ignoring", "group_left", "group_right"):
                self._take()
                self.used.labels.update(self._names())
            self._operand()

    def _operand(self) -> None:
        if self._kind() == "number":
            self._take()
        elif self._peek() == "(":
            self._take()
            self._expression()
            self._take(")")
        else:
            self._named(self._name())

    def _named(self, name: str) -> None:
        if name in _AGGREGATIONS:
            if self._peek() in ("by", "without"):
                self._take()
                self.used.labels.update(self._names())
            self._take("(")
            self._expression()
            self._take(")")
        elif name in _OF_RANGES:
            self._take("(")
            metric = self._selector(self._name())
            if self._kind() != "range":
                raise SyntaxError(f"{self._text!r}: {name} needs a range")
            self._take()
            self.used.ranges.add(metric)
            self._take(")")
        elif name in _FUNCTIONS:
            self._take("(")
            for _ in range(_FUNCTIONS[name]):
                self._expression()
            self._take(")")
        else:
            self._selector(name)

    def _selector(self, metric: str) -> str:
        labels = self.used.metrics.setdefault(metric, set())
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                labels.add(self._name())
                self._take("=", "!=", "=~", "!~")
                if self._kind() != "text":
                    raise SyntaxError(f"{self._text!r}: {self._peek()!r} is no string")
                self._take()
                if self._peek() == ",":
                    self._take()
            self._take("}")
        return metric


def parse(text: str) -> Used:
    """The references of ``text``. Raises ``SyntaxError``."""
    return Parser(text).used
