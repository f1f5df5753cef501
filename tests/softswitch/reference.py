"""Any program of ours on BMv2, to compare the embedded switch with."""

import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.bmv2 import LIMIT_S, Bmv2

SETTLE_S = 0.3
"""How long BMv2 may take to send a frame more than it should."""


class Reference(Bmv2):
    """One BMv2 running the program ``name`` of ``programs``."""

    def __init__(self, programs: Path, name: str, directory: Path) -> None:
        program: Any = SimpleNamespace(
            json=programs / f"{name}.json", p4info=programs / f"{name}.p4info.txtpb", lanes=0
        )
        super().__init__(program, directory)

    def exchange(self, port: int, frame: bytes, count: int) -> list[tuple[int, bytes]]:
        """Feed one frame; returns the next ``count`` frames that leave."""
        self.send([(port, frame)])
        return [self.receive(LIMIT_S) for _ in range(count)]

    def left_over(self) -> list[tuple[int, bytes]]:
        """Unexpected frames, once no more arrive."""
        out = []
        while True:
            try:
                out.append(self.receive(SETTLE_S))
            except queue.Empty:
                return out
