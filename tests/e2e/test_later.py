"""A run begins over its ranks where it gets no job, and goes to a switch once it has one."""

import json
import socket
from collections.abc import Callable

import pytest

from support.background import Training, train, train_plainly
from support.processes import Commands, commands
from support.site import eventually
from support.training import rack
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.v1 import controller_pb2 as pb

STEPS = ("--steps", "60", "--pause", "0")
ALL = 4096


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the training ends with, whatever sums it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with commands(folder) as cli:
        options = ("--field", "16", "--carrier", "ranks")
        reports, _ = train(cli, folder, *options, script=STEPS).end()
    (found,) = {report["digest"] for report in reports}
    return str(found)


def begun(training: Training) -> Training:
    """It has begun over its ranks; its steps are slow until it has reached the switch."""
    (training.out / "slow").touch()
    training.reach(0)
    assert training.carriers() == {"ranks"}
    return training


def on_switch_later(training: Training, digest: str) -> str:
    """The training goes to the switch, and ends as the undisturbed one; what was said."""
    training.until("switch")
    reports, said = training.end()
    assert [report["carriers"] for report in reports] == [["ranks", "switch"]] * len(reports)
    assert {report["digest"] for report in reports} == {digest}
    assert said.count("the switch sums again") == 1
    return said


def queued(client: ControllerClient) -> pb.Job:
    """The one job that waits for room."""

    def found() -> list[pb.Job]:
        return [job for job in client.list_jobs() if job.state == pb.JOB_STATE_QUEUED]

    (job,) = eventually(found, "a job waits for room")
    return job


def test_a_run_that_has_no_room_begins_over_its_ranks_and_goes_to_the_switch_when_there_is(
    cli: Commands, start: Callable[..., Training], digest: str
) -> None:
    controller = rack(cli, expiry_s=600)
    with ControllerClient(controller, token=cli.mark) as client:
        holder = client.create_job("holder", SlotRequest(ALL))
        options = ("--controller", controller, "--field", "16", "--if-full", "fallback")
        training = start(*options, "--name", "later", script=STEPS)
        begun(training)
        waiting = queued(client)
        assert waiting.started
        assert "no room" in waiting.reason
        shown = cli.run("job", "list", "--controller", controller, COLUMNS="200")
        assert "its ranks sum meanwhile" in " ".join(shown.stdout.split())
        shown = cli.run("top", "--once", "--json", "--controller", controller)
        (row,) = [job for job in json.loads(shown.stdout)["jobs"] if job["name"] == "later"]
        assert (row["state"], row["carrier"]) == ("queued", "ranks")
        assert row["carrier_reason"] == "it waits for room on a switch"
        client.release_job(holder.id, holder.token)
        said = on_switch_later(training, digest)
        assert said.count("training begins over the ranks, until there is a switch") == 1
        ended = client.get_job(waiting.id)
        assert ended.state == pb.JOB_STATE_RELEASED


@pytest.mark.slow
def test_a_run_that_ends_while_it_waits_for_room_leaves_the_queue(
    cli: Commands, start: Callable[..., Training]
) -> None:
    controller = rack(cli, expiry_s=600)
    with ControllerClient(controller, token=cli.mark) as client:
        client.create_job("holder", SlotRequest(ALL))
        options = ("--controller", controller, "--if-full", "fallback")
        training = start(*options, script=("--steps", "30", "--pause", "0.1"))
        queued(client)
        training.end()
        assert not [job for job in client.list_jobs() if job.state == pb.JOB_STATE_QUEUED]


@pytest.mark.slow
def test_workers_without_a_launcher_may_do_the_same(
    cli: Commands, digest: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    controller = rack(cli, expiry_s=600)
    with ControllerClient(controller, token=cli.mark) as client:
        holder = client.create_job("holder", SlotRequest(ALL))
        env = {"WIRESUM_CONTROLLER": controller, "WIRESUM_IF_FULL": "fallback"}
        folder = tmp_path_factory.mktemp("plain")
        training = train_plainly(cli, folder, *STEPS, **env, WIRESUM_FIELD="16")
        begun(training)
        assert queued(client).started
        client.release_job(holder.id, holder.token)
        said = on_switch_later(training, digest)
        assert said.count("the ranks sum without the switch") == 1
        live = [job for job in client.list_jobs(live_only=True) if job.id != holder.id]
        assert not live, "rank 0 has released the job that it had made"


@pytest.mark.parametrize("launched", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_begins_without_its_controller_and_goes_to_the_switch_when_it_is_there(
    cli: Commands,
    start: Callable[..., Training],
    digest: str,
    launched: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    controller = f"http://{listen}"
    if launched:
        training = start("--controller", controller, "--field", "16", script=STEPS)
    else:
        folder = tmp_path_factory.mktemp("plain")
        env = {"WIRESUM_CONTROLLER": controller, "WIRESUM_FIELD": "16"}
        training = train_plainly(cli, folder, *STEPS, **env)
    begun(training)
    assert rack(cli, listen=listen) == controller
    said = on_switch_later(training, digest)
    what = "training begins over the ranks" if launched else "the ranks sum without the switch"
    (line,) = [line for line in said.splitlines() if what in line]
    assert listen in line
    assert "cannot be reached" in line
