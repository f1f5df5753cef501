"""The variables for workers that a framework starts elsewhere."""

import os

import pytest

from wiresum import host_agent

TOKENS = {
    "WIRESUM_ADMIN_TOKEN": "the admin's",
    "WIRESUM_TOKEN": "the tenant's",
    "WIRESUM_JOB_TOKEN": "the job's",
}


@pytest.mark.parametrize(
    ("job", "kept"),
    [({"WIRESUM_JOB": "j-1"}, "WIRESUM_JOB_TOKEN"), ({}, "WIRESUM_TOKEN")],
)
def test_workers_elsewhere_get_one_token(
    monkeypatch: pytest.MonkeyPatch, job: dict[str, str], kept: str
) -> None:
    for name in [each for each in os.environ if each.startswith("WIRESUM_")]:
        monkeypatch.delenv(name)
    given = {"WIRESUM_CONTROLLER": "there:1", **job}
    for name, value in (given | TOKENS).items():
        monkeypatch.setenv(name, value)
    assert host_agent.variables() == given | {kept: TOKENS[kept]}
