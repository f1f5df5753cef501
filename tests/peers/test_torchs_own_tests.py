"""torch's own tests of ``torch.distributed``, over wiresum and over gloo."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("torch_distributed.py")
A_FEW = ["test_all_gather_object_default_pg", "test_DistributedDataParallelCPU", "test_get_future"]


def compared(only: list[str], ranks: int, out: Path) -> dict[str, Any]:
    if importlib.util.find_spec("expecttest") is None:
        pytest.skip("expecttest is not installed, which torch's tests need")
    subprocess.run(
        [sys.executable, str(SCRIPT), "--json", str(out), *(["--only", *only] if only else [])],
        env={**os.environ, "WORLD_SIZE": str(ranks)},
        capture_output=True,
    )
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.mark.timeout(400)
def test_a_few_of_torchs_own_tests_pass_over_the_switch(tmp_path: Path) -> None:
    result = compared(A_FEW, 4, tmp_path / "few.json")

    assert result["worse"] == []
    assert result["passed over wiresum"] == result["passed over gloo"] == len(A_FEW)
    for name in A_FEW:
        assert result["wiresum"][name]["carried"]["switch"] > 0, name


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_test_of_torchs_that_passes_over_gloo_fails_over_wiresum(tmp_path: Path) -> None:
    result = compared([], 8, tmp_path / "all.json")

    assert result["worse"] == []
    assert result["passed over gloo"] > 100
