"""Sums over the ranks by gloo: by its ring, and directly, the same integers on all ranks."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from wiresum.host_agent.agent.sums import Copy
from wiresum.host_agent.backend.gloo_sums import FEW_BYTES, GlooSums

LIMIT_S = 120.0


class Ranks:
    """Ranks that are threads of this process, each with a gloo group of its own."""

    def __init__(self, count: int, direct: int) -> None:
        self.count = count
        self._threads = ThreadPoolExecutor(count)
        store = dist.HashStore()

        def made(rank: int) -> GlooSums:
            def group() -> Any:
                return dist.ProcessGroupGloo(store, rank, count, timedelta(seconds=LIMIT_S))

            return GlooSums(group, count, LIMIT_S, direct)

        self.sums = list(self._threads.map(made, range(count)))

    def all(self, do: Callable[[int], Any]) -> list[Any]:
        """What it returns on each rank, all ranks at a time."""
        return list(self._threads.map(do, range(self.count)))

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture(params=[(1, 16), (2, 16), (3, 16), (5, 16), (3, 2)], ids=str)
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    ranks = Ranks(*request.param)
    yield ranks
    ranks.close()


COUNTS = (1, 2, 5, 1026, FEW_BYTES // 4, FEW_BYTES // 4 + 1, 30_011)


def test_words_are_on_the_cpu_whatever_the_default_device_is(ranks: Ranks) -> None:
    def largest(rank: int) -> tuple[list[int], list[int], int]:
        with torch.device("meta"):
            sums = ranks.sums[rank]
            words = sums.words(3)
            words.put(1, [rank, 7])
            return sums.largest([rank, 5]), words.get(0, 3), words.address

    for rank, (most, words, address) in enumerate(ranks.all(largest)):
        assert most == [ranks.count - 1, 5]
        assert words == [0, rank, 7]
        assert address != 0


def test_sums_wrap_and_maxima_are_signed(ranks: Ranks) -> None:
    random = np.random.default_rng(1)
    for count in COUNTS:
        values = random.integers(-(2**31), 2**31, (2, ranks.count, count), dtype=np.int32)
        total = values[0].astype(np.int64).sum(axis=0).astype(np.int32)
        largest = values[1].max(axis=0)

        def summed(rank: int, values: Any = values, count: int = count) -> list[list[int]]:
            sums = ranks.sums[rank]
            words = [sums.words(count + 1), sums.words(count + 1)]
            for each, mine in zip(words, values, strict=True):
                each.put(0, [*mine[rank].tolist(), 7])
            pending = [words[0].total(count), words[1].maximum(count)]
            for each in reversed(pending):
                each.wait()
            return [each.get(0, count + 1) for each in words]

        for totals, maxima in ranks.all(summed):
            assert totals == [*total.tolist(), 7], count
            assert maxima == [*largest.tolist(), 7], count


def test_large_numbers_keep_all_their_bits(ranks: Ranks) -> None:
    expected = [2**62 + ranks.count - 1, -(2**62)]
    found = ranks.all(lambda rank: ranks.sums[rank].largest([2**62 + rank, -(2**62) - rank]))
    assert found == [expected] * ranks.count


@pytest.mark.parametrize("ranks", [(2, 16)], indirect=True, ids=str)
def test_two_ranks_exchange_few_words_directly_and_many_over_the_ring(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange of many fills one direction of the link at a time."""
    exchanged: list[int] = []
    original = GlooSums.exchange

    def exchange(self: GlooSums, gives: Any, gets: Any) -> Any:
        exchanged.append(gives.nbytes // 2)
        return original(self, gives, gets)

    monkeypatch.setattr(GlooSums, "exchange", exchange)
    for count in (FEW_BYTES // 4, FEW_BYTES // 4 + 1):
        ranks.all(lambda rank, count=count: ranks.sums[rank].words(count).total(count).wait())
    assert exchanged == [FEW_BYTES, FEW_BYTES]


def test_each_rank_gets_the_sum_of_the_words_that_are_for_it(ranks: Ranks) -> None:
    random = np.random.default_rng(2)
    for most in (1, 3, 30_011):
        counts = [int(each) for each in random.integers(0, most + 1, ranks.count)]
        values = random.integers(-(2**31), 2**31, (ranks.count, sum(counts)), dtype=np.int32)
        total = values.astype(np.int64).sum(axis=0).astype(np.int32)

        def summed(rank: int, values: Any = values, counts: Any = counts) -> list[int]:
            gives, got = (ranks.sums[rank].words(size) for size in (sum(counts) + 1, 200_000))
            gives.put(0, values[rank].tolist())
            gives.scattered(counts, got).wait()
            return got.get(0, counts[rank])

        found = ranks.all(summed)
        assert [each for part in found for each in part] == total.tolist(), counts


def test_copies_go_to_their_readers_and_nowhere_else(ranks: Ranks) -> None:
    everybody = range(ranks.count)
    others = [tuple(r for r in everybody if r != source) for source in everybody]
    kinds = {
        "all_gather": [(source, others[source]) for source in everybody],
        "broadcast": [(0, others[0])],
        "gather": [(source, (0,)) for source in others[0]],
        "scatter": [(0, (reader,)) for reader in others[0]],
    }
    for name, routes in kinds.items():
        for size in (0, 1, 100_003):

            def copied(rank: int, routes: Any = routes, size: int = size) -> list[set[int]]:
                memory = [np.full(size, 10 * rank + 1, np.uint8) for _ in routes]
                copies = [
                    Copy(each.ctypes.data, size, source, readers)
                    for each, (source, readers) in zip(memory, routes, strict=True)
                ]
                ranks.sums[rank].copy(copies).wait()
                return [set(each.tolist()) for each in memory]

            for rank, found in enumerate(ranks.all(copied)):
                for values, (source, readers) in zip(found, routes, strict=True):
                    wanted = source if rank in readers else rank
                    assert values == ({10 * wanted + 1} if size else set()), (name, size, rank)
