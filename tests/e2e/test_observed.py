"""A training with a late rank, as its operators see it: metrics, ``wiresum top``, logs."""

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.processes import Commands
from support.site import eventually
from support.training import spawned
from wiresum.controller.api.metrics import METRICS as CONTROLLER
from wiresum.host_agent.backend.metrics import METRICS as AGENT
from wiresum.softswitch.metrics import METRICS as SWITCH

LIMIT_S = 60.0
LATE = 1
SCRIPT = Path(__file__).with_name("straggling.py")
Values = dict[str, dict[tuple[str, ...], float]]


@dataclass
class Run:
    """The processes and endpoints under observation."""

    cli: Commands
    controller: str
    metrics: dict[str, str]
    launcher: subprocess.Popen[str]
    stop: Path
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """The launcher's and the workers' log so far; torchrun's own lines are left out."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]


@pytest.fixture
def run(cli: Commands, tmp_path: Path) -> Iterator[Run]:
    port, any_port = "1=udp:127.0.0.1:0", "127.0.0.1:0"
    _, switch = cli.serve(
        "switch", "serve", "--lanes", "256", "--p4runtime", any_port, "--port", port,
        "--metrics", any_port,
    )  # fmt: skip
    address = switch["ports"]["1"].removeprefix("udp:")
    _, controller = cli.serve(
        "controller", "serve", "--listen", any_port, "--store", ":memory:", "--plaintext",
        "--metrics", any_port, "--expiry", "12", "--switch",
        f"name=s1,p4runtime={switch['p4runtime']},address={address},host=127.0.0.0/8=1",
    )  # fmt: skip
    log, stop = tmp_path / "log", tmp_path / "stop"
    with log.open("w") as stderr:
        launcher = subprocess.Popen(
            [*cli.wiresum, "run", "--controller", controller["address"], "--name", "late",
             "--log-format", "json", "--", *spawned(3), str(SCRIPT), str(LATE), str(stop)],
            env=cli.env | {"WIRESUM_METRICS": any_port}, cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=stderr, stderr=stderr, text=True,
        )  # fmt: skip
    endpoints = {"switch": switch["metrics"], "controller": controller["metrics"]}
    try:
        yield Run(cli, controller["address"], endpoints, launcher, stop, log)
    finally:
        stop.touch()
        try:
            launcher.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
            raise


def scrape(address: str) -> tuple[set[str], Values]:
    """The names of all metrics, and the values by the labels' values in the order of names."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    values: Values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            values.setdefault(sample.name, {})[labels] = sample.value
    return set(re.findall(r"^# TYPE (\S+) ", text, re.M)), values


def top(run: Run, *options: str) -> str:
    done = run.cli.run("top", "--controller", run.controller, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_outputs_show_a_late_rank(run: Run) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        assert time.monotonic() < deadline, run.log.read_text()[-3000:]
        assert run.launcher.poll() is None, run.log.read_text()[-3000:]
        picture = json.loads(top(run, "--json", "--interval", "0.5"))
        jobs = picture["jobs"]
        stragglers = jobs[0]["stragglers"] if jobs else []
        late = [one["rank"] for one in stragglers if "late by" in one["why"]]
        if late == [LATE] and jobs[0]["chunks_per_s"]:
            break
        time.sleep(0.2)
    (job,) = jobs
    assert (job["name"], job["state"], job["joined"]) == ("late", "ready", 3)
    by_rank = {rank["rank"]: rank for rank in job["ranks"]}
    assert len(by_rank) == 3
    assert by_rank[LATE]["latency_s"] < by_rank[0]["latency_s"]
    assert picture["switches"][0]["state"] == "up"

    def said() -> str:  # in its own interval, which may have been another one's
        text = top(run, "--once", "--interval", "0.5", "--job", "late")
        return text if f"late waits for rank {LATE}: late by" in text else ""

    text = eventually(said, "the late rank is in the picture")
    assert max(map(len, text.splitlines())) <= 120
    done = run.cli.run("top", "--controller", run.controller, "--once", "--job", "nobody")
    assert (done.returncode, done.stderr) == (
        1, "wiresum: no live job is called 'nobody': see `wiresum job list`\n",
    )  # fmt: skip

    workers = [
        match[1]
        for line in run.lines()
        if (match := re.match(r"metrics at http://(\S+)/metrics", line["message"]))
    ]
    assert len(workers) == 3
    exposed = {}
    for address in workers:
        names, values = scrape(address)
        check_names(names, AGENT)
        ((field, job_id, rank, switch, _, count),) = values["wiresum_agent_info"]
        assert (field, job_id, switch, count) == ("32", job["id"], "s1", "3")
        exposed[int(rank)] = values["wiresum_agent_exposed_seconds_total"][()]
        assert values["wiresum_agent_chunks_sent_total"]["data",] > 0
        assert values["wiresum_agent_collectives_total"]["broadcast", "switch"] > 0
    assert exposed[LATE] < min(exposed[0], exposed[2])

    names, values = scrape(run.metrics["switch"])
    check_names(names, SWITCH)
    assert values["wiresum_switch_missing_contributions"].keys() == {
        ("1", str(r)) for r in range(3)
    }
    completed = values["wiresum_switch_job_events_total"]["completed", "1"]
    names, values = scrape(run.metrics["controller"])
    check_names(names, CONTROLLER)
    assert values["wiresum_controller_job_events_total"]["completed", job["id"]] >= completed > 0
    flights = values["wiresum_controller_rank_in_flight_seconds_total"]
    assert flights[job["id"], str(LATE)] < flights[job["id"], "0"]

    run.stop.touch()
    assert run.launcher.wait(LIMIT_S) == 0
    lines = run.lines()
    joined = [line for line in lines if "joined job" in line["message"]]
    assert {line["rank"] for line in joined} == {0, 1, 2}
    assert {(line["job"], line["switch"]) for line in joined} == {(job["id"], "s1")}
    assert any(line["message"].startswith("job late on switch s1") for line in lines)


def check_names(names: set[str], catalogue: Any) -> None:
    """An endpoint exposes exactly the metrics that the part declares, and those of its process."""
    declared = {metric.name for metric in catalogue.metrics}
    assert {name for name in names if not name.startswith("process_")} == declared
    assert "process_resident_memory_bytes" in names


def test_top_ends_at_ctrl_c(cli: Commands) -> None:
    """On a terminal: it redraws until Ctrl-C, and ends without a traceback."""
    import pty
    import signal

    _, controller = cli.serve(
        "controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:", "--plaintext"
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*cli.wiresum, "top", "--controller", controller["address"], "--interval", "0.2"],
        env=cli.env | {"TERM": "xterm", "COLUMNS": "60", "LINES": "20"},
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    try:
        deadline = time.monotonic() + LIMIT_S
        while seen.count(b"0/0 switches up") < 3:
            assert time.monotonic() < deadline, seen
            seen += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        os.close(main)
