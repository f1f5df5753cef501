"""The backend under torchrun, over the embedded switch. Each scenario asserts its path.

Where it does not matter who starts the workers, it is not torchrun, which takes seconds.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.torchruns import Ended, clean_environment, finish, fresh_session, spawn
from support.training import torchrun_of_forks
from wiresum.host_agent.launcher.session import Session

SHARDED = ("fsdp1", "fsdp2", "zero_optimizer", "checkpoint", "functional_collectives")
SCENARIOS = Path(__file__).parent / "scenarios.py"


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with fresh_session(timeout_s=60.0) as session:
        yield session


def passed(ended: Ended, scenario: str, workers: int) -> None:
    assert ended.status == 0, ended.output
    for rank in range(workers):
        assert f"{scenario} passed on rank {rank}" in ended.output, ended.output
    assert "SIGABRT" not in ended.output
    assert "leaked" not in ended.output


@pytest.mark.parametrize(
    ("scenarios", "workers"),
    [
        # Scenarios that leave a sound group behind share a run.
        (("sums", "words", "mixed", "delegates", "integer_averages"), 3),
        (("ddp", "overlap", "hooks", "compiled"), 2),
        (SHARDED, 2),
        (
            (
                "callbacks_on_complete_futures",
                "callbacks_in_any_order",
                "callbacks_of_other_futures",
                "callbacks_of_callbacks",
                "other_collectives_in_callbacks",
                "a_callback_that_raises",
                "powersgd",
            ),
            3,
        ),
        (("views", "small_beside_large", "not_finite"), 2),
        (
            (
                "unwaited_results",
                "seen_by_modes_and_profilers",
                "futures_of_works",
                "builtin_hooks",
                "joins",
                "objects",
            ),
            2,
        ),
        (("mismatch_in_wait",), 2),
        (("mismatch_in_backward",), 2),
        (("leave_in_flight",), 2),
        (("again",), 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_scenarios(session: Session, scenarios: tuple[str, ...], workers: int) -> None:
    ended = spawn(SCENARIOS, "+".join(scenarios), workers=workers, env=session.variables())
    for scenario in scenarios:
        passed(ended, scenario, workers)


@pytest.mark.parametrize(
    ("workers", "field"),
    [
        (3, 16),
        pytest.param(2, 32, marks=pytest.mark.slow),
        pytest.param(4, 8, marks=pytest.mark.slow),
    ],
)
def test_every_collective_goes_over_the_switch(workers: int, field: int) -> None:
    scenarios = ("copies", "scattered_sums", "both_ways")
    with fresh_session(timeout_s=60.0, field=field) as session:
        env = session.variables() | {"ON_SWITCH": "1"}
        ended = spawn(SCENARIOS, "+".join(scenarios), workers=workers, env=env)
    for scenario in scenarios:
        passed(ended, scenario, workers)


def test_the_ranks_carry_what_the_switch_does() -> None:
    env = clean_environment() | {"WIRESUM_CARRIER": "ranks"}
    scenarios = ("sums", "words")
    ended = spawn(SCENARIOS, "+".join(scenarios), workers=3, env=env)
    for scenario in scenarios:
        passed(ended, scenario, 3)


def test_a_restart_by_torchrun_gets_an_epoch_of_its_own(session: Session) -> None:
    torchrun = [*torchrun_of_forks(2, "--max-restarts=1", "--monitor-interval=0.1")]
    ended = finish([*torchrun, str(SCENARIOS), "restart"], dict(session.variables()))
    passed(ended, "restart", 2)
    assert ended.output.count("restarted well") == 2


@pytest.mark.slow
def test_the_switchs_counters_agree_with_the_workers(session: Session, tmp_path: Path) -> None:
    before = dict(session.describe().events)
    env = session.variables() | {"WIRESUM_DUMP": str(tmp_path / "{rank}.json")}
    passed(spawn(SCENARIOS, "hooks", workers=2, env=env), "hooks", 2)
    after = dict(session.describe().events)
    engines = [json.loads((tmp_path / f"{r}.json").read_text())["engine"] for r in range(2)]
    chunks = {engine["contributions"] for engine in engines}
    assert len(chunks) == 1
    (count,) = chunks
    assert count > 0
    assert after["completed"] - before.get("completed", 0) == count
    taken = sum(after[name] - before.get(name, 0) for name in ("claimed", "added"))
    assert taken == 2 * count


def test_without_a_controller_everything_works_over_gloo_and_says_so_once() -> None:
    ended = spawn(SCENARIOS, "fallback", workers=2, env=clean_environment())
    passed(ended, "fallback", 2)
    assert ended.output.count("wiresum:") == 1
    assert "wiresum run" in ended.output


@pytest.mark.slow
def test_an_unreachable_controller_is_named_by_every_rank() -> None:
    env = clean_environment() | {
        "WIRESUM_CONTROLLER": "127.0.0.1:1",
        "WIRESUM_JOB": "x",
        "WIRESUM_TIMEOUT": "10",
        "WIRESUM_CARRIER": "switch",
    }
    ended = spawn(SCENARIOS, "fallback", workers=2, env=env)
    assert ended.status != 0
    assert "controller 127.0.0.1:1 cannot be reached" in ended.output


def test_a_missing_rank_is_named(session: Session) -> None:
    # Two torchruns would be one job; one that says it is half of it waits for the other half.
    env = session.variables() | {"WIRESUM_TIMEOUT": "3"}
    ended = spawn(Path(__file__).parent / "lonely.py", workers=1, env=env)
    assert ended.status != 0
    # What has passed before the controller is asked is left out.
    assert re.search(r"rank 1 of 2 workers did not join within [0-3](\.\d)? s", ended.output)


def test_nonsense_in_the_environment_is_refused() -> None:
    env = clean_environment() | {"WIRESUM_CONTROLLER": "127.0.0.1:1", "WIRESUM_FIELD": "7"}
    ended = spawn(SCENARIOS, "fallback", workers=1, env=env)
    assert ended.status != 0
    assert "WIRESUM_FIELD is '7'; it must be 32, 16 or 8" in ended.output


@pytest.mark.slow
def test_a_job_may_be_made_by_rank_0(session: Session) -> None:
    env = session.variables()
    for name in ("WIRESUM_JOB", "WIRESUM_JOB_TOKEN"):
        del env[name]
    env["WIRESUM_TOKEN"] = session.environment.tenant_token
    passed(spawn(SCENARIOS, "hooks", workers=2, env=env), "hooks", 2)


def test_forked_children_leave_the_job_alone(session: Session, tmp_path: Path) -> None:
    env = session.variables() | {"WIRESUM_DUMP": str(tmp_path / "{rank}.json")}
    for name in ("WIRESUM_JOB", "WIRESUM_JOB_TOKEN"):
        del env[name]
    env["WIRESUM_TOKEN"] = session.environment.tenant_token  # rank 0 makes, and releases, the job
    passed(spawn(SCENARIOS, "forked_children", workers=2, env=env), "forked_children", 2)


@pytest.mark.slow
def test_the_debug_level_detail_compares_collectives_on_both_paths(session: Session) -> None:
    env = session.variables() | {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    ended = spawn(SCENARIOS, "mismatches_in_detail", workers=2, env=env)
    passed(ended, "mismatches_in_detail", 2)


# A script that says "gloo": see e2e/test_training.py.
@pytest.mark.parametrize(
    "backend", [pytest.param("none", marks=pytest.mark.slow), "cpu:gloo,cuda:nccl"]
)
def test_as_default_replaces_gloo_and_the_default(session: Session, backend: str) -> None:
    env = session.variables(as_default=True)
    ended = spawn(SCENARIOS, "count_reductions", backend, workers=2, env=env)
    passed(ended, "count_reductions", 2)
    for rank in (0, 1):
        assert f"rank {rank} of 2: 1 over the switch" in ended.output
    assert ended.output.count("--as-default") == 1


@pytest.mark.slow
def test_autoload_can_be_switched_off() -> None:
    env = clean_environment() | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    ended = spawn(SCENARIOS, "fallback", workers=1, env=env)
    assert ended.status != 0
    assert "wiresum" in ended.output
