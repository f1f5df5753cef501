"""The benchmark's workers: long-lived processes, one for each rank and side, driven over pipes."""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.common.errors import LineText
from wiresum.measure import lines
from wiresum.measure.bench import cpu
from wiresum.measure.bench.links import Star
from wiresum.testbed.errors import RackError

START_S = 120.0
_READ = 65536


class Member:
    """One worker process."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self._log = log
        self._rest = b""
        with log.open("ab") as errors:
            self._process = process.start(
                command,
                supervised=False,
                options=process.ProcessOptions(
                    env={k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                ),
            )

    def tell(self, order: dict[str, Any]) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise RackError(self._obituary()) from None

    def answer(self, deadline: float) -> dict[str, Any]:
        """Its answer to the oldest order that it has not answered yet.

        Raises :class:`RackError` if it says that something went wrong, ends, or is silent.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                raise RackError(lines.NO_ANSWER.of(process=self.name))
            data = os.read(descriptor, _READ)
            if not data:
                raise RackError(self._obituary())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RackError(lines.PROCESS_FAILED.of(process=self.name, why=answer["error"]))
        return answer

    def _obituary(self) -> LineText:
        status = process.exit_status(self._process.wait())
        said = self._log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        part = f"{self.name} of the benchmark"
        return lines.PART_ENDED.of(part=part, status=status, last_words=said[-1])

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        try:
            return cpu.of_process(self._process.pid)
        except OSError:
            raise RackError(self._obituary()) from None

    def end(self) -> None:
        """Stop it."""
        process.end(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # an order may be left in it
                    stream.close()


class Crew:
    """All ranks of one side; use as a context manager."""

    def __init__(self, side: str, star: Star, size: int, data: Path, limit_s: float) -> None:
        self.side = side
        self._limit_s = limit_s
        self._members: list[Member] = []
        folder = star.record.folder
        try:
            for rank in range(size):
                command = [
                    *star.enter(f"w{rank}"),
                    *[*process.module("wiresum.measure.bench.worker"), "--side", side],
                    *["--rank", str(rank), "--data", str(data), "--limit", str(limit_s)],
                    *["--store", str(folder / "store"), "--world", str(size)],
                ]
                name = f"{side} worker {rank}"
                self._members.append(Member(name, command, folder / f"{side}-{rank}.log"))
            for member in self._members:
                member.answer(time.monotonic() + START_S)
        except BaseException:
            self.close()
            raise

    def each(self, orders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give the first ranks an order each; their answers, when all have answered."""
        members = self._members[: len(orders)]
        for member, order in zip(members, orders, strict=True):
            member.tell(order)
        deadline = time.monotonic() + 2 * self._limit_s
        return [member.answer(deadline) for member in members]

    def all(self, count: int, do: str, /, **order: Any) -> list[dict[str, Any]]:
        """Give the first ``count`` ranks the same order."""
        return self.each([{"do": do, **order}] * count)

    def cpu_s(self, workers: int) -> list[float]:
        """CPU seconds of the first ranks."""
        return [member.cpu_s() for member in self._members[:workers]]

    def close(self) -> None:
        """Stop them."""
        while self._members:
            self._members.pop().end()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
