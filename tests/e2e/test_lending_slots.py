"""A training with local steps lends its slots between synchronizations."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.site import Run, Site, eventually
from support.training import spawned
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb

pytestmark = pytest.mark.timeout(300)

SCRIPT = Path(__file__).with_name("lending.py")


def begin(site: Site, token: Path, name: str, *script: str) -> Run:
    out = site.cli.directory / name
    out.mkdir()
    command = [*spawned(2), str(SCRIPT), "--out", str(out), *script]
    run = site.run(token, "--name", name, "--slots", "2048", command=command)
    run.out, run.workers = out, 2
    return run


def reports(run: Run) -> list[dict[str, Any]]:
    """The ranks' reports at the end of the run."""
    status, _, err = run.end()
    assert status == 0, err
    return [json.loads((run.out / f"report.{rank}.json").read_text()) for rank in range(2)]


class Guests:
    """Jobs without ranks, which are kept alive: one beside the training, one that wants slots."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self.jobs: list[pb.Job] = []
        """Those that have got their slots."""
        self._threads = [threading.Thread(target=self._beat)]
        self._threads[0].start()

    def create(self, slots: int) -> None:
        """Return at once: the job may have to wait."""

        def ask() -> None:
            with self._site.client() as client:
                job = client.create_job("", SlotRequest(slots, on_full=OnFull.WAIT))
                self.jobs.append(job)

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        with self._site.client() as client:
            for job in self.jobs:
                client.release_job(job.id, job.token)

    def _beat(self) -> None:
        while not self._over.wait(3.0):
            with self._site.client() as client:
                for job in list(self.jobs):
                    client.heartbeat(job.id, job.token)


def test_a_training_lends_its_slots_between_synchronizations_to_the_same_bits(
    cli: Commands,
) -> None:
    site = Site(cli)
    tenant = site.tenant("red")
    run = begin(site, tenant, "host", "--rounds", "500")
    run.until(lambda lease: lease["slots"] == 2048, "the training has its slots")
    guests = Guests(site)
    try:
        guests.create(512)
        eventually(lambda: guests.jobs, "a job beside it has its slots")
        guests.create(2048)  # not all of this is there, but for what the training lends
        run.until(lambda lease: lease["slots"] == 1024, "the guest has got the slots")
        lent = run.lease()["change"]
        run.until(
            lambda lease: lease["slots"] == 2048 and lease["change"] > lent,
            "the training has its slots back before it synchronizes",
        )
        guests.create(1024)
        run.until(lambda lease: lease["change"] > lent + 1, "and lends them again")
    finally:
        guests.end()
    (run.out / "stop").touch()
    told = reports(run)
    for report in told:
        assert report["stats"]["failed"] == {}
        assert set(report["leases"]) == {1024, 2048}
    # The same training alone, which lends nothing.
    rounds = str(told[0]["rounds"])
    alone = reports(begin(site, tenant, "alone", "--rounds", rounds, "--keep", "--pause", "0"))
    assert {report["rounds"] for report in [*told, *alone]} == {told[0]["rounds"]}
    assert len({report["digest"] for report in [*told, *alone]}) == 1
