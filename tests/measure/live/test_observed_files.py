"""What ranks have written of themselves, and what strangers have put beside it."""

import json
import os
from pathlib import Path

import pytest

from wiresum.measure.live.observed import KIND, overhead, read_all

TIMES = {"before": [[2.0, 1.0]], "recorded": [[2.0, 1.1]], "after": [[2.0, 1.0]]}
LINK = {"from": 0, "to": 1, "rtt_s": 1e-4, "samples": [[1 << 20, 0.1]], "mss": 1448}
DOCUMENT = {
    "kind": KIND, "host": "a", "rank": 0, "world_size": 2, "local_size": 2, "backend": "gloo",
    "device": "cpu", "links": [LINK], "links_note": "", "step_s": TIMES,
    "steps": {"wanted": 1, "needed": 9, "seen": 9, "recorded": 1},
}  # fmt: skip
NONSENSE = {
    "no object": "[1]",
    "no JSON": "{",
    "too deep": "[" * 100_000,
    "no kind": "{}",
    "a rank without end": json.dumps(DOCUMENT | {"rank": float("inf")}),
    "a rank below zero": json.dumps(DOCUMENT | {"rank": -1}),
    "a number of ranks that is a word": json.dumps(DOCUMENT | {"world_size": "two"}),
    "a time that is none": json.dumps(DOCUMENT | {"step_s": TIMES | {"after": [["NaN", 1]]}}),
    "a time without end": json.dumps(DOCUMENT | {"step_s": TIMES | {"after": [[10**400, 1]]}}),
    "no steps": json.dumps(DOCUMENT | {"steps": [1]}),
    "a link of words": json.dumps(DOCUMENT | {"links": [LINK | {"mss": "many"}]}),
}


def test_what_a_rank_has_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "rank0.observed").write_text(json.dumps(DOCUMENT))
    [found] = read_all(tmp_path)
    assert (found.rank, found.world_size, found.backend) == (0, 2, "gloo")
    assert [(pair.sender, pair.receiver) for pair in found.links.pairs] == [(0, 1)]
    assert overhead([found]) == pytest.approx(0.05)


@pytest.mark.parametrize("fault", NONSENSE)
def test_a_damaged_file_is_left_out(tmp_path: Path, fault: str) -> None:
    (tmp_path / "rank0.observed").write_text(NONSENSE[fault])
    (tmp_path / "rank1.observed").write_text(json.dumps(DOCUMENT | {"rank": 1}))
    assert [each.rank for each in read_all(tmp_path)] == [1]


def test_what_is_no_file_or_too_large_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.observed")
    (tmp_path / "folder.observed").mkdir()
    (tmp_path / "nowhere.observed").symlink_to(tmp_path / "missing")
    (tmp_path / "endless.observed").symlink_to("/dev/zero")
    with (tmp_path / "large.observed").open("wb") as file:
        file.truncate(1 << 40)
    assert read_all(tmp_path) == []


def test_times_and_links_beyond_all_measure_give_no_figure_that_json_lacks(tmp_path: Path) -> None:
    times = {"before": [[1e-300, 0]], "recorded": [[1e9, 1e9]], "after": []}
    links = [LINK | {"mss": 1e-300}, LINK | {"rtt_s": 1e-318, "samples": [[1e17, 2e-318]]}]
    document = DOCUMENT | {"step_s": times, "links": links}
    (tmp_path / "rank0.observed").write_text(json.dumps(document))
    [found] = read_all(tmp_path)
    assert overhead([found]) is None
    assert found.links.pairs == ()
