"""Delayed gradients: a step applies the mean gradient of s steps before, which had time to travel.

The staleness is bounded, and the same on all ranks: exactly s after the first s steps. So the ranks
stay alike bit for bit, unlike those of a parameter server (SSP, Ho et al. 2013), and need no outer
optimizer. Pipe-SGD (Li et al. 2018) and OD-SGD do the same with s = 1.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import lines
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.hooks.state import State, Vote
from wiresum.host_agent.optim import average
from wiresum.host_agent.optim.parameters import check_covers, copies, shapes, trained
from wiresum.host_agent.optim.summing import WHETHER_A_CODEC, Chosen, Sum, fits, start


@dataclass
class _Bucket:
    """The mean of a DDP bucket on its way; laid out, and divided, as DDP itself does."""

    flat: torch.Tensor
    work: dist.Work
    sizes: list[torch.Size]

    def wait(self) -> list[torch.Tensor]:
        self.work.wait()
        parts = torch.split(self.flat, [each.numel() for each in self.sizes])
        return [part.view(size) for part, size in zip(parts, self.sizes, strict=True)]


@dataclass
class _Waiting:
    """A DDP bucket that has no gradients yet."""

    parameters: list[torch.Tensor]
    gradients: list[torch.Tensor]
    buffer: torch.Tensor
    done: torch.futures.Future[torch.Tensor]


@dataclass
class _Step:
    """The gradients of one step. ``scale``: of the GradScaler when they were computed."""

    scale: float
    sums: list[tuple[list[torch.Tensor], Sum]]
    """Parameters and the sum of their gradients."""
    means: dict[torch.Tensor, torch.Tensor] | None = None

    def wait(self) -> dict[torch.Tensor, torch.Tensor]:
        """The mean of each parameter's gradient, scaled."""
        if self.means is None:
            found: dict[torch.Tensor, torch.Tensor] = {}
            for parameters, sum_ in self.sums:
                found.update(zip(parameters, sum_.wait(), strict=True))
            self.sums, self.means = [], found
        return self.means


class DelayedGradients:
    """Each step of ``optimizer`` applies the mean of the gradients of ``staleness`` steps before.

    While those travel, the ranks compute on: a sum may take as long as ``staleness`` steps before
    anybody waits. With 0 the training is synchronous, bit for bit. The first ``staleness`` steps
    change nothing, as no sum is there yet; :meth:`flush`, also called when the ``with`` block ends
    without an error, applies those that are left, so that no gradient is lost.

    ``model`` may be plain (gradients are summed in ``step()``, or in :meth:`reduce` before it) or
    wrapped in DistributedDataParallel (they are summed bucket by bucket in the backward pass, but
    for those under ``no_sync()``). ``codec``: what of the gradients is sent, a state of ``hooks``.
    ``scaler``: the ``GradScaler`` in use; a step whose mean holds Inf or NaN is then left out by it
    on all ranks alike, ``staleness`` steps later.

    ::

        with DelayedGradients(model, optimizer, staleness=1) as delayed:
            for batch in batches:  # the loop stays as it is
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        staleness: int = 1,
        *,
        codec: State | None = None,
        scaler: torch.amp.GradScaler | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`SynchronizationError` for what cannot be summed like this."""
        self._ddp = model if isinstance(model, DistributedDataParallel) else None
        if self._ddp is not None:
            group = group or self._ddp.process_group
        self._model = model if self._ddp is None else self._ddp.module
        self._parameters = trained(self._model)
        check_covers("the optimizer", optimizer, self._parameters)
        if isinstance(staleness, bool) or not isinstance(staleness, int) or staleness < 0:
            raise SynchronizationError(lines.NO_STALENESS.of(given=staleness))
        if codec is not None and not fits(codec, self._parameters, group):
            raise SynchronizationError(lines.OTHER_MODELS_CODEC.of())
        if staleness and isinstance(codec, Vote) and codec.feedback:
            raise SynchronizationError(lines.FEEDBACK_OF_SUMS.of())
        self.staleness = staleness
        self._optimizer = optimizer
        self._codec = codec
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._group = group
        self._handles: list[Any] = []
        self._hooked = self._begun = False
        self._on_their_way: deque[_Step] = deque()
        self._open: _Step | None = None  # whose backward pass is running
        self._held: Chosen | None = None  # of a bucket whose codes are on their way
        self._waiting: list[_Waiting] = []
        self._due: dict[torch.Tensor, torch.Tensor] = {}
        self._reduced = self._empty = self._flushing = False
        self._hidden: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __enter__(self) -> Self:
        if self._handles:
            raise SynchronizationError(lines.ENTERED_TWICE.of(name=type(self).__name__))
        alike = {
            "the staleness": self.staleness,
            "the number of sums on their way": len(self._on_their_way),
            "whether the ranks have begun (0: no, 1: yes)": self._begun,
            "whether DDP wraps the model (0: no, 1: yes)": self._ddp is not None,
            WHETHER_A_CODEC: self._codec is not None,
        }
        device = self._parameters[0].device
        average.check_alike(type(self).__name__, alike, device, self._group)
        if self._ddp is None:
            if not self._begun:
                average.copy_from_first([*self._parameters, *self._model.buffers()], self._group)
        elif not self._hooked:
            if self._ddp._comm_hooks:
                raise SynchronizationError(lines.HAS_A_HOOK.of())
            self._ddp.register_comm_hook(self, _in_backward)
            self._hooked = True
        self._begun = True
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # ---- a step

    def reduce(self) -> None:
        """Begin to sum the gradients; each parameter then has the mean that is due.

        For a plain model, between ``backward()`` and what looks at gradients: clipping, or the step
        of a GradScaler. ``step()`` calls it if the script has not. All ranks call it.
        """
        if self._ddp is not None or not self._handles:
            return  # the backward pass has done it; or all is as without us
        for each in self._parameters:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        gradients = [_gradient(each) for each in self._parameters]
        sums = start(0, self._parameters, gradients, self._codec, self._group)
        self._on_their_way.append(_Step(self._scale(), [(self._parameters, sums)]))
        self._give(self._parameters, gradients)
        self._reduced = True

    def _scale(self) -> float:
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def _give(self, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Write the means that are due into the parameters' gradients; zeros, if none are."""
        due = None
        while len(self._on_their_way) > (self.staleness if self._handles else 0):
            due = self._on_their_way.popleft()
        self._empty = due is None
        self._due = {} if due is None else due.wait()
        with torch.no_grad():
            if due is None:
                for gradient in gradients:
                    gradient.zero_()
                return
            scale = self._scale()
            if scale != due.scale:
                self._due = {each: m * (scale / due.scale) for each, m in self._due.items()}
            for parameter, gradient in zip(parameters, gradients, strict=True):
                gradient.copy_(self._due[parameter])

    def _before_step(self, _optimizer: object, given: tuple[Any, ...], named: Any) -> None:
        if self._flushing:
            return
        if any(each is not None for each in (*given[1:], named.get("closure"))):
            raise SynchronizationError(lines.NO_CLOSURE.of())
        if self._ddp is None and not self._reduced:
            if self._scaler is not None:
                raise SynchronizationError(lines.REDUCE_FIRST.of())
            self.reduce()
        self._reduced = False
        if self._ddp is not None and self._ddp.find_unused_parameters:
            self._give_unused()
        self._due = {}
        if self._empty:  # an optimizer leaves out parameters without a gradient
            self._hide(self._parameters)

    def _give_unused(self) -> None:
        """What DDP keeps from parameters that no rank has used now, but some rank has then."""
        scale = self._scale()
        for each, mean in self._due.items():
            if self._scaler is not None and not mean.isfinite().all():
                continue  # the scaler, which has not seen it, would have left the step out
            if (each.grad is None or not each.grad.any()) and mean.any():
                each.grad = mean / scale

    def _after_step(self, *_: object) -> None:
        if not self._flushing:
            self._show()

    def _hide(self, parameters: Sequence[torch.Tensor]) -> None:
        self._hidden = [(each, each.grad) for each in parameters]
        for each in parameters:
            each.grad = None

    def _show(self) -> None:
        for each, gradient in self._hidden:
            each.grad = gradient
        self._hidden = []

    def flush(self) -> None:
        """Apply the sums that are on their way, each by a step of the optimizer; all ranks call it.

        Before an evaluation, or before a model is saved that shall hold all gradients. A training
        that goes on afterwards begins anew: its next ``staleness`` steps change nothing.
        """
        with self._alone():
            while self._on_their_way:
                step = self._on_their_way.popleft()
                means = step.wait()
                if step.scale != 1.0:
                    means = {each: mean / step.scale for each, mean in means.items()}
                if self._scaler is not None and not all(
                    bool(mean.isfinite().all()) for mean in means.values()
                ):
                    continue
                for each, mean in means.items():
                    each.grad = mean
                self._optimizer.step()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Without the gradients that parameters have now, and without our hooks."""
        groups = self._optimizer.param_groups
        self._hide([each for group in groups for each in group["params"]])
        self._flushing = True
        try:
            yield
        finally:
            self._flushing = False
            self._show()

    # ---- DDP

    def bucket(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """DDP's hook: begin to sum a bucket; the last one waits for the means that are due."""
        if bucket.index() == 0 or self._open is None:  # the one before may have failed
            self._open, self._waiting, self._held = _Step(self._scale(), []), [], None
        parameters, gradients = bucket.parameters(), bucket.gradients()
        if self._codec is None:
            flat = bucket.buffer().mul(1.0 / dist.get_world_size(self._group))  # DDP's own bits
            work = dist.all_reduce(flat, group=self._group, async_op=True)
            assert work is not None
            sums: Sum = _Bucket(flat, work, shapes(gradients))
        else:
            sums = chosen = Chosen(self._codec, bucket.index(), parameters, gradients)
            before, self._held = self._held, chosen
            if before is not None:
                before.send()
        self._open.sums.append((parameters, sums))
        waiting = _Waiting(parameters, gradients, bucket.buffer(), torch.futures.Future())
        self._waiting.append(waiting)
        if bucket.is_last():
            self._close()
        return waiting.done

    def _close(self) -> None:
        if self._held is not None:
            self._held.send()
        step, waiting = self._open, self._waiting
        assert step is not None
        self._open, self._waiting, self._held = None, [], None
        self._on_their_way.append(step)
        self._give(
            [each for bucket in waiting for each in bucket.parameters],
            [each for bucket in waiting for each in bucket.gradients],
        )
        for each in waiting:
            each.done.set_result(each.buffer)

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, beside the model's and the optimizer's own state.

        Waits for the sums that are on their way, and holds them: a restored run has the bits of the
        one that was not stopped. Tensors, numbers, lists and dicts alone. The state is the same on
        all ranks, but for a codec's residuals. Between two steps.
        """
        return {
            "staleness": self.staleness,
            "on_their_way": [
                {"scale": each.scale, "means": [each.wait()[p].clone() for p in self._parameters]}
                for each in self._on_their_way
            ],
            "codec": None if self._codec is None else self._codec.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; before the first entry.

        Raises :class:`SynchronizationError` if it is none, or of another model or staleness.
        """
        try:
            same = int(state["staleness"]) == self.staleness
            kept = [(float(e["scale"]), list(e["means"])) for e in state["on_their_way"]]
            same = same and len(kept) <= self.staleness
            same = same and all(math.isfinite(scale) and scale > 0 for scale, _ in kept)
            same = same and (state["codec"] is None) == (self._codec is None)
            same = same and all(shapes(m) == shapes(self._parameters) for _, m in kept)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            same = False
        if not same:
            raise SynchronizationError(lines.NOT_A_STATE.of(name=type(self).__name__))
        if self._codec is not None:
            self._codec.load_state_dict(state["codec"])
        self._on_their_way = deque(
            _Step(
                scale,
                [],
                dict(zip(self._parameters, copies(means, self._parameters), strict=True)),
            )
            for scale, means in kept
        )
        self._begun = True


def _in_backward(state: DelayedGradients, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    return state.bucket(bucket)


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad
