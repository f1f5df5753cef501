"""The benchmarks' parts that need neither root nor a network."""

import json
from pathlib import Path

import numpy as np
import pytest

from wiresum.host_agent import _engine
from wiresum.measure.bench import _codec, allreduce, cases, data, results
from wiresum.measure.bench.cases import Case, Options, Side
from wiresum.measure.model import limits
from wiresum.testbed.errors import RackError, RackUsageError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("payload", "mtu", "headers", "wire"),
    [
        (1444, 1500, 36, 1514),  # one full frame
        (1445, 1500, 36, 1445 + 2 * 70),  # one byte more: another frame's headers
        (1, 1500, 36, 71),
        (0, 1500, 36, 0),
        (1448, 1500, 32, 1514),  # TCP with timestamps
        (8944, 9000, 36, 9014),
    ],
)
def test_framing(payload: int, mtu: int, headers: int, wire: int) -> None:
    assert limits.framed(payload, mtu, headers) == wire


def test_limits_of_both_sides() -> None:
    size = 25 * MIB
    whole = limits.wiresum_bytes(size, 32)
    assert whole == size + -(-size // 1444) * 70
    assert limits.wiresum_bytes(size, 16) == pytest.approx(whole / 2, rel=1e-5)
    assert limits.wiresum_bytes(size, 8) == pytest.approx(whole / 4, rel=1e-5)
    assert limits.wiresum_bytes(size, 32, mtu=9000) < whole
    for workers in (2, 4, 8):
        ring = limits.ring_bytes(size, workers)
        payload = 2 * (workers - 1) / workers * size
        assert ring == pytest.approx(payload * 1514 / 1448, rel=1e-4)
    assert limits.seconds(125e6, 1000) == pytest.approx(1.0)


def test_samples_are_long_enough_for_their_shaper() -> None:
    for size in (64 << 10, MIB, 4 * MIB, 25 * MIB):
        for field in (32, 16, 8):
            side = Side(field=field)
            case = Case(1000.0, None, 4, size)
            wire = case.ops(side) * case.least_bytes(side)
            capped = case.ops(side) * size > 60 * MIB or case.ops(side) == 512
            assert wire >= 100 * cases.TRAIN or capped, (size, field)
    assert Case(100.0, None, 8, 100 * MIB).ops(Side(tcp="cubic")) == 1
    assert Case(None, None, 4, 64 << 10).ops(Side(field=32)) > 100


def test_options_as_users_write_them() -> None:
    assert cases.parse_workers("2,4,8") == (2, 4, 8)
    assert cases.parse_sizes("64KiB, 25mib,8b") == (64 << 10, 25 * MIB, 8)
    assert cases.parse_rates("100mbit,1gbit,none") == (100.0, 1000.0, None)
    assert cases.parse_losses("none,0,0.1%") == (None, 0.0, 0.001)
    assert cases.parse_fields("8,32") == (8, 32)
    assert cases.parse_tcp("") == cases.parse_tcp(cases.parse_tcp("")[0])


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (cases.parse_workers, "1"),
        (cases.parse_workers, "2,,4"),
        (cases.parse_workers, "2,2"),
        (cases.parse_sizes, "3b"),
        (cases.parse_sizes, "25MB"),
        (cases.parse_sizes, "5GiB"),
        (cases.parse_rates, "fast"),
        (cases.parse_rates, "1bit"),
        (cases.parse_losses, "100%"),
        (cases.parse_fields, "4"),
        (cases.parse_tcp, "nosuch"),
    ],
)
def test_unusable_options_are_refused(parse, text: str) -> None:
    with pytest.raises(RackUsageError) as caught:
        parse(text)
    assert len(str(caught.value).splitlines()) == 1
    assert "--" in str(caught.value)


def test_a_round_has_gloo_in_the_middle() -> None:
    sides = Options(tcp=("cubic", "bbr")).sides
    assert [side.key for side in sides] == ["32", "gloo-cubic", "16", "gloo-bbr", "8"]
    assert [Side.of(side.key) for side in sides] == sides
    assert Options(fields=(8,), tcp=("bbr",)).sides == [Side(field=8), Side(tcp="bbr")]


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    bench = allreduce.Bench(Options(name="nobody"), print, lambda: None)
    with pytest.raises(RackError, match="as root"):
        bench.run()


# ---- checking results

WORKERS = 3
KEY = (7, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> data.Data:
    path = tmp_path_factory.mktemp("bench") / "data"
    data.make(path, 100_000, seed=1)
    return data.Data(path)


def contributions(made: data.Data, count: int, integers: bool) -> list[data.Floats]:
    out = [np.empty(count, np.float32) for _ in range(WORKERS)]
    for rank, mine in enumerate(out):
        made.contribution(KEY, rank, 0, mine, integers)
    return out


def over_the_codec(tensors: list[data.Floats], field: int) -> data.Floats:
    """The sum as the switch and the engines make it."""
    codes = np.max([_engine.exponents(each, "float32") for each in tensors], axis=0)
    lanes = [_engine.encode(each, "float32", codes, WORKERS, field) for each in tensors]
    result = np.empty_like(tensors[0])
    _engine.decode(sum(lanes), result, "float32", codes, WORKERS, field)
    return result


@pytest.mark.parametrize("count", [1, 255, 70_001])
@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("field", [32, 16, 8])
def test_what_the_codec_makes_is_right(
    made: data.Data, field: int, integers: bool, count: int
) -> None:
    level = _engine.budget(WORKERS, field)
    tensors = contributions(made, count, integers)
    result = over_the_codec(tensors, field)
    made.check(KEY, WORKERS, result, integers, field, level)
    if integers and field == 32:
        assert np.array_equal(result, sum(tensors))


def test_float_sums_are_right_in_any_order(made: data.Data) -> None:
    first, second, third = contributions(made, 5000, integers=False)
    made.check(KEY, WORKERS, (third + first) + second, False, None)
    made.check(KEY, WORKERS, first + (second + third), False, None)


def spoilt(made: data.Data, field: int) -> list[tuple[str, data.Floats]]:
    tensors = contributions(made, 5000, integers=False)
    good = over_the_codec(tensors, field)
    out = []
    for what in ("one element", "not a number", "stale", "one rank missing", "own tensor"):
        bad = good.copy()
        if what == "one element":
            block = np.abs(tensors).max(axis=0)[-136:].max()
            step = block / _engine.budget(WORKERS, field)
            bad[-1] += max(np.float32(2 * WORKERS * step), np.spacing(np.abs(bad[-1])) * 32)
        elif what == "not a number":
            bad[17] = np.nan
        elif what == "stale":
            others = [np.empty_like(good) for _ in range(WORKERS)]
            for rank, each in enumerate(others):
                made.contribution((KEY[0] - 1, KEY[1]), rank, 0, each, False)
            bad = over_the_codec(others, field)
        elif what == "one rank missing":
            bad = bad - tensors[1]
        else:
            bad = tensors[0].copy()
        out.append((what, bad))
    return out


@pytest.mark.parametrize("field", [32, 16, 8])
def test_wrong_results_are_found(made: data.Data, field: int) -> None:
    level = _engine.budget(WORKERS, field)
    passed = []
    for what, bad in spoilt(made, field):
        try:
            made.check(KEY, WORKERS, bad, False, field, level)
            passed.append(what)
        except data.WrongResult:
            continue
    assert passed == []


def test_integers_must_be_exact(made: data.Data) -> None:
    result = np.sum(contributions(made, 5000, integers=True), axis=0, dtype=np.float32)
    level = _engine.budget(WORKERS, 32)
    made.check(KEY, WORKERS, result, True, 32, level)
    result[4999] += np.float32(1)
    for field in (32, None):
        with pytest.raises(data.WrongResult, match="4999"):
            made.check(KEY, WORKERS, result, True, field, level)


def test_no_two_contributions_are_alike(made: data.Data) -> None:
    seen = []
    for key in ((1, 0), (1, 1), (2, 0)):
        for rank in range(WORKERS):
            out = np.empty(2000, np.float32)
            made.contribution(key, rank, 0, out, False)
            assert out.all()
            seen.append(out.tobytes())
    assert len(set(seen)) == len(seen)


def test_a_part_of_a_contribution_is_the_part(made: data.Data) -> None:
    whole, part = np.empty(3000, np.float32), np.empty(1000, np.float32)
    made.contribution(KEY, 1, 0, whole, False)
    made.contribution(KEY, 1, 2000, part, False)
    assert np.array_equal(whole[2000:], part)


# ---- what the samples say


def sample(seconds: float, sent: float = 1e6) -> dict[str, object]:
    return {
        "ops": 1, "seconds": seconds, "sent": [sent, sent / 2], "received": [sent, sent],
        "cpu": {"workers": [0.1, 0.3], "switch": 0.2, "machine": 1.0},
        "retransmissions": 0, "lost": 0, "now": {},
    }  # fmt: skip


def test_ratios_and_shares() -> None:
    entry = {
        "rate_mbit": 1000.0, "loss": None, "workers": 2, "size": 25 * MIB,
        "samples": {
            "8": [sample(0.05), sample(0.06), sample(0.1)],
            "gloo-bbr": [sample(0.5), sample(0.6), sample(0.55)],
            "gloo-cubic": [sample(0.4), sample(0.3), sample(0.5)],
            "32": [sample(0.25), sample(0.25), sample(0.2)],
        },
    }  # fmt: skip
    found = results.lines_of(entry, 1500)
    assert [str(line.side) for line in found] == ["F = 32", "F = 8", "gloo, bbr", "gloo, cubic"]
    wide, narrow, *gloo = found
    assert wide.ratio is not None
    assert wide.ratio.median == pytest.approx(0.4 / 0.25)  # by the faster of gloo's
    assert (wide.ratio.low, wide.ratio.high) == pytest.approx((0.3 / 0.25, 0.5 / 0.2))
    assert [line.ratio for line in gloo] == [None, None]
    assert wide.sent == 1e6
    assert wide.cpu_worker == pytest.approx(0.2)
    limit = limits.seconds(limits.wiresum_bytes(25 * MIB, 8), 1000)
    assert narrow.limit_s == pytest.approx(limit)
    assert narrow.share == pytest.approx(limit / 0.06)
    free = results.lines_of({**entry, "rate_mbit": None}, 1500)[0]
    assert free.limit_s is None
    assert free.share is None


def test_the_engine_is_timed_against_memcpy() -> None:
    from wiresum.measure.bench import engine

    isas = engine.available()
    assert isas[-1] == "baseline"
    before = _codec.isa()
    entries = list(engine.measure(isas[:1], [16], workers=4, size=1 << 16, rounds=3))
    assert _codec.isa() == before
    assert [entry["dtype"] for entry in entries] == list(engine.DTYPES)
    for entry in entries:
        assert all(len(seconds) == 3 for seconds in entry["seconds"].values())
        for part in engine.COPIES:
            assert engine.ratio(entry, part).low > 0


def test_every_codec_of_gradients_is_timed_with_every_instruction_set(cli, tmp_path: Path) -> None:
    from wiresum.host_agent import _engine
    from wiresum.measure.bench import codecs, engine
    from wiresum.measure.report import markdown

    four, many = codecs.chosen("all", 4), codecs.chosen("all", 40)
    assert {"ternary", "vote", "thc:bits=4", "block-float:bits=4", "top-k:k=0.1,bits=8"} < set(four)
    assert "block-float:bits=8,rounding=stochastic" in four
    assert "fp16" not in four
    assert "thc:bits=4" not in many
    before = _engine.isa()
    entries = list(codecs.measure(four, engine.available()[-1:], 4, 1 << 14, 2))
    assert [each["codec"] for each in entries] == four
    assert _engine.isa() == before
    for each in entries:
        assert all(len(seconds) == 2 for seconds in each["seconds"].values())
        assert codecs.speed(each, "encode", 1 << 14) > 0

    done = cli.run(
        "bench", "engine", "--field", "32", "--size", "64KiB", "--repeat", "2", "--codec",
        "ternary; top-k:k=0.2,bits=4", "--json", "engine.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "engine.json").read_text())
    assert {each["codec"] for each in made["codecs"]} == {"ternary", "top-k:k=0.2,bits=4"}
    assert {each["isa"] for each in made["codecs"]} == set(engine.available())
    page = markdown.codecs_of_gradients(made)
    assert page.count("| ternary |") == len(engine.available())
    for codec, words in (("best", "there is no codec 'best'"), ("fp16", "fp16 has no lanes")):
        refused = cli.run("bench", "engine", "--codec", codec)
        assert refused.returncode != 0
        assert words in refused.stderr


def test_the_page_of_codecs_has_the_table_of_the_kept_run() -> None:
    from wiresum.measure.report import markdown

    docs = Path(__file__).parents[3] / "docs"
    kept = json.loads((docs / "codecs" / "engine.json").read_text())
    assert markdown.codecs_of_gradients(kept) in (docs / "codecs.md").read_text()


def test_the_switch_in_memory_counts_what_it_does(tmp_path: Path) -> None:
    from wiresum.measure.bench.memory import InMemory

    switch = InMemory(lanes=64, workers=3, slots=8)
    assert switch.contributions == 3 * 8 * 3
    assert switch.seconds(1) > 0
    assert switch.seconds(4) > 0  # chunk numbers that went round are new again
    wrong = InMemory(lanes=64, workers=3, slots=8)
    wrong._frames = wrong._frames[:24] * 3  # repeats: nothing to add any more
    with pytest.raises(RackError, match="something else"):
        wrong.seconds(1)


def test_the_ranks_are_sides_of_their_own() -> None:
    options = Options(fields=(32, 8), tcp=("bbr",), carriers=cases.parse_carriers("switch,ranks"))
    assert options.sides == [
        Side(32), Side(tcp="bbr"), Side(8), Side(32, transport="ranks"), Side(8, transport="ranks")
    ]  # fmt: skip
    side = Side(8, transport="ranks")
    assert (side.key, str(side), Side.of(side.key)) == ("8-ranks", "F = 8, the ranks", side)
    case = Case(1000.0, None, 4, 4 * MIB)
    assert case.least_bytes(side) == Case(1000.0, None, 4, MIB).least_bytes(Side(tcp="bbr"))
    with pytest.raises(RackUsageError, match="must be switch or ranks"):
        cases.parse_carriers("gloo")
