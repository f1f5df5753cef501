"""``wiresum bench train``: times to a loss, their ratios and page, and one cell across a rack."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.rack_process import namespaces
from support.site import eventually
from wiresum.measure.bench import train_results
from wiresum.measure.bench.train import Options
from wiresum.measure.bench.train_methods import METHODS, H, parse_methods
from wiresum.measure.bench.train_rack import Trainings
from wiresum.measure.remedies import Carrier
from wiresum.testbed import find_mininet
from wiresum.testbed.errors import RackError, RackUsageError

MACHINE = {"cores": 2, "model": "Chip", "kernel": "6.18", "python": "3.11"}


def run(method: str, seed: int, *looks: tuple[float, float], **more: Any) -> dict[str, Any]:
    steps = H * len(looks)
    return {
        "rate_mbit": 100.0, "workers": 4, "seed": seed, "method": method, "steps": steps,
        "looks": [list(each) for each in looks], "sent": 2048.0 * steps, "weights": "",
    } | more  # fmt: skip


RUNS = [
    run("gloo", 0, (4.0, 3.0), (8.0, 2.0)),
    run("gloo", 1, (4.0, 2.5), (8.0, 2.3)),
    run("ranks-8", 0, (2.0, 3.0), (4.0, 2.0)),
    run("ranks-8", 1, (1.0, 2.4)),
    run("gloo-diloco-8", 0, (1.0, 3.0), (2.0, 2.8)),
    run("gloo-diloco-8", 1, (1.0, 3.0), (2.0, 2.6)),
    run("ranks-32", 0, (8.0, 3.0), (16.0, 2.0)),
    run("ranks-32", 1, (8.0, 3.0), (16.0, 2.7)),
    run("ranks-32", 7, (8.0, 3.0), (16.0, 2.0)),  # gloo was not measured in this round
    run("gloo", 0, (1.0, 2.0), rate_mbit=1000.0),
]
CONTENT = {
    "kind": train_results.KIND,
    "version": train_results.VERSION,
    "machine": MACHINE,
    "options": Options((), (), ()).settings() | {"target": 2.4},
    "runs": RUNS,
}


def test_a_loss_is_reached_between_two_looks() -> None:
    looks = [(1.0, 3.0), (2.0, 2.5), (3.0, 2.6), (4.0, 2.2)]
    assert train_results.reached(looks, 2.75) == pytest.approx(1.5)
    assert train_results.reached(looks, 2.4) == pytest.approx(3.5)
    assert train_results.reached(looks, 3.0) == 1.0
    assert train_results.reached(looks, 2.1) is None
    assert train_results.reached([], 2.1) is None


def test_ratios_compare_within_a_round_and_a_loss_that_is_not_reached_is_lost() -> None:
    found = {row.method: row for row in train_results.rows(RUNS, 100.0, 4, 2.4)}
    assert list(found) == ["gloo", "gloo-diloco-8", "ranks-32", "ranks-8"]
    assert found["gloo"].ratio == 1
    assert found["ranks-8"].ratios == pytest.approx([6.4 / 3.2, 6.0 / 1.0])
    assert found["ranks-8"].step_ms == pytest.approx(1000 * (4 / 16 + 1 / 8) / 2)
    assert found["ranks-8"].sent == 2048
    assert (found["gloo-diloco-8"].ratio, found["gloo-diloco-8"].lost) == (None, 2)
    assert found["gloo-diloco-8"].least_loss == 2.6
    assert found["ranks-32"].ratios == pytest.approx([0.5])
    assert found["ranks-32"].ratio == pytest.approx(0.25)  # the median with one that is lost


def test_the_page_shows_what_is_won_and_what_is_lost(cli: Commands, tmp_path: Path) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    kept.write_text(json.dumps(CONTENT))
    begin = train_results.BEGIN
    page.write_text(f"# Times\n\n{begin}\nold\n<!-- to here -->\nrest\n")
    done = cli.run(
        "bench", "train", "--json", str(kept), "--table-only", "--markdown", str(page)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "old" not in text
    assert text.endswith("rest\n")
    assert "### 100 Mbit/s, 4 workers" in text
    assert "### 1 Gbit/s, 4 workers" in text
    assert "| `ranks-8` | DDP, F = 8, the ranks sum | 4.00 | 2.00–6.00 | 12 | 187.5 | 2 |" in text
    assert "| **not reached: 2.60** |" in text
    assert "| **0.25** | 1 not reached–0.50 |" in text
    assert "2 of 3 methods lose against gloo here; `ranks-8` is the fastest" in text


def test_the_page_in_the_docs_is_that_of_the_kept_trainings() -> None:
    docs = Path(__file__).parents[3] / "docs"
    kept = json.loads((docs / "time-to-loss" / "times.json").read_text())
    assert train_results.page(kept) in (docs / "time-to-loss.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--methods", "best"), "it must be of gloo, gloo-fp16"),
        (("--methods", "ranks-8,ranks-8"), "each once"),
        (("--rate", "none,1gbit"), "--rate 'none,1gbit': links need a limit"),
        (("--workers", "1"), "each must be a number from 2"),
        (("--table-only",), "name the file of an earlier run"),
        (("--table-only", "--json", "{other}"), "is not from `wiresum bench"),
        (("--table-only", "--json", "{missing}"), "cannot read"),
        (("--append", "--json", "{kept}"), "from a run with other options, or elsewhere"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    cli: Commands, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    kept, other, missing = (tmp_path / name for name in ("kept", "other", "missing"))
    kept.write_text(json.dumps(CONTENT))
    other.write_text(json.dumps(CONTENT | {"runs": [{"method": "gloo"}]}))
    named = [each.format(kept=kept, other=other, missing=missing) for each in arguments]
    done = cli.run("bench", "train", *named)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_methods_have_names_of_their_own_and_gloo_goes_first() -> None:
    assert [each.name for each in parse_methods("ranks-8,switch-8")] == [
        "gloo", "ranks-8", "switch-8",
    ]  # fmt: skip
    assert [each.name for each in parse_methods("")] == list(METHODS)
    with pytest.raises(RackUsageError):
        parse_methods("gloo,")
    cells = list(Options((100.0, 1000.0), (4,), parse_methods("ranks-8"), rounds=2).cells())
    assert [(rate, seed, method.name) for rate, _, seed, method in cells[:3]] == [
        (100.0, 0, "gloo"), (100.0, 0, "ranks-8"), (1000.0, 0, "gloo"),
    ]  # fmt: skip
    assert len(cells) == len(set(cells)) == 8


def test_every_method_learns(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from wiresum.measure.bench import train_worker

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        for method in METHODS.values():
            torch.manual_seed(0)
            model = train_worker.network()
            optimizer = torch.optim.AdamW(model.parameters(), lr=train_worker.RATE)
            whole, block = train_worker.prepared(method, model, optimizer)
            order, losses = torch.Generator().manual_seed(0), []
            data = train_worker._corpus().train
            with block:
                for _ in range(2 * H):
                    optimizer.zero_grad()
                    loss = train_worker.loss_of(whole, data, order, train_worker.BATCH)
                    loss.backward()
                    optimizer.step()
                    losses.append(float(loss.detach()))
            assert losses[-1] < losses[0] - 0.5, method.name
            train_worker._KEPT.append((whole, block))
    finally:
        torch.distributed.destroy_process_group()


def test_a_process_of_the_trainings_that_has_ended_is_named_with_its_last_words(
    tmp_path: Path,
) -> None:
    trainings = Trainings("none", 2, 100.0, "none")
    trainings.folder = tmp_path
    trainings._log = tmp_path / "crew.log"
    trainings._log.write_text("MemoryError\n")
    trainings._crew = subprocess.Popen(
        [sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    trainings._crew.wait()
    with pytest.raises(RackError, match=r"the trainings' process.*MemoryError"):
        trainings.run({}, 0, Carrier.GLOO, 32, 1.0)
    trainings._end_crew()  # though an order is left


_FORKS = """
import os, sys, time
from wiresum.measure.bench import forks

def rank():
    print(os.environ["RANK"], flush=True)
    time.sleep(600)

forks.go_into = lambda _: None
print(forks.fork("none", {"RANK": "3"}, sys.argv[1], rank), flush=True)
time.sleep(600)
"""


def test_a_rank_ends_with_the_process_that_has_forked_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS, str(log)], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            rank = os.pidfd_open(int(parent.stdout.readline()))
            eventually(lambda: log.exists() and log.read_text() == "3\n", "the rank runs")
        finally:
            parent.send_signal(signal.SIGKILL)
    try:
        assert select.select([rank], [], [], 60)[0], "the rank goes on"
    finally:
        os.close(rank)


@pytest.fixture
def rack_name(cli: Commands) -> Iterator[str]:
    """The name of the bench's rack, which is gone afterwards."""
    if os.geteuid() != 0 or find_mininet.why_not() is not None:
        pytest.skip("needs root and Mininet")
    chosen = f"t{os.getpid()}"
    yield chosen
    cli.run("testbed", "down", "--name", chosen)
    assert namespaces(chosen) == []


@pytest.mark.root
def test_a_cell_is_trained_across_a_rack_and_not_again(
    cli: Commands, rack_name: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "times.json"
    command = [
        "bench", "train", "--rate", "100mbit", "--workers", "2", "--methods", "switch-8",
        "--rounds", "1", "--target", "3.6", "--json", str(file), "--append", "--name", rack_name,
    ]  # fmt: skip
    done = cli.run(*command, limit_s=380)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    gloo, switch = content["runs"]
    assert (gloo["method"], switch["method"]) == ("gloo", "switch-8")
    assert gloo["looks"][-1][1] <= 3.6
    assert switch["looks"][-1][1] <= 3.6
    # A float32 gradient of 1 MB goes out once in a ring of two; of 8-bit fields, a quarter.
    per_step = [each["sent"] / each["steps"] for each in (gloo, switch)]
    assert per_step[0] == pytest.approx(1.05e6, rel=0.1)
    assert per_step[0] / per_step[1] == pytest.approx(3.9, rel=0.15)
    again = cli.run(*command)
    assert again.returncode == 0, again.stderr
    assert json.loads(file.read_text()) == content
    assert again.stdout == done.stdout
