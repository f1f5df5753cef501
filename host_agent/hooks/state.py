"""The states of the hook :func:`~wiresum.host_agent.hooks.ddp.compress`: what is sent of a model.

A state holds, for each parameter, its rule and its residual, by the parameter's name: DDP builds
its buckets anew after the first step, and the residuals follow.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.exchange import Exchange, Part
from wiresum.host_agent.hooks.rules import DEFAULT_POLICY, Rule, check_policy, rule_for
from wiresum.p4 import FIELDS

log = logging.getLogger("wiresum")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _field_of_the_run() -> int:
    """The bits of an element in the sums of this run. Raises :class:`CodecError`."""
    field = os.environ.get("WIRESUM_FIELD") or "32"
    if field not in map(str, FIELDS):
        raise CodecError(lines.NOT_A_FIELD.of(field=field))
    return int(field)


class BlockFloat:
    """All blocks, in fields of ``bits``; with error feedback.

    ``model``: the model, or the DDP around it. ``bits``: 32, 16 or 8; None: the run's field
    (``wiresum run --field``). ``decay``: factor of what is kept, at each step. ``policy``: see
    :func:`~wiresum.host_agent.hooks.rules.rule_for`. ``group``: None for DDP's own, or the default.

    Pickles without the model and the group: give it the model again with :meth:`attach`. For
    checkpoints, :meth:`state_dict` holds tensors and numbers alone; each rank saves its own, since
    residuals differ. Gradients are those that the script has scaled: when a GradScaler changes its
    scale, what the residuals hold keeps the old one.
    """

    name = "block-float"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        bits: int | None = None,
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        self._setup(model, 1.0, bits, feedback, decay, policy, group)

    def _setup(
        self,
        model: torch.nn.Module,
        share: float,
        bits: int | None,
        feedback: bool,
        decay: float,
        policy: Mapping[str, str],
        group: dist.ProcessGroup | None,
    ) -> None:
        field = _field_of_the_run() if bits is None else bits
        self.rule = Rule(share, field)
        """Of parameters that no pattern of the policy fits."""
        self.policy = dict(policy)
        check_policy(self.policy)
        if not 0.0 <= decay <= 1.0:
            raise CodecError(lines.NO_DECAY.of(given=decay))
        self.feedback = feedback
        self.decay = decay
        self._residuals: dict[str, torch.Tensor] = {}
        self._saved_by: tuple[int, int] | None = None  # workers, rank
        self.attach(model, group)

    def attach(self, model: torch.nn.Module, group: dist.ProcessGroup | None = None) -> None:
        """Work for this model, after unpickling or for a new DDP; residuals stay, by name.

        Raises :class:`CodecError` if it has parameters that are not floats in the host's memory.
        """
        if isinstance(model, DistributedDataParallel):
            group = group or model.process_group
            model = model.module
        for name, parameter in model.named_parameters():
            if parameter.device.type != "cpu" or parameter.dtype not in _DTYPES:
                where, kind = parameter.device.type, str(parameter.dtype).removeprefix("torch.")
                raise CodecError(lines.NOT_FOR_A_CODEC.of(name=name, dtype=kind, device=where))
        self._forget()
        self._group = group
        self._names: dict[torch.Tensor, str] = {
            each: name for name, each in model.named_parameters()
        }
        shapes = {name: each.shape for each, name in self._names.items()}
        for name, residual in self._residuals.items():
            if shapes.get(name) != residual.shape:
                raise CodecError(lines.NOT_A_STATE.of(name=self.name))

    def _forget(self) -> None:
        """Lay the residuals out anew at the next step."""
        self._exchanges: dict[int, tuple[list[str], Exchange]] = {}
        self._told = False
        self.held: Any = None
        """The bucket that the hook holds back."""

    def covers(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Whether all of them belong to the model."""
        return all(each in self._names for each in parameters)

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The group whose ranks take the mean."""
        return self._group

    def exchange(self, place: int, parameters: Sequence[torch.Tensor]) -> Exchange:
        """That of the bucket ``place``, which now holds these parameters."""
        if not self._names:
            raise CodecError(lines.NOT_ATTACHED.of(name=self.name))
        if not self.covers(parameters):
            raise CodecError(lines.OTHER_MODELS_CODEC.of())
        names = [self._names[each] for each in parameters]
        known = self._exchanges.get(place)
        if known is not None and known[0] == names:
            return known[1]
        self._look_at_ranks()
        found = self._made(names, parameters)
        # A parameter is in one bucket: an exchange that had it before is out of date.
        self._exchanges = {
            at: each for at, each in self._exchanges.items() if set(names).isdisjoint(each[0])
        }
        self._exchanges[place] = names, found
        return found

    def _made(self, names: Sequence[str], parameters: Sequence[torch.Tensor]) -> Exchange:
        parts = []
        for name, each in zip(names, parameters, strict=True):
            rule = rule_for(name, each.shape, self.policy, self.rule)
            parts.append(Part(each.numel(), rule, self.feedback and not rule.exact))
        made = Exchange(parts, dist.get_world_size(self._group), self.decay)
        for place, (name, part, each) in enumerate(zip(names, parts, parameters, strict=True)):
            if part.feedback:
                view = made.residual(place)
                if name in self._residuals:
                    view.copy_(self._residuals[name].reshape(-1))
                self._residuals[name] = view.view(each.shape)
        return made

    def _look_at_ranks(self) -> None:
        now = dist.get_world_size(self._group), dist.get_rank(self._group)
        before, self._saved_by = self._saved_by, now
        if before not in (None, now) and self._residuals:
            log.warning(
                "wiresum: the residuals of %s are those of rank %d of %d, and this is rank %d of "
                "%d: what other ranks had not sent is lost, the training goes on",
                self.name, before[1], before[0], now[1], now[0],
            )  # fmt: skip

    def tell(self, place: int, spoiled: Sequence[int]) -> None:
        """Log, once, that parameters of the bucket ``place`` hold Inf or NaN on this rank."""
        if not spoiled or self._told:
            return
        self._told = True
        names = ", ".join(self._exchanges[place][0][each] for each in spoiled)
        log.warning(
            "wiresum: rank %d has Inf or NaN for %s; all ranks get NaN in these blocks (said once)",
            dist.get_rank(self._group), names,
        )  # fmt: skip

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, beside the options; between two steps.

        ``workers`` and ``rank`` say whose residuals they are.
        """
        workers, rank = self._saved_by or (0, 0)
        residuals = {name: each.clone() for name, each in self._residuals.items()}
        return {"codec": self.name, "workers": workers, "rank": rank, "residuals": residuals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        With residuals of another number of ranks, or of another rank, there is one warning. Raises
        :class:`CodecError` if it is no state of this codec, or of another model.
        """
        try:
            saved_by = (int(state["workers"]), int(state["rank"]))
            own = state["codec"] == self.name
            residuals = {
                str(name): each.detach().to("cpu", torch.float32, copy=True)
                for name, each in state["residuals"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            own = False
        shapes = {name: each.shape for each, name in self._names.items()}
        if not own or any(shapes.get(name) != each.shape for name, each in residuals.items()):
            raise CodecError(lines.NOT_A_STATE.of(name=self.name))
        self._residuals = residuals
        self._saved_by = saved_by if saved_by[0] else None
        self._exchanges = {}

    def __getstate__(self) -> dict[str, Any]:
        """The options and :meth:`state_dict`."""
        options = {"rule": self.rule, "policy": self.policy, "feedback": self.feedback}
        return options | {"decay": self.decay, "state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.rule, self.policy = kept["rule"], kept["policy"]
        self.feedback, self.decay = kept["feedback"], kept["decay"]
        self._forget()
        self._group, self._names = None, {}
        state = kept["state"]
        self._residuals = state["residuals"]
        self._saved_by = (state["workers"], state["rank"]) if state["workers"] else None


class TopK(BlockFloat):
    """The ``k`` part (0.1: a tenth) of each parameter's blocks, those of the largest values.

    What is not sent is kept for later steps (``feedback``). A block is 256 elements of a parameter;
    of a small one at least one is sent. All else as in :class:`BlockFloat`.
    """

    name = "top-k"

    def __init__(
        self,
        model: torch.nn.Module,
        k: float = 0.1,
        *,
        bits: int | None = None,
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        self._setup(model, k, bits, feedback, decay, policy, group)
