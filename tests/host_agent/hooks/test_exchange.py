"""What ranks agree on before they sum chosen blocks."""

import pytest
import torch
import torch.distributed as dist

from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.exchange import Exchange, Part
from wiresum.host_agent.hooks.rules import Rule

COUNT = 1000


@pytest.mark.parametrize(
    ("other", "decay"),
    [
        (Part(COUNT, Rule(0.5, 8), True), 1.0),
        (Part(COUNT, Rule(0.1, 16), True), 1.0),
        (Part(COUNT, Rule(0.1, 8), False), 1.0),
        (Part(COUNT, Rule(0.1, 8), True), 0.9),
    ],
    ids=["k", "bits", "feedback", "decay"],
)
def test_ranks_with_different_rules_all_get_an_error(
    other: Part, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [Exchange([Part(COUNT, Rule(0.1, 8), True)], 2), Exchange([other], 2, decay)]
    given: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", lambda words, *_, **__: given.append(words))
    for rank in ranks:
        rank.begin([torch.ones(COUNT)], None)
    most = torch.maximum(*given)
    for rank, words in zip(ranks, given, strict=True):
        words.copy_(most)
        with pytest.raises(CodecError, match="differ in k, bits"):
            rank.send(None)
