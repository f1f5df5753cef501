"""A training whose controllers take turns: it does not notice."""

import signal
from pathlib import Path

import pytest

from support.postgres import Postgres
from support.processes import Commands
from support.site import LOOP, Run, eventually
from support.training import spawned
from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb

pytestmark = pytest.mark.timeout(300)


class Controllers:
    """Two controllers with TLS over one store, and a switch."""

    def __init__(self, cli: Commands, url: str) -> None:
        self.cli, self.url = cli, url
        self.listens = ["127.0.0.1:0", "127.0.0.1:0"]
        self.processes = [self._serve(0), self._serve(1)]
        _, facts = cli.serve(
            "switch", "serve", "--lanes", "256", "--p4runtime", "127.0.0.1:0",
            "--port", "1=udp:127.0.0.1:0",
        )  # fmt: skip
        ip, port = facts["ports"]["1"].removeprefix("udp:").rsplit(":", 1)
        with self.client() as client:
            client.add_switch(
                add_switch_request(
                    "s1", p4runtime=facts["p4runtime"], ip=ip, udp_port=int(port),
                    hosts=[("127.0.0.0/8", 1)],
                )
            )  # fmt: skip
            eventually(
                lambda: client.list_switches()[0].state == pb.SWITCH_STATE_UP, "the switch is up"
            )

    def _serve(self, number: int):
        process, ready = self.cli.serve(
            "controller", "serve", "--listen", self.listens[number], "--store", self.url
        )
        self.listens[number], self.ca = ready["listen"], ready["ca"]
        return process

    @property
    def address(self) -> str:
        """As clients write it."""
        return ",".join(self.listens)

    def client(self, address: str = "") -> ControllerClient:
        """The operator's."""
        return ControllerClient(
            address or self.address, token=self.cli.mark, ca=self.ca, cert="", key=""
        )

    def leader(self) -> int:
        """Which one leads."""

        def find() -> str:
            for number, listen in enumerate(self.listens):
                try:
                    with self.client(listen) as client:
                        client.list_tenants()
                except ControllerError:
                    continue
                return str(number)
            return ""

        return int(eventually(find, "a controller leads"))

    def kill(self, number: int) -> None:
        """SIGKILL; then it is started again, and follows."""
        self.processes[number].kill()
        self.processes[number].wait()

    def start(self, number: int) -> None:
        """Start it again where it was."""
        self.processes[number] = self._serve(number)

    def pause(self, number: int, go_on: bool = False) -> None:
        """SIGSTOP, or SIGCONT."""
        self.processes[number].send_signal(signal.SIGCONT if go_on else signal.SIGSTOP)


@pytest.mark.parametrize(
    "faults", ["killed", pytest.param("stopped and hung up", marks=pytest.mark.slow)]
)
def test_a_training_does_not_notice_that_its_controllers_take_turns(
    faults: str, cli: Commands, postgres_server: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    several = Controllers(cli, postgres_url)
    out = tmp_path / "out"
    out.mkdir()
    process = cli.start(
        "run", "--controller", several.address, "--ca", several.ca, "--name", "loop", "--",
        *spawned(2), str(LOOP), "--out", str(out), "--pause", "0.05",
    )  # fmt: skip
    run = Run(process)
    run.out, run.workers = out, 2
    run.steps(5)
    first = several.leader()

    if faults == "killed":
        several.kill(first)
        assert several.leader() != first
        run.steps(5)
        several.start(first)
    else:
        several.pause(first)
        assert several.leader() != first
        run.steps(5)
        several.pause(first, go_on=True)
        postgres_server.hang_up()
        several.leader()
    run.steps(5)
    with several.client() as client:
        (job,) = client.list_jobs(live_only=True)
        assert (job.name, job.state) == ("loop", pb.JOB_STATE_READY)
        assert client.list_switches()[0].state == pb.SWITCH_STATE_UP
    for report in run.stop():
        assert report["stats"]["failed"] == {}
        assert len(report["leases"]) == 1
    with several.client() as client:
        assert client.list_jobs(live_only=True) == []
