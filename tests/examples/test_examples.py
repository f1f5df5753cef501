"""Each script of examples/ trains, and sends as many bytes as its README says."""

import json
import re
from pathlib import Path

import pytest

from support.torchruns import clean_environment, spawn

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKERS = 2
TOP_K = 144 + 256 * (5 + 34 + 2) + 4 * 178 + 4 * (1 + 18 + 135 + 5 + 4)
"""Bytes of a step: chosen blocks of the four weights, the biases, a word per block."""
BESIDE_DDP = {
    "local_sgd": (8 + (60 - 8) / 4) / 60 + 1 / 60,
    "diloco": 1 / 10,
    "top_k": TOP_K / (4 * 40_690),
    "delayed": 1.0,
}
"""Share of DDP's bytes; local SGD synchronizes once more in the end."""


def trained(name: str, folder: Path) -> tuple[float, int]:
    """The loss, and the bytes of the tensors that a rank has given to all-reduces."""
    env = clean_environment() | {
        "WIRESUM_CARRIER": "ranks",
        "WIRESUM_DUMP": str(folder / f"{name}.{{rank}}"),
    }
    ended = spawn(EXAMPLES / f"{name}.py", workers=WORKERS, env=env)
    assert ended.status == 0, ended.output
    (loss,) = re.findall(r"^loss (\S+)$", ended.output, re.M)
    return float(loss), int(json.loads((folder / f"{name}.0").read_text())["ranks_bytes"])


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, int]:
    return trained("ddp", tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("name", BESIDE_DDP)
def test_they_train_with_as_many_bytes_as_the_readme_says(
    name: str, ddp: tuple[float, int], tmp_path: Path
) -> None:
    loss, size = trained(name, tmp_path)
    assert max(loss, ddp[0]) < 1.0  # of 2.3 for a guess
    assert size / ddp[1] == pytest.approx(BESIDE_DDP[name], rel=0.05)


def test_fsdp2_reduces_as_many_bytes_as_ddp(ddp: tuple[float, int], tmp_path: Path) -> None:
    loss, size = trained("fsdp2", tmp_path)
    assert max(loss, ddp[0]) < 1.0
    assert size / ddp[1] == pytest.approx(1.0, rel=0.05)


def test_every_example_is_in_the_readme_and_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"shapes"}
    assert scripts == {"ddp", "fsdp2", *BESIDE_DDP}
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}.py`" in readme for name in scripts)
