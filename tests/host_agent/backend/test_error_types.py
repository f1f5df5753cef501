"""What ``except`` clauses of existing scripts catch."""

import subprocess
import sys

import torch.distributed as dist

from wiresum.common.errors import WiresumError
from wiresum.controller.errors import ControllerError
from wiresum.host_agent import errors
from wiresum.host_agent.backend import create  # noqa: F401


def test_errors_in_a_process_with_torch_are_those_of_a_backend() -> None:
    kinds = [errors.EngineError, *errors.EngineError.__subclasses__(), ControllerError]
    assert len(kinds) > 5
    for kind in kinds:
        assert issubclass(kind, dist.DistBackendError), kind
        assert issubclass(kind, WiresumError), kind


def test_errors_without_torch_are_runtime_errors() -> None:
    code = (
        "import sys, wiresum.host_agent.errors as e; "
        "assert issubclass(e.CollectiveTimeout, RuntimeError); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
