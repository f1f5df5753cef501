"""The launcher's parts that need no switch: commands, the environment."""

import dataclasses
import sys
from datetime import timedelta

import pytest
import torch.distributed as dist

from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.environment import LONGEST_S, AgentError, Environment, environment
from wiresum.host_agent.launcher.run import LaunchError, resolve

LIMIT_S = 20.0


def test_torchrun_is_found_in_an_environment_that_is_not_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    module = [sys.executable, "-P", "-m", "torch.distributed.run"]
    assert resolve(["torchrun", "train.py"]) == [*module, "train.py"]
    with pytest.raises(LaunchError, match="command 'trainer' not found"):
        resolve(["trainer"])
    with pytest.raises(LaunchError, match="no command"):
        resolve([])


def test_the_environment_is_read_back_as_it_was_written() -> None:
    for made in (
        Environment("10.0.0.1:7500", "abc", "secret", 8, 12.5),
        Environment("10.0.0.1:7500", None, "", 32, None),
        Environment("http://10.0.0.1:7500", "a", "b", 32, None, ca="c.pem", cert="d", key="e"),
    ):
        assert environment(made.variables()) == made
    made = Environment("h:1", "a", "b", 32, None, tenant_token="secret")
    assert "secret" not in [*made.variables().values(), repr(made)]
    assert environment({}) is None


@pytest.mark.parametrize("value", ["1000001", "1e7", "1e18", "1e300", "inf"])
def test_time_limits_of_any_length_are_taken(value: str) -> None:
    """As torch and gloo take them: up to timedelta.max, and what means "never"."""
    made = environment(
        {
            "WIRESUM_CONTROLLER": "127.0.0.1:1",
            "WIRESUM_TIMEOUT": value,
            "WIRESUM_QUEUE_TIMEOUT": value,
        }
    )
    assert made is not None
    wanted = min(float(value), LONGEST_S)
    assert made.timeout_s == made.request.queue_timeout_s == wanted
    again = environment(made.variables())
    assert again is not None
    assert again.timeout_s == pytest.approx(wanted, rel=1e-5)
    for limit in (timedelta.max, timedelta(seconds=60)):
        worker = Worker(made, dist.HashStore(), 0, 1, limit, "0")
        unset = Worker(
            dataclasses.replace(made, timeout_s=None), dist.HashStore(), 0, 1, limit, "0"
        )
        for seconds in (worker.join_s, worker.collective_s, unset.join_s, unset.collective_s):
            assert 0 < seconds <= LONGEST_S
            timedelta(seconds=seconds)
        assert worker.collective_s == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIRESUM_FIELD", "7"),
        ("WIRESUM_FIELD", "x"),
        ("WIRESUM_TIMEOUT", "soon"),
        ("WIRESUM_TIMEOUT", "-1"),
        ("WIRESUM_TIMEOUT", "nan"),
        ("WIRESUM_SLOTS", "many"),
        ("WIRESUM_MIN_SLOTS", "-1"),
        ("WIRESUM_IF_FULL", "cry"),
        ("WIRESUM_QUEUE_TIMEOUT", "0"),
    ],
)
def test_nonsense_in_the_environment_is_refused(name: str, value: str) -> None:
    with pytest.raises(AgentError, match=name):
        environment({"WIRESUM_CONTROLLER": "127.0.0.1:1", name: value})
