"""The hook that compresses DDP's gradients, over the ranks and over the switch; what it refuses."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.torchruns import clean_environment, fresh_session, spawn
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.exchange import NONFINITE, ZERO, choose
from wiresum.host_agent.hooks.rules import EXACT, Rule, read_policy, rule_for
from wiresum.host_agent.hooks.state import BlockFloat, TopK

SCRIPT = Path(__file__).with_name("compressed_training.py")
SHARDED = Path(__file__).with_name("sharded_training.py")
WORKERS = 3
CODECS = 14


def shown(folder: Path, env: dict[str, str], script: Path = SCRIPT) -> list[str]:
    folder.mkdir()
    ended = spawn(script, str(folder), workers=WORKERS, env=env)
    assert ended.status == 0, ended.output
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert sorted(found) == [str(rank) for rank in range(WORKERS)]
    assert len(set(found.values())) == 1
    return found["0"].splitlines()


def test_compressed_gradients_are_those_of_the_definition_over_ranks_and_switch(
    tmp_path: Path,
) -> None:
    ranks = shown(tmp_path / "ranks", clean_environment() | {"WIRESUM_CARRIER": "ranks"})
    assert len(ranks) == 11 + CODECS + 1
    with fresh_session() as session:
        assert shown(tmp_path / "switch", session.variables()) == ranks


def test_fsdp_with_codecs_has_the_weights_of_the_definition_over_ranks_and_switch(
    tmp_path: Path,
) -> None:
    ranks = shown(tmp_path / "ranks", clean_environment() | {"WIRESUM_CARRIER": "ranks"}, SHARDED)
    assert len(ranks) == 11 + 4 + 3
    with fresh_session() as session:
        assert shown(tmp_path / "switch", session.variables(), SHARDED) == ranks


@given(
    st.lists(st.lists(st.integers(-5, 5), max_size=12), min_size=1, max_size=5),
    st.floats(0.01, 1.0),
    st.randoms(),
)
def test_each_part_sends_its_largest_blocks_and_all_that_are_not_finite(
    parts: list[list[int]], share: float, random: object
) -> None:
    special = {-5: ZERO, 5: NONFINITE}
    words = [special.get(word, word) for part in parts for word in part]
    part_of = [at for at, part in enumerate(parts) for _ in part]
    first = [sum(map(len, parts[:at])) for at in range(len(parts))]
    quota = [Rule(share).blocks(len(part)) for part in parts]
    chosen = choose(
        torch.tensor(words, dtype=torch.int32), torch.tensor(part_of, dtype=torch.int64),
        torch.tensor(first), torch.tensor(quota),
    ).tolist()  # fmt: skip
    for start, part, most in zip(first, parts, quota, strict=True):
        mine = words[start : start + len(part)]
        best = sorted(range(len(part)), key=lambda at: (-mine[at], at))[:most]
        wanted = [
            word == NONFINITE or (at in best and word != ZERO) for at, word in enumerate(mine)
        ]
        assert chosen[start : start + len(part)] == wanted


def test_the_first_pattern_that_fits_gives_the_rule(tmp_path: Path) -> None:
    policy = {"*.bias": "exact", "<100": "bits=32", "embed*": "k=0.01, bits=16"}
    own = Rule(0.1, 8)
    assert rule_for("net.bias", (300,), policy, own) == EXACT
    assert rule_for("head", (9, 9), policy, own) == Rule(0.1, 32)
    assert rule_for("embedding", (500, 9), policy, own) == Rule(0.01, 16)
    assert rule_for("head", (10, 10), policy, own) == own
    file = tmp_path / "policy.toml"
    file.write_text('[policy]\n"*.bias" = "exact"\n"<100" = "bits=32"\n')
    assert list(read_policy(file).items()) == list(policy.items())[:2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0.0}, "k is 0; it must be above 0"),
        ({"k": float("nan")}, "k is nan"),
        ({"bits": 5}, "bits is 5; it must be 32, 16, 8 or 4"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be from 0 to 1"),
        ({"rounding": "up"}, "rounding is 'up'; it must be nearest or stochastic"),
        ({"momentum": 1.0}, "momentum is 1; it must be from 0 to below 1"),
        ({"momentum": 0.9, "feedback": False}, "momentum needs feedback"),
        ({"warmup": -1}, "warmup is -1; it must be a number of steps"),
        ({"seed": -1}, "seed is -1; it must be"),
        ({"seed": 0.5}, "seed is 0.5; it must be"),
        ({"decay": 1.5}, "decay is 1.5; it must be from 0 to 1"),
        ({"policy": {"<x": "exact"}}, "'<x' of a policy"),
        ({"policy": {"*": "most"}}, "'most' is neither exact nor"),
        ({"policy": {"*": "k=2"}}, "k is 2"),
        ({"bits": 32, "policy": {"*": "coding=thc"}}, "thc has fields of 16, 8 or 4 bits, not 32"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(CodecError, match=words):
        TopK(nn.Linear(2, 3), **options)  # type: ignore[arg-type]


def test_models_and_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="weight is float64 on cpu"):
        TopK(nn.Linear(2, 3).double())
    with pytest.raises(CodecError, match="weight is float32 on meta"):
        TopK(nn.Linear(2, 3, device="meta"))
    state = TopK(nn.Linear(2, 3))
    good = {"codec": "top-k", "workers": 2, "rank": 0, "residuals": {"weight": torch.ones(3, 2)}}
    state.load_state_dict(good)
    assert torch.equal(state.state_dict()["residuals"]["weight"], torch.ones(3, 2))
    for broken in (
        {}, good | {"codec": "other"}, good | {"residuals": {"weight": torch.ones(2, 3)}},
        good | {"residuals": {"other": torch.ones(3, 2)}}, good | {"workers": "x"},
        good | {"rank": float("inf")}, good | {"steps": {"weight": 1 << 31}},
    ):  # fmt: skip
        with pytest.raises(CodecError, match="not a state of top-k for this model"):
            state.load_state_dict(broken)
    with pytest.raises(CodecError, match="not a state of block-float"):
        BlockFloat(nn.Linear(2, 3)).load_state_dict(good)
    for path, why in ((tmp_path, "s a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(CodecError, match=f"cannot be read: .*{why}"):
            read_policy(path)
    (tmp_path / "bad.toml").write_text("policy = 3")
    with pytest.raises(CodecError, match=r"no TOML with \[policy\]"):
        read_policy(tmp_path / "bad.toml")
