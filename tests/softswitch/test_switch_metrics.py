"""The switch's metrics: a scrape must show a job that runs through a served switch."""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from finsy.proto import p4r
from prometheus_client.parser import text_string_to_metric_families

from support.frames import Chunk, Host
from support.p4runtime import Client, load_config
from support.remote import Remote
from support.soft import Soft
from support.switch_process import SERVE, SwitchProcess
from support.targets import Lease, install_hosts
from wiresum import p4
from wiresum.p4 import packet
from wiresum.softswitch import own_program

LIMIT_S = 10.0
PROGRAM = p4.program(64)
Values = dict[tuple[str, ...], float]
Metrics = dict[str, Values]


@pytest.fixture
def serve() -> Iterator[Callable[..., SwitchProcess]]:
    started: list[SwitchProcess] = []

    def start(*options: str) -> SwitchProcess:
        started.append(
            SwitchProcess("--p4runtime", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *options)
        )
        return started[-1]

    yield start
    for switch in started:
        switch.close()


def scrape(switch: SwitchProcess) -> Metrics:
    """The values by metric name and by the labels' values, in the order of the labels' names."""
    with urllib.request.urlopen(
        f"http://{switch.facts['metrics']}/metrics", timeout=LIMIT_S
    ) as answer:
        text = answer.read().decode()
    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def workers(count: int) -> list[socket.socket]:
    sockets = []
    for number in range(count):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.settimeout(LIMIT_S)
        one.bind((f"127.0.0.{number + 2}", 0))
        sockets.append(one)
    return sockets


def place(worker: socket.socket) -> Host:
    ip, port = worker.getsockname()
    return Host(1, b"\2\0" + socket.inet_aton(ip), socket.inet_aton(ip), port)


def test_a_job_that_waits_for_its_second_worker(serve: Callable[..., SwitchProcess]) -> None:
    switch = serve("--lanes", "64", "--port", "1=udp:127.0.0.1:0", "--device-id", "3")
    first, second = sockets = workers(2)
    lease = Lease(5, 77, 0xDEAD, 16, 8, tuple(map(place, sockets)))
    with Client(switch.p4runtime, 1, device_id=3) as client:
        client.standing()
        remote = Remote(client, PROGRAM)
        remote.insert("addresses", {"ip": 0x7F000001}, "switch_address", {"mac": 0x02007F000001})
        install_hosts(remote, lease.hosts)
        lease.install(remote)
        chunk = Chunk(job=5, slot=3, epoch=77, chunk=3, key=0xDEAD, lanes=(1,) * 64)
        to = switch.udp(1)
        first.sendto(chunk.payload(), to)
        first.sendto(chunk.payload(), to)  # answered with WAIT: both have been counted by then
        assert Chunk.parse(first.recv(4096)).bitmap == 1
        first.sendto(chunk.but(key=1).payload(), to)
        first.sendto(chunk.payload(), to)
        assert Chunk.parse(first.recv(4096)).bitmap == 1
        found = scrape(switch)
        assert found["wiresum_switch_controllers"] == {(): 1}
        assert found["wiresum_switch_primary"] == {(): 1}
        assert found["wiresum_switch_open_slots"] == {("5",): 1}
        assert found["wiresum_switch_missing_contributions"] == {("5", "0"): 0, ("5", "1"): 1}
        assert found["wiresum_switch_member_packets_total"] == {("5", "0"): 3, ("5", "1"): 0}
        events = {
            labels[0]: value for labels, value in found["wiresum_switch_job_events_total"].items()
        }
        assert (events["claimed"], events["waited"], events["completed"]) == (1, 2, 0)
        assert found["wiresum_switch_drops_total"]["stranger",] == 1
        assert found["wiresum_switch_port_frames_total"]["in", "1"] == 4
        assert found["wiresum_switch_port_frames_total"]["out", "1"] == 2
        assert found["wiresum_switch_table_entries"]["membership",] == 2
        assert set(found["wiresum_switch_program_info"]) == {("wiresum", PROGRAM.version)}

        second.sendto(chunk.payload(), to)
        assert Chunk.parse(second.recv(4096)).lanes == (2,) * 64
        found = scrape(switch)
        assert found["wiresum_switch_open_slots"] == {("5",): 0}
        assert found["wiresum_switch_missing_contributions"] == {("5", "0"): 0, ("5", "1"): 0}
    for one in sockets:
        one.close()


def test_a_switch_without_a_program(serve: Callable[..., SwitchProcess]) -> None:
    switch = serve("--port", "2=udp:127.0.0.1:0")
    found = scrape(switch)
    assert "wiresum_switch_program_info" not in found
    assert found["wiresum_switch_primary"] == {(): 0}
    assert found["wiresum_switch_undelivered_total"]["no_program",] == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", switch.udp(2))
        while not scrape(switch)["wiresum_switch_undelivered_total"]["no_program",]:
            assert switch.process.poll() is None


def test_another_program_has_its_cells_by_index(serve: Callable[..., SwitchProcess]) -> None:
    data = Path(__file__).parent / "p4runtime" / "data"
    switch = serve("--program", str(data / "entities.json"))
    config = load_config(data / "entities.json", data / "entities.p4info.txtpb")
    counter = config.p4info.counters[0]
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        client.write(
            p4r.Update.MODIFY,
            counter_entry=p4r.CounterEntry(
                counter_id=counter.preamble.id,
                index=p4r.Index(index=2),
                data=p4r.CounterData(packet_count=9),
            ),
        )
        found = scrape(switch)
    assert found["wiresum_switch_counter_packets_total"] == {(counter.preamble.name, "2"): 9}
    assert "wiresum_switch_drops_total" not in found


def test_a_port_in_use_is_one_line(serve: Callable[..., SwitchProcess]) -> None:
    switch = serve()
    done = subprocess.run(
        [*SERVE, "--p4runtime", "127.0.0.1:0", "--metrics", switch.facts["metrics"]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("address already in use")


def test_logs_as_json(serve: Callable[..., SwitchProcess]) -> None:
    switch = serve("--log-format", "json")
    switch.close()
    lines = [json.loads(line) for line in switch.log().splitlines()]
    assert lines
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_two_epochs_of_a_job_count_as_one() -> None:
    soft = Soft(PROGRAM)
    hosts = tuple(Host(1, bytes(6), bytes([10, 0, 0, n]), 4000) for n in (1, 2))
    Lease(7, 1, 1, 0, 8, hosts).install(soft)
    Lease(8, 2, 1, 8, 8, hosts[:1]).install(soft)
    for rank, moved in enumerate(hosts):
        match = Lease(7, 3, 2, 16, 8, hosts).match(rank)
        soft.insert(
            "membership", match | {"ip": int.from_bytes(moved.ip)}, "member",
            {"worker": rank, "worker_bit": 1 << rank, "full": 3, "slot_base": 16, "slot_count": 8,
             "group": 1, "reply_key": 3},
        )  # fmt: skip
    for slot, epoch, bitmap in (
        (0, 1, 1),
        (1, 1, 3),
        (2, 99, 1),
        (16, 3, 2),
        (17, 3, 2),
        (8, 2, 1),
    ):
        soft.switch.dataplane.register_write("slot_epoch", slot, epoch.to_bytes(4))
        soft.switch.dataplane.register_write("slot_bitmap", slot, bitmap.to_bytes(8))
    found = {job.number: job for job in own_program.jobs(soft.switch.dataplane)}
    assert {number: job.open_slots for number, job in found.items()} == {7: 3, 8: 0}
    assert {worker.rank: worker.missing for worker in found[7].workers} == {0: 2, 1: 1}


def test_drop_reasons_match_the_packet_format() -> None:
    soft = Soft(PROGRAM)
    assert own_program.runs(soft.switch.dataplane, "wiresum")
    assert not own_program.runs(soft.switch.dataplane, "another")
    assert set(own_program.drops(soft.switch.dataplane)) == {
        reason.name.lower() for reason in packet.DropReason
    }
