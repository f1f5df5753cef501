"""Builds traces as torch.profiler writes them. Times are in microseconds."""

import gzip
import json
from pathlib import Path
from typing import Any, Self

EPOCH = 5_022_174_333_129.183
"""Where the clock of a trace is when its first event begins."""


class Trace:
    """The trace of one rank; ``clock``: how far its host's clock is ahead."""

    def __init__(self, rank: int, world: int, clock: float = 0.0, groups: int = 1) -> None:
        self.rank = rank
        self.world = world
        self.clock = clock
        self.events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": 7}]
        self.extra: dict[str, Any] = {
            "distributedInfo": {
                "rank": rank,
                "world_size": world,
                "pg_config": [
                    {"pg_name": str(name), "pg_desc": f"group{name}", "pg_size": world,
                     "ranks": list(range(world))}
                    for name in range(groups)
                ],
            }
        }  # fmt: skip
        self._calls = 0

    def event(
        self, category: str, name: str, start: float, end: float, tid: Any = 1, **args: Any
    ) -> Self:
        self.events.append(
            {"ph": "X", "cat": category, "name": name, "pid": 7, "tid": tid,
             "ts": EPOCH + self.clock + start, "dur": end - start, "args": args}
        )  # fmt: skip
        return self

    def step(self, number: int, start: float, end: float) -> Self:
        return self.event("user_annotation", f"ProfilerStep#{number}", start, end)

    def op(self, start: float, end: float, name: str = "aten::mm", tid: int = 1) -> Self:
        return self.event("cpu_op", name, start, end, tid)

    def gloo(
        self, start: float, end: float, elements: int | None = 1000, kind: str = "all_reduce"
    ) -> Self:
        shapes = {"Input Dims": [[elements]], "Input type": ["float"]} if elements else {}
        return self.event("user_annotation", f"gloo:{kind}", start, end, 99, **shapes)

    def kernel(
        self, start: float, end: float, launch: float, name: str = "gemm", **args: Any
    ) -> Self:
        self._calls += 1
        self.event("cuda_runtime", "cudaLaunchKernel", launch, launch + 1, correlation=self._calls)
        return self.event("kernel", name, start, end, 20, correlation=self._calls, **args)

    def nccl(
        self, start: float, end: float, launch: float, told: str = "kernel", elements: int = 1000
    ) -> Self:
        """An all-reduce of float32; ``told``: where the trace has its size."""
        described = {
            "Collective name": "allreduce", "dtype": "Float", "In msg nelems": elements,
            "Out msg nelems": elements, "Group size": self.world, "Process Group Name": "0",
            "Process Group Ranks": str(list(range(self.world))),
        }  # fmt: skip
        call: dict[str, Any] = {"External id": 7000 + len(self.events)}
        kernel: dict[str, Any] = {}
        if told == "kernel":
            kernel = described
        elif told == "id":
            kernel = call
        if told in ("id", "call"):
            call = call | described
        self.event("cpu_op", "record_param_comms", launch - 2, launch + 3, **call)
        shapes = {"Input Dims": [[elements // 10, 10]], "Input type": ["float"]}
        self.event(
            "user_annotation", "nccl:all_reduce", launch - 1, launch + 2,
            **(shapes if told == "annotation" else {}),
        )  # fmt: skip
        return self.kernel(
            start, end, launch, "ncclDevKernel_AllReduce_Sum_f32_RING_LL()", **kernel
        )

    def document(self) -> dict[str, Any]:
        return {"schemaVersion": 1, **self.extra, "traceEvents": self.events}

    def write(self, path: Path) -> Path:
        text = json.dumps(self.document()).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return path
