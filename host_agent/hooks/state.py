"""The states of the hook :func:`~wiresum.host_agent.hooks.ddp.compress`: what is sent of a model.

A state holds, for each parameter, its rule and its residual, by the parameter's name: DDP builds
its buckets anew after the first step, and the residuals follow.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from zlib import crc32

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks import flat
from wiresum.host_agent.hooks.exchange import Course, Exchange, Part
from wiresum.host_agent.hooks.rules import (
    DEFAULT_POLICY,
    Coding,
    Rounding,
    Rule,
    changed,
    check_policy,
    checked_momentum,
    narrow,
    rounding_of,
    rule_for,
)
from wiresum.p4 import FIELDS

log = logging.getLogger("wiresum")

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _field_of_the_run() -> int:
    """The bits of an element in the sums of this run. Raises :class:`CodecError`."""
    field = os.environ.get("WIRESUM_FIELD") or "32"
    if field not in map(str, FIELDS):
        raise CodecError(lines.NOT_A_FIELD.of(field=field))
    return int(field)


class Keeper(Protocol):
    """What has residuals of a state in a layout of its own."""

    def kept(self) -> Mapping[str, tuple[int, torch.Tensor | None, torch.Tensor | None]]:
        """Of each parameter the steps made, the residual and the velocity, in its own shape."""

    def forget(self) -> None:
        """Take up anew what the state has, at the next step."""


class State:
    """What all codecs have in common: rules and residuals of a model.

    ``model``: the model, or the DDP around it. ``feedback``: whether what is not sent, or is
    rounded off, is kept for later steps; ``decay``: factor of what is kept, at each step.
    ``policy``: see :func:`~wiresum.host_agent.hooks.rules.rule_for`. ``seed``: of all that is
    random, the same on all ranks. ``group``: None for DDP's own, or the default.

    Pickles without the model and the group: give it the model again with :meth:`attach`. For
    checkpoints, :meth:`state_dict` holds tensors and numbers alone; each rank saves its own, since
    residuals differ. Gradients are those that the script has scaled: when a GradScaler changes its
    scale, what the residuals hold keeps the old one.
    """

    name = ""

    def __init__(
        self,
        model: torch.nn.Module,
        rule: Rule,
        feedback: bool,
        course: Course,
        policy: Mapping[str, str],
        group: dist.ProcessGroup | None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        self.rule = rule
        """Of parameters that no pattern of the policy fits."""
        self.policy = dict(policy)
        check_policy(self.policy)
        if not 0.0 <= course.decay <= 1.0:
            raise CodecError(lines.NO_DECAY.of(given=course.decay))
        if checked_momentum(course.momentum) and not feedback:
            raise CodecError(lines.MOMENTUM_WITHOUT_FEEDBACK.of())
        if not 0 <= course.warmup < 1 << 31:
            raise CodecError(lines.NO_WARMUP.of(given=course.warmup))
        if not isinstance(course.seed, int) or not 0 <= course.seed < 1 << 32:
            raise CodecError(lines.NO_SEED.of(given=course.seed))
        for each in self._rules():
            if each.coding is Coding.THC:
                narrow(each.bits)
        self.feedback = feedback
        self.course = course
        self._start()
        self.attach(model, group)

    def _start(self) -> None:
        self._residuals: dict[str, torch.Tensor] = {}
        self._velocities: dict[str, torch.Tensor] = {}
        self._steps: dict[str, int] = {}
        self._saved_by: tuple[int, int] | None = None  # workers, rank
        self._forget()

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
        names: dict[torch.Tensor, str] = {each: name for name, each in model.named_parameters()}
        shapes = {name: each.shape for each, name in names.items()}
        modules = flat.wrapped(model)
        if modules:
            names = {each: flat.clean(name) for each, name in names.items()}
            shapes = flat.shapes(model, modules)
        self._note_steps()
        self._check(shapes, self._residuals, self._velocities)
        self._forget()
        self._group = group
        self._names, self._shapes = names, shapes

    def _check(self, shapes: Mapping[str, torch.Size], *kept: Mapping[str, torch.Tensor]) -> None:
        """Raise :class:`CodecError` if not all that is kept is of these parameters."""
        if any(shapes.get(name) != each.shape for one in kept for name, each in one.items()):
            raise CodecError(lines.NOT_A_STATE.of(name=self.name))

    def _forget(self) -> None:
        """Lay the residuals out anew at the next step."""
        self._exchanges: dict[int, tuple[list[str], Exchange]] = {}
        self._keepers: list[Keeper] = []
        self._told = False
        self.held: Any = None
        """The bucket that the hook holds back."""

    def keep_from(self, keeper: Keeper) -> None:
        """Something else than :meth:`exchange` keeps residuals of this state."""
        self._keepers.append(keeper)

    def uses(self, coding: Coding) -> bool:
        """Whether any rule has it."""
        return any(rule.coding is coding for rule in self._rules())

    def _rules(self) -> list[Rule]:
        return [self.rule, *(changed(self.rule, wanted) for wanted in self.policy.values())]

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Of the model's parameters as a whole, by name."""
        return self._shapes

    @property
    def names(self) -> Mapping[torch.Tensor, str]:
        """Of the model's parameters. Raises :class:`CodecError` if there is no model."""
        if not self._names:
            raise CodecError(lines.NOT_ATTACHED.of(name=self.name))
        return self._names

    def step_of(self, name: str) -> int:
        """How many steps this parameter has made."""
        return self._steps.get(name, 0)

    def residual_of(self, name: str) -> torch.Tensor | None:
        """What is kept of this parameter."""
        return self._residuals.get(name)

    def velocity_of(self, name: str) -> torch.Tensor | None:
        """The momentum of what is kept of this parameter."""
        return self._velocities.get(name)

    def covers(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Whether all of them belong to the model."""
        return all(each in self._names for each in parameters)

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The group whose ranks take the mean."""
        return self._group

    def exchange(self, place: int, parameters: Sequence[torch.Tensor]) -> Exchange:
        """That of the bucket ``place``, which now holds these parameters."""
        known_names = self.names
        if not self.covers(parameters):
            raise CodecError(lines.OTHER_MODELS_CODEC.of())
        names = [known_names[each] for each in parameters]
        known = self._exchanges.get(place)
        if known is not None and known[0] == names:
            return known[1]
        self.look_at_ranks(self._group)
        self._note_steps()
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
            fed = self.feedback and not rule.exact
            parts.append(Part(each.numel(), rule, fed, crc32(name.encode())))
        workers, rank = dist.get_world_size(self._group), dist.get_rank(self._group)
        made = Exchange(parts, workers, self.course, rank=rank)
        made.step = max((self._steps.get(name, 0) for name in names), default=0)
        for place, (name, each) in enumerate(zip(names, parameters, strict=True)):
            for kept, view in (
                (self._residuals, made.residual(place) if parts[place].feedback else None),
                (self._velocities, made.velocity(place)),
            ):
                if view is None:
                    continue
                if name in kept:
                    view.copy_(kept[name].reshape(-1))
                kept[name] = view.view(each.shape)
        return made

    def _note_steps(self) -> None:
        for names, exchange in self._exchanges.values():
            self._steps.update(dict.fromkeys(names, exchange.step))
        for keeper in self._keepers:
            for name, (step, residual, velocity) in keeper.kept().items():
                self._steps[name] = step
                if residual is not None:
                    self._residuals[name] = residual
                if velocity is not None:
                    self._velocities[name] = velocity

    def look_at_ranks(self, group: dist.ProcessGroup | None) -> None:
        """Warn if residuals are those of another rank, or of another number of ranks."""
        now = dist.get_world_size(group), dist.get_rank(group)
        before, self._saved_by = self._saved_by, now
        if before not in (None, now) and self._residuals:
            log.warning(
                "wiresum: the residuals of %s are those of rank %d of %d, and this is rank %d of "
                "%d: what other ranks had not sent is lost, the training goes on",
                self.name, before[1], before[0], now[1], now[0],
            )  # fmt: skip

    def tell(self, place: int, spoiled: Sequence[int]) -> None:
        """Log, once, that parameters of the bucket ``place`` hold Inf or NaN on this rank."""
        self.tell_of([self._exchanges[place][0][each] for each in spoiled])

    def tell_of(self, names: Sequence[str]) -> None:
        """The same, of parameters by name."""
        if not names or self._told:
            return
        self._told = True
        log.warning(
            "wiresum: rank %d has Inf or NaN for %s; all ranks get NaN in these blocks (said once)",
            dist.get_rank(self._group), ", ".join(names),
        )  # fmt: skip

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, beside the options; between two steps.

        ``workers`` and ``rank`` say whose residuals they are.
        """
        workers, rank = self._saved_by or (0, 0)
        self._note_steps()
        return {
            "codec": self.name, "workers": workers, "rank": rank, "steps": dict(self._steps),
            "residuals": {name: each.clone() for name, each in self._residuals.items()},
            "velocities": {name: each.clone() for name, each in self._velocities.items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        With residuals of another number of ranks, or of another rank, there is one warning. Raises
        :class:`CodecError` if it is no state of this codec, or of another model.
        """
        try:
            saved_by = (int(state["workers"]), int(state["rank"]))
            own = state["codec"] == self.name
            residuals, velocities = (
                {
                    str(name): each.detach().to("cpu", torch.float32, copy=True)
                    for name, each in state.get(kept, {}).items()
                }
                for kept in ("residuals", "velocities")
            )
            steps = {str(name): int(step) for name, step in state.get("steps", {}).items()}
            own = own and all(0 <= step < 1 << 31 for step in steps.values())
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            own = False
        if not own:
            raise CodecError(lines.NOT_A_STATE.of(name=self.name))
        self._check(self._shapes, residuals, velocities)
        self._residuals, self._velocities, self._steps = residuals, velocities, steps
        self._saved_by = saved_by if saved_by[0] else None
        self._exchanges = {}
        for keeper in self._keepers:
            keeper.forget()

    def __getstate__(self) -> dict[str, Any]:
        """The options and :meth:`state_dict`."""
        options = {"rule": self.rule, "policy": self.policy, "feedback": self.feedback}
        return options | {"course": self.course, "state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.rule, self.policy = kept["rule"], kept["policy"]
        self.feedback, self.course = kept["feedback"], kept["course"]
        self._start()
        self._group, self._names, self._shapes = None, {}, {}
        state = kept["state"]
        self._residuals, self._velocities = state["residuals"], state["velocities"]
        self._steps = state["steps"]
        self._saved_by = (state["workers"], state["rank"]) if state["workers"] else None


class BlockFloat(State):
    """All blocks, in fields of ``bits``; with error feedback.

    ``bits``: 32, 16, 8 or 4; None: the run's field (``wiresum run --field``). ``rounding``:
    ``nearest``, or ``stochastic``: unbiased, of which 32 bits have no need. The other arguments are
    those of :class:`State`.
    """

    name = "block-float"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        bits: int | None = None,
        rounding: str = "nearest",
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        rule = Rule(bits=_field(bits), rounding=rounding_of(rounding))
        super().__init__(model, rule, feedback, Course(decay, seed=seed), policy, group)


class TopK(State):
    """The ``k`` part (0.1: a tenth) of each parameter's blocks, those of the largest values.

    What is not sent is kept for later steps (``feedback``). A block is 256 elements of a parameter;
    of a small one at least one is sent. ``threshold``: of these blocks, only those whose largest
    value is at least this part of the parameter's largest; with ``k=1`` it alone decides.
    ``warmup``: in so many steps the part falls from 1 to ``k``. ``momentum``: what is kept goes
    through this momentum first (Lin et al. 2018); the optimizer then has none of its own. All else
    as in :class:`BlockFloat`.
    """

    name = "top-k"

    def __init__(
        self,
        model: torch.nn.Module,
        k: float = 0.1,
        *,
        threshold: float = 0.0,
        bits: int | None = None,
        rounding: str = "nearest",
        feedback: bool = True,
        decay: float = 1.0,
        momentum: float = 0.0,
        warmup: int = 0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        rule = Rule(k, _field(bits), threshold, rounding=rounding_of(rounding))
        course = Course(decay, momentum, warmup, seed)
        super().__init__(model, rule, feedback, course, policy, group)


class Ternary(State):
    """Three levels: -M, 0 and M, in the narrowest fields whose sums of all ranks fit.

    ``rounding`` None: nearest with ``feedback``, M being 1.5 times the root mean square of a block;
    without feedback stochastic, M being the largest magnitude (TernGrad, Wen et al. 2017). The
    other arguments are those of :class:`State`.
    """

    name = "ternary"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        rounding: str | None = None,
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        how = _default(feedback) if rounding is None else rounding_of(rounding)
        rule = Rule(coding=Coding.TERNARY, rounding=how)
        super().__init__(model, rule, feedback, Course(decay, seed=seed), policy, group)


class Vote(State):
    """The sign that most ranks have, times the mean magnitude of the block on the rank where that
    is largest; of a tie 0 (signSGD with majority vote, Bernstein et al. 2019).

    With ``feedback`` a rank keeps what its sign leaves of its gradient, and, alike on all ranks,
    what the majority leaves of the mean of the signs. The other arguments are those of
    :class:`State`.
    """

    name = "vote"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        rounding: str = "nearest",
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        rule = Rule(coding=Coding.VOTE, rounding=rounding_of(rounding))
        super().__init__(model, rule, feedback, Course(decay, seed=seed), policy, group)


class THC(State):
    """All blocks, rotated at random, so that few levels reach far, in fields of ``bits``.

    The levels are even, from minus to plus a multiple of the block's root mean square that fits
    their number. ``rounding`` None: nearest with ``feedback``, stochastic without. After THC (Li et
    al. 2024), whose table of uneven levels saves bits only where a switch can look numbers up; one
    that adds needs a field for the sum. The other arguments are those of :class:`State`.
    """

    name = "thc"

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        bits: int = 8,
        rounding: str | None = None,
        feedback: bool = True,
        decay: float = 1.0,
        policy: Mapping[str, str] = DEFAULT_POLICY,
        seed: int = 0,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`CodecError` for options that make no sense, or a model on a GPU."""
        how = _default(feedback) if rounding is None else rounding_of(rounding)
        rule = Rule(bits=bits, coding=Coding.THC, rounding=how)
        super().__init__(model, rule, feedback, Course(decay, seed=seed), policy, group)


def _field(bits: int | None) -> int:
    return _field_of_the_run() if bits is None else bits


def _default(feedback: bool) -> Rounding:
    return Rounding.NEAREST if feedback else Rounding.STOCHASTIC
