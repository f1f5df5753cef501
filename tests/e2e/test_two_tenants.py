"""Two tenants train at once on one switch: each gets, bit for bit, its result of a run alone."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.training import rack, spawned

SCRIPT = Path(__file__).with_name("tenant_train.py")
LIMIT_S = 150.0
SLOTS = "256"


@dataclass(frozen=True)
class Tenant:
    """A tenant and its training."""

    name: str
    workers: int
    field: int
    model: str
    token: str


@pytest.fixture
def controller(cli: Commands) -> str:
    """A switch and a controller that knows it."""
    return rack(cli)


@pytest.fixture
def tenants(cli: Commands, controller: str) -> list[Tenant]:
    """Two tenants of it, with half of a small quota each."""
    made = []
    for name, workers, field, model in (("red", 2, 32, "images"), ("blue", 3, 8, "text")):
        done = cli.run(
            "tenant", "add", name, "--slots", SLOTS, "--jobs", "1", "--json",
            "--controller", controller,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append(Tenant(name, workers, field, model, json.loads(done.stdout)["token"]))
    return made


class Training:
    """One training of a tenant, as a process of its own."""

    def __init__(
        self, cli: Commands, controller: str, tenant: Tenant, out: Path, gate: Path | None
    ) -> None:
        out.mkdir()
        self.tenant = tenant
        self.out = out
        script = ["--model", tenant.model, "--out", str(out)]
        if gate is not None:
            script += ["--gate", str(gate)]
        self.process: subprocess.Popen[str] = cli.start(
            "run", "--controller", controller, "--field", str(tenant.field), "--slots", SLOTS,
            "--", *spawned(tenant.workers), str(SCRIPT), *script,
            WIRESUM_TOKEN=tenant.token,
        )  # fmt: skip

    def ready(self) -> bool:
        """Whether all its workers wait for the gate."""
        assert self.process.poll() is None, self.process.communicate()[1]
        return len(list(self.out.glob("ready.*"))) == self.tenant.workers

    def reports(self) -> list[dict[str, Any]]:
        """The result of its workers: they must agree, and must have used the switch."""
        _, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, err
        found = [json.loads(path.read_text()) for path in sorted(self.out.glob("report.*.json"))]
        assert len(found) == self.tenant.workers
        assert len({each["digest"] for each in found}) == 1
        assert all(each["switch"]["all_reduce"] > 0 for each in found)
        return found


def test_two_tenants_train_at_once(
    cli: Commands, controller: str, tenants: list[Tenant], tmp_path: Path
) -> None:
    alone = {
        tenant.name: Training(cli, controller, tenant, tmp_path / f"{tenant.name}-alone", None)
        .reports()[0]
        for tenant in tenants
    }  # fmt: skip
    assert alone["red"]["digest"] != alone["blue"]["digest"]

    gate = tmp_path / "gate"
    both = [
        Training(cli, controller, tenant, tmp_path / f"{tenant.name}-together", gate)
        for tenant in tenants
    ]
    deadline = time.monotonic() + LIMIT_S
    while not all(training.ready() for training in both):
        assert time.monotonic() < deadline, "the tenants did not get ready"
        time.sleep(0.02)
    seen_by_each(cli, controller, tenants)
    gate.touch()
    together = {training.tenant.name: training.reports() for training in both}

    for name, reports in together.items():
        assert reports[0]["digest"] == alone[name]["digest"]
        assert reports[0]["loss"] == alone[name]["loss"]
    red, blue = together["red"], together["blue"]
    assert max(each["began"] for each in red + blue) < min(each["ended"] for each in red + blue)
    accounted(cli, controller, tenants)


def jobs(cli: Commands, controller: str, token: str) -> list[dict[str, Any]]:
    """The jobs that this token may see."""
    done = cli.run("job", "list", "--json", "--controller", controller, WIRESUM_TOKEN=token)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def seen_by_each(cli: Commands, controller: str, tenants: list[Tenant]) -> None:
    """While both train: neither sees the other's job, and the admin sees that they share."""
    live = [job for job in jobs(cli, controller, cli.mark) if job["state"] == "ready"]
    assert sorted(job["tenant"] for job in live) == ["blue", "red"]
    assert len({job["switch"] for job in live}) == 1
    first, second = sorted(live, key=lambda job: job["slot_base"])
    assert first["slot_base"] + first["slots"] <= second["slot_base"]
    for tenant, other in (tenants, tenants[::-1]):
        seen = jobs(cli, controller, tenant.token)
        assert {job["tenant"] for job in seen} == {tenant.name}
        (theirs,) = [job["id"] for job in live if job["tenant"] == other.name]
        for command in (["job", "show"], ["job", "evict"]):
            done = cli.run(*command, theirs, "--controller", controller, WIRESUM_TOKEN=tenant.token)
            assert done.returncode == 1, command
            assert len(done.stderr.splitlines()) == 1


def accounted(cli: Commands, controller: str, tenants: list[Tenant]) -> None:
    """The switch's counters of each job account for its own contributions and no others."""
    workers = {tenant.name: tenant.workers for tenant in tenants}
    ended = [job for job in jobs(cli, controller, cli.mark) if job["tenant"] in workers]
    assert len(ended) == 4
    for job in ended:
        events = job["events"]
        assert events["claimed"] == events["completed"] > 0
        assert events["claimed"] + events["added"] == workers[job["tenant"]] * events["completed"]
        assert events.get("mismatched", 0) == events.get("out_of_lease", 0) == 0
