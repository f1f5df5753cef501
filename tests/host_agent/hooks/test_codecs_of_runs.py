"""`wiresum run --codec` on a script that stays as it is; `wiresum codec list`."""

import json
from pathlib import Path

import pytest

import wiresum
from support.processes import Commands
from support.training import spawned
from wiresum.host_agent._engine import budget
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.catalogue import codecs
from wiresum.host_agent.hooks.formats import format_of
from wiresum.host_agent.hooks.rules import Coding, Rule
from wiresum.host_agent.remedies.spec import parse, whole

UNCHANGED = Path(__file__).parents[2] / "measure" / "trial" / "train.py"
BLOCKS = {"0.weight": 32, "0.bias": 1, "2.weight": 4, "2.bias": 1}
STEPS = 12


def test_a_run_puts_a_codec_on_an_unchanged_script(cli: Commands, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[policy]\n"*.bias" = "exact"\n"2.*" = "k=1"\n')
    done = cli.run(
        "run", "--as-default", "--carrier", "ranks", "--codec",
        f"top-k:k=0.25,bits=8,policy={policy}", "--", *spawned(2), str(UNCHANGED), "short",
        WIRESUM_DUMP=str(tmp_path / "{rank}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = json.loads((tmp_path / "0").read_text())["ranks_bytes"] / STEPS
    codes = 4 * sum(BLOCKS.values())
    lanes = 256 * (32 / 4 + 4) + 4 * (128 + 8)
    assert codes + lanes < sent <= codes + lanes + 4 * 4  # a word more in each bucket


def test_the_list_says_bytes_levels_and_errors(cli: Commands) -> None:
    done = cli.run("codec", "list", "--workers", "8", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["block-float:bits=8"]["level"] == budget(8, 8)
    assert rows["block-float:bits=8"]["bytes_per_element"] == 1 + 1 / 64
    assert rows["top-k:k=0.1,bits=8"]["bytes_per_element"] == pytest.approx(0.1 + 1 / 64)
    assert rows["block-float:bits=4"]["level"] is None  # 8 ranks are one too many
    assert rows["vote"]["bytes_per_element"] == 32 * 4 / 256 + 1 / 64  # sums up to 8: 4 bits
    assert rows["ternary"]["bytes_per_element"] == 43 * 4 / 256 + 1 / 64  # 5 bits, 6 to a lane
    assert [row["level"] for row in rows.values()] == [row.level for row in wiresum.codecs(8)]
    for name in rows:
        assert parse(name)
    shown = cli.run("codec", "list", "--workers", "200")
    assert "no budget for so many workers" in shown.stdout


@pytest.mark.parametrize("coding", [Coding.FLOAT, Coding.THC])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_list_has_a_level_where_the_codec_works(bits: int, coding: Coding) -> None:
    name = {Coding.FLOAT: "block-float", Coding.THC: "thc"}[coding]
    for workers in (1, 2, 7, 8, 15, 16, 64, 127, 128, 255, 256):
        (row,) = [each for each in codecs(workers) if each.name == f"{name}:bits={bits}"]
        try:
            format_of(Rule(bits=bits, coding=coding), workers, feedback=True)
        except CodecError:
            assert (row.level, row.error) == (None, "no budget for so many workers")
        else:
            assert row.level is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best", "there is no codec 'best'; there are fp16, powersgd"),
        ("fp16:k=1", "fp16 cannot be given 'k=1'; its options: none"),
        ("top-k:k=much", "top-k cannot be given 'k=much'; its options: k, threshold, warmup"),
        ("top-k:threshold=2", "threshold is 2"),
        ("top-k:momentum=1", "momentum is 1"),
        ("ternary:rounding=up", "rounding is 'up'"),
        ("thc:bits=32", "thc has fields of 16, 8 or 4 bits"),
        ("top-k:feedback=maybe", "cannot be given 'feedback=maybe'"),
        ("top-k:k=2", "k is 2"),
        ("block-float:bits=5", "bits is 5"),
        ("vote:bits=8", "vote cannot be given 'bits=8'"),
        ("block-float:policy=none.toml", "none.toml cannot be read"),
        ("diloco:h=0", "diloco cannot be given 'h=0'; its options: h, bits, lr, momentum"),
        ("diloco:lr=0", "diloco cannot be given 'lr=0'"),
        ("diloco:lr=inf", "diloco cannot be given 'lr=inf'"),
        ("diloco:momentum=1", "momentum is 1"),
    ],
)
def test_codecs_that_cannot_be_are_refused_before_the_run(text: str, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        whole(text)


def test_a_refused_codec_ends_the_command_in_one_line(cli: Commands) -> None:
    done = cli.run("run", "--codec", "best", "--", "true")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "there is no codec 'best'" in done.stderr
