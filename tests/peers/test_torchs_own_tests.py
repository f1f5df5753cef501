"""torch's own tests of ``torch.distributed``, over wiresum and over gloo."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch_distributed import KNOWN

from support.torchruns import clean_environment, finish

SCRIPT = Path(__file__).with_name("torch_distributed.py")
PAGE = Path(__file__).parents[2] / "docs" / "collectives.md"
A_FEW = ["test_all_gather_object_default_pg", "test_DistributedDataParallelCPU", "test_get_future"]
ALL_S = 7000.0


def compared(only: list[str], ranks: int, out: Path, limit_s: float) -> dict[str, Any]:
    if importlib.util.find_spec("expecttest") is None:
        pytest.skip("expecttest is not installed, which torch's tests need")
    ended = finish(
        [sys.executable, str(SCRIPT), "--json", str(out), "--only", *only],
        clean_environment() | {"WORLD_SIZE": str(ranks)},
        limit_s,
    )
    assert ended.status == 0, ended.output
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.mark.timeout(400)
def test_a_few_of_torchs_own_tests_pass_over_the_switch(tmp_path: Path) -> None:
    result = compared(A_FEW, 4, tmp_path / "few.json", 360.0)

    assert result["passed over wiresum"] == result["passed over gloo"] == len(A_FEW)
    for name in A_FEW:
        assert result["wiresum"][name]["carried"]["switch"] > 0, name


@pytest.mark.slow
@pytest.mark.timeout(ALL_S + 60)
def test_no_test_of_torchs_that_passes_over_gloo_fails_over_wiresum(tmp_path: Path) -> None:
    result = compared([], 8, tmp_path / "all.json", ALL_S)

    assert result["passed over gloo"] > 100
    assert result["known"] == sorted(KNOWN)


def test_the_page_names_the_tests_that_cannot_pass() -> None:
    section = PAGE.read_text().partition("## torch's own tests\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.M)) == KNOWN
