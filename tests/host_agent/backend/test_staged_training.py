"""The script that `make test-cuda` runs on a GPU, on a simulated device."""

import sys
from pathlib import Path

import pytest

from support.torchruns import clean_environment, finish

SCRIPT = Path(__file__).parents[2] / "cuda" / "on_device.py"
LIMIT_S = 380.0


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 20)
def test_ddp_and_fsdp2_train_on_a_device_as_over_gloo() -> None:
    env = clean_environment() | {"PYTHONPATH": str(SCRIPT.parents[1])}
    command = [
        str(Path(sys.executable).with_name("wiresum")), "run", "--carrier", "ranks", "--field", "8",
        "--", sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        "2", str(SCRIPT), "simulated", "check",
    ]  # fmt: skip
    ended = finish(command, env, LIMIT_S)
    assert ended.status == 0, ended.output
    assert ended.output.count("bits equal") == 2
