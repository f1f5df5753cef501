"""Trainings with the real frameworks, over the embedded switch and over gloo.

`make test-frameworks` makes an environment for them. A test whose package is missing is skipped.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.torchruns import clean_environment, finish, fresh_session
from wiresum.host_agent import Session

LIMIT_S = 600.0
WORKERS = 2
TRAININGS = Path(__file__).with_name("trainings")
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}",
]  # fmt: skip
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DS_ACCELERATOR": "cpu",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(3 * LIMIT_S)]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with fresh_session(timeout_s=LIMIT_S) as session:
        yield session


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: `make test-frameworks`")


@pytest.mark.parametrize(
    ("name", "script", "launcher"),
    [
        ("transformers", "trainer.py", TORCHRUN),
        ("accelerate", "with_accelerate.py", TORCHRUN),
        ("lightning", "with_lightning.py", TORCHRUN),
        ("deepspeed", "with_deepspeed.py", TORCHRUN),
        ("torchft", "with_torchft.py", TORCHRUN),
        ("ray", "with_ray.py", [sys.executable]),
    ],
)
def test_a_framework_trains_over_the_switch_as_over_gloo(
    request: Any, tmp_path: Path, check_row: Any, name: str, script: str, launcher: list[str]
) -> None:
    needs(name)
    session = request.getfixturevalue("session")
    outcomes = {}
    for backend in ("wiresum", "gloo"):
        out = tmp_path / backend
        env = session.variables() if backend == "wiresum" else clean_environment()
        command = [*launcher, str(TRAININGS / script), backend, str(out)]
        ended = finish(command, env | QUIET, LIMIT_S)
        assert ended.status == 0, ended.output
        outcomes[backend] = json.loads(out.read_text())
    ours, gloo = outcomes["wiresum"], outcomes["gloo"]
    assert ours["switch"] >= 4, ours["fallback"]  # at least one of each step
    assert ours["loss"] == pytest.approx(gloo["loss"], rel=1e-4)
    check_row(name, ours, gloo["loss"])


def test_an_unchanged_script_gets_the_switch_with_as_default(request: Any, tmp_path: Path) -> None:
    """accelerate asks for gloo on CPUs, whatever it is told."""
    needs("accelerate")
    session = request.getfixturevalue("session")
    out = tmp_path / "out"
    env = session.variables(as_default=True) | QUIET
    command = [*TORCHRUN, str(TRAININGS / "with_accelerate.py"), "gloo", str(out)]
    ended = finish(command, env, LIMIT_S)
    assert ended.status == 0, ended.output
    assert json.loads(out.read_text())["switch"] >= 4
