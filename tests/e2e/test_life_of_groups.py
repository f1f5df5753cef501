"""Groups of some of the ranks: restarts of torchrun, forks, threads, and the debug level DETAIL."""

import json
from pathlib import Path
from typing import Any

from support.processes import Commands
from support.training import spawned, torchrun_of_forks

SCRIPT = Path(__file__).with_name("grouped_life.py")
WORKERS = 3
LIMIT_S = 300.0


def live(
    cli: Commands, folder: Path, command: list[str], *ways: str, **env: str
) -> tuple[list[dict[str, Any]], str]:
    """Run the script to its end; the ranks' reports, and what was said."""
    script = [str(SCRIPT), *ways, "--out", str(folder)]
    done = cli.run("run", "--", *command, *script, limit_s=LIMIT_S, **env)
    assert done.returncode == 0, done.stderr
    reports = [json.loads((folder / f"report.{rank}.json").read_text()) for rank in range(WORKERS)]
    return reports, done.stderr


def test_groups_get_to_the_switch_again_in_the_life_after_a_death(
    cli: Commands, tmp_path: Path
) -> None:
    command = torchrun_of_forks(WORKERS, "--max-restarts=1")
    reports, said = live(cli, tmp_path, command, "forks", "threads", "restarts")
    for rank, report in enumerate(reports):
        assert report["restart"] == "1"
        assert report["carriers"] == ["switch"] * 3, said
        assert report["stats"]["failed"] == {}
        # A forked worker of a loader has no part in its parent's groups, and says whose it is.
        for epoch in (0, 1):
            (line,) = report[f"said{epoch}"]
            assert line.startswith(f"EngineClosed: this process is a fork of rank {rank}, ")
        # Threads that issue on groups of all ranks: over gloo, as no order of theirs is agreed.
        assert report["wrong"] == []
        (reason,) = report["stats"]["fallback"]["all_reduce"]
        assert "a second group of all ranks" in reason


def test_detail_names_the_ranks_of_a_group_by_their_numbers_in_the_run(
    cli: Commands, tmp_path: Path
) -> None:
    env = {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    reports, _ = live(cli, tmp_path, spawned(WORKERS), "detail", **env)
    assert "mismatch" not in reports[0]
    for mine, other in ((1, 2), (2, 1)):
        line = reports[mine]["mismatch"]
        assert f"Rank {mine} is running collective 4: allreduce(SUM, [{3 + mine}]" in line
        assert f"but rank {other} is running" in line
        assert reports[mine]["stats"]["failed"] == {}
