"""What ranks agree on before they sum chosen blocks; sums that never carry, and lose nothing."""

import contextlib

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.host_agent import _engine
from wiresum.host_agent.errors import CodecError, EngineError
from wiresum.host_agent.hooks.exchange import Course, Exchange, Part
from wiresum.host_agent.hooks.formats import format_of
from wiresum.host_agent.hooks.rules import Coding, Rounding, Rule

COUNT = 1000


@pytest.mark.parametrize(
    ("other", "course"),
    [
        (Part(COUNT, Rule(0.5, 8), True), Course()),
        (Part(COUNT, Rule(0.1, 16), True), Course()),
        (Part(COUNT, Rule(0.1, 8), False), Course()),
        (Part(COUNT, Rule(0.1, 8), True, key=7), Course()),
        (Part(COUNT, Rule(0.1, 8), True), Course(decay=0.9)),
        (Part(COUNT, Rule(0.1, 8), True), Course(warmup=5)),
        (Part(COUNT, Rule(0.1, 8), True), Course(seed=5)),
    ],
    ids=["k", "bits", "feedback", "name", "decay", "warmup", "seed"],
)
def test_ranks_with_different_rules_all_get_an_error(
    other: Part, course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [Exchange([Part(COUNT, Rule(0.1, 8), True)], 2), Exchange([other], 2, course)]
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", lambda words, *_, **__: sent.append(words))
    for rank in ranks:
        rank.begin([torch.ones(COUNT)], None)
    most = torch.maximum(*sent)
    for rank, words in zip(ranks, sent, strict=True):
        words.copy_(most)
        with pytest.raises(CodecError, match="differ in k, bits"):
            rank.send(None)


NARROW = [
    Rule(bits=4), Rule(bits=8), Rule(bits=16), Rule(bits=4, rounding=Rounding.STOCHASTIC),
    Rule(bits=8, rounding=Rounding.STOCHASTIC), Rule(0.3, 8), Rule(0.3, 4), Rule(1.0, 8, 0.7),
    *(Rule(coding=coding, rounding=how) for coding in (Coding.TERNARY, Coding.VOTE)
      for how in Rounding),
    Rule(bits=8, coding=Coding.THC), Rule(bits=4, coding=Coding.THC),
]  # fmt: skip


def fields(lanes: torch.Tensor, bits: int) -> torch.Tensor:
    """All whole fields of lanes, one row for each place in a lane."""
    wide = lanes.to(torch.int64) & 0xFFFFFFFF
    return torch.stack([wide >> at * bits & (1 << bits) - 1 for at in range(32 // bits)])


@settings(max_examples=examples(40))
@given(
    st.integers(1, 64), st.sampled_from(NARROW), st.booleans(), st.sampled_from([0.0, 0.9]),
    st.integers(0, 3), st.integers(0, (1 << 31) - 1),
)  # fmt: skip
def test_no_sum_carries_and_nothing_is_lost(
    workers: int, rule: Rule, feedback: bool, momentum: float, warmup: int, seed: int
) -> None:
    parts = [Part(count, rule, feedback, key) for key, count in enumerate((700, 256, 3))]
    course = Course(momentum=momentum, warmup=warmup, seed=seed)
    if rule.bits == 4 and workers > 7 and rule.coding in (Coding.FLOAT, Coding.THC):
        narrowest = 8 if workers <= 127 else 16
        with pytest.raises(CodecError, match=f"the narrowest field that works is {narrowest}"):
            Exchange(parts, workers, course)
        return
    how = format_of(rule, workers, feedback)
    ranks = [Exchange(parts, workers, course, rank=rank) for rank in range(workers)]
    generator = torch.Generator().manual_seed(seed)
    given_, got = torch.zeros(959, dtype=torch.float64), torch.zeros(959, dtype=torch.float64)
    for _ in range(2):
        tensors = [[torch.randn(part.count, generator=generator) for part in parts] for _ in ranks]
        mean = torch.stack([torch.cat(own) for own in tensors]).double().mean(0)
        words = torch.stack([one.take(own) for one, own in zip(ranks, tensors, strict=True)])
        lanes = torch.stack([one.chosen(words.amax(0)) for one in ranks])
        total = lanes.sum(0, dtype=torch.int32)
        assert torch.equal(
            fields(total, how.bits), torch.stack([fields(e, how.bits) for e in lanes]).sum(0)
        )
        for one, own in zip(ranks, tensors, strict=True):
            one.keep()
            one.give(total, own)
        for own in tensors[1:]:
            assert all(torch.equal(a, b) for a, b in zip(own, tensors[0], strict=True))
        given_ += mean
        got += torch.cat(tensors[0]).double()
    if feedback and not momentum:
        kept = torch.stack(
            [torch.cat([one.residual(at) for at in range(len(parts))]).double() for one in ranks]
        ).mean(0)
        torch.testing.assert_close(got + kept, given_, rtol=0, atol=2e-5)


def test_momentum_goes_into_what_is_kept_until_a_block_is_sent() -> None:
    one = Exchange([Part(512, Rule(0.5, 32), True)], 1, Course(momentum=0.5))
    small, large = torch.ones(256), torch.full((256,), 8.0)
    found = []
    for _ in range(3):
        tensors = [torch.cat([small, large])]
        words = one.take(tensors)
        lanes = one.chosen(words)
        one.keep()
        one.give(lanes, tensors)
        found.append(tensors[0][[0, 256]].tolist())
    # The large block is sent each time, and its momentum begins anew.
    assert found == [[0.0, 8.0]] * 3
    velocity = one.velocity(0)
    assert velocity is not None
    assert velocity[[0, 256]].tolist() == [1.75, 0.0]
    assert one.residual(0)[[0, 256]].tolist() == [1 + 1.5 + 1.75, 0.0]


RULES = st.sampled_from([*NARROW, Rule(), Rule(bits=16)])


def exchanged(ranks: list[Exchange], given_: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """The means of all ranks, which are alike."""
    words = torch.stack([one.take(own) for one, own in zip(ranks, given_, strict=True)])
    lanes = torch.stack([one.chosen(words.amax(0)) for one in ranks])
    for one, own in zip(ranks, given_, strict=True):
        one.keep()
        one.give(lanes.sum(0, dtype=torch.int32), own)
    return given_[0]


@pytest.mark.parametrize("rule", [*NARROW, Rule(), Rule(bits=16)], ids=repr)
def test_every_codec_has_the_same_bits_in_every_instruction_set(rule: Rule) -> None:
    best = _engine.isa()
    found = {}
    try:
        for name in ("avx512", "avx2", "baseline"):
            with contextlib.suppress(EngineError):
                _engine.set_isa(name)
                found[name] = _bits_of(rule)
    finally:
        _engine.set_isa(best)
    assert "baseline" in found
    assert len(set(found.values())) == 1, found.keys()


def _bits_of(rule: Rule) -> bytes:
    """Words, lanes, means and residuals of two steps of three ranks."""
    parts = [Part(count, rule, True, key) for key, count in enumerate((700, 256, 3))]
    ranks = [Exchange(parts, 3, rank=rank) for rank in range(3)]
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(2):
        given_ = [
            [torch.randn(part.count, generator=generator).mul_(10.0**power) for part in parts]
            for power in (-39, 0, 3)
        ]
        words = torch.stack([one.take(own) for one, own in zip(ranks, given_, strict=True)])
        lanes = torch.stack([one.chosen(words.amax(0)) for one in ranks])
        made += [words, lanes]
        for one, own in zip(ranks, given_, strict=True):
            one.keep()
            one.give(lanes.sum(0, dtype=torch.int32), own)
        made += [torch.cat(given_[0])]
        made += [one.residual(at).clone() for one in ranks for at in range(len(parts))]
    return b"".join(each.numpy().tobytes() for each in made)


@settings(max_examples=examples(25))
@given(RULES, st.booleans(), st.sampled_from([0.0, 0.9]), st.sampled_from([1.0, 0.5]))
def test_a_step_that_fails_between_codes_and_sum_leaves_nothing_behind(
    rule: Rule, feedback: bool, momentum: float, decay: float
) -> None:
    parts = [Part(count, rule, feedback, key) for key, count in enumerate((700, 256, 3))]
    course = Course(decay=decay, momentum=momentum)
    ranks, twins = ([Exchange(parts, 3, course, rank=rank) for rank in range(3)] for _ in "12")
    generator = torch.Generator().manual_seed(1)
    for number in range(3):
        given_ = [[torch.randn(part.count, generator=generator) for part in parts] for _ in ranks]
        if number == 1:
            for one in ranks:  # a step that ends here, for one of them after the codes
                words = one.take([torch.full((part.count,), 9.0) for part in parts])
            ranks[2].chosen(words)
        wanted = exchanged(twins, [[each.clone() for each in own] for own in given_])
        for found, each in zip(exchanged(ranks, given_), wanted, strict=True):
            assert torch.equal(found, each)


@settings(max_examples=examples(20))
@given(RULES, st.booleans(), st.integers(1, 4), st.sampled_from([20, 99, 100, 116, 126]))
def test_gradients_near_the_largest_float_are_summed_as_small_ones_are(
    rule: Rule, feedback: bool, workers: int, power: int
) -> None:
    generator = torch.Generator().manual_seed(power)
    given_ = [
        [torch.randn(count, generator=generator).clamp_(-1.9, 1.9) for count in (700, 256)]
        for _ in range(workers)
    ]
    huge = [[each * 2.0**power for each in own] for own in given_]
    parts = [Part(count, rule, feedback, key) for key, count in enumerate((700, 256))]
    one, two = ([Exchange(parts, workers, rank=rank) for rank in range(workers)] for _ in "12")
    for small, large in zip(exchanged(one, given_), exchanged(two, huge), strict=True):
        most = torch.finfo(torch.float32).max
        assert torch.equal((small.double() * 2.0**power).clamp_(-most, most).float(), large)


def test_a_warm_up_sends_all_blocks_first_and_ever_fewer_then() -> None:
    one = Exchange([Part(256 * 100, Rule(0.01, 8), True)], 1, Course(warmup=2))
    sent = []
    for _ in range(4):
        tensors = [torch.arange(25600.0) + 1]
        words = one.take(tensors)
        lanes = one.chosen(words)
        one.keep()
        sent.append((lanes.numel() - 1) // 64)
        one.give(lanes, tensors)
    assert sent == [100, 10, 1, 1]


def test_a_rank_that_begins_later_takes_up_the_step_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks = [Exchange([Part(COUNT, Rule(0.1, 8), True)], 2, Course(warmup=9)) for _ in "12"]
    ranks[0].step = 7
    words: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", lambda words_, *_, **__: words.append(words_))
    for rank in ranks:
        rank.begin([torch.ones(COUNT)], None)
    most = torch.maximum(*words)
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: object())
    for rank, own in zip(ranks, words, strict=True):
        own.copy_(most)
        rank.send(None)
        assert rank.step == 8


@given(
    st.lists(st.integers(-2, 40), min_size=1, max_size=20), st.floats(0.0, 1.0), st.integers(0, 5)
)
def test_a_threshold_sends_the_blocks_that_reach_their_part_of_the_largest(
    sizes: list[int], threshold: float, seed: int
) -> None:
    values = torch.tensor([2.0**size if size >= -1 else 0.0 for size in sizes])
    one = Exchange([Part(256 * len(sizes), Rule(1.0, 8, threshold), False)], 1, Course(seed=seed))
    tensors = [values.repeat_interleave(256)]
    lanes = one.chosen(one.take(tensors))
    sent = int((values >= torch.tensor(threshold) * values.max()).logical_and(values > 0).sum())
    assert lanes.numel() == 64 * sent + 1
