"""Which collectives leave torch's dispatcher out: those on which nothing there would look."""

from pathlib import Path

import pytest
import torch
from torch.profiler import ExecutionTraceObserver
from torch.utils._python_dispatch import TorchDispatchMode

from wiresum.host_agent.backend import dispatch
from wiresum.host_agent.backend.dispatch import _unseen


class Looks(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Own(torch.Tensor):
    pass


def test_ordinary_tensors_leave_it_out() -> None:
    plain = torch.ones(3)
    weight = torch.nn.Parameter(torch.ones(3))
    with torch.inference_mode():
        inferred = torch.ones(3)
        assert _unseen([[inferred], plain])
    assert _unseen([])
    assert _unseen([[plain, weight], inferred])
    with torch.no_grad():
        assert _unseen([weight])


def test_what_would_be_seen_goes_through_it() -> None:
    plain = torch.ones(3)
    assert not _unseen([plain.as_subclass(Own)])
    assert not _unseen([[plain], [torch.empty(3, device="meta")]])
    assert not _unseen([torch.ones(3, dtype=torch.complex64).conj()])
    with Looks():
        assert not _unseen([plain])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        assert not _unseen([plain])
    seen = []
    torch.vmap(lambda row: (seen.append(_unseen([row])), row)[1])(torch.ones(2, 3))
    assert seen == [False]


def test_an_observer_that_is_started_before_the_first_collective_sees_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dispatch, "_observed", False)
    plain = torch.ones(3)
    observer = ExecutionTraceObserver().register_callback(str(tmp_path / "trace.json"))
    try:
        assert _unseen([plain])  # it does not look yet
        observer.start()
        assert not _unseen([plain])
        observer.stop()
    finally:
        observer.unregister_callback()
