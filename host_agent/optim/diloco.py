"""DiLoCo: ranks train alone for H steps; an outer optimizer steps along their mean change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from wiresum.host_agent import lines
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.hooks.state import State
from wiresum.host_agent.optim.parameters import check_covers, copies, shapes, squared_norm
from wiresum.host_agent.optim.periodic import Drift, Pace, Periodic, Weight
from wiresum.host_agent.optim.summing import WHETHER_A_CODEC, Sum, fits, start


@dataclass
class _OnItsWay:
    """A fragment whose mean change is being summed, or has been and waits for its step."""

    fragment: int
    due: int  # the local step after which it is applied
    changes: list[torch.Tensor]  # of this rank; none unless H adapts to the drift
    pending: Sum | None
    means: list[torch.Tensor] | None = None

    def wait(self) -> list[torch.Tensor]:
        if self.means is None:
            assert self.pending is not None
            self.means = self.pending.wait()
        return self.means


class DiLoCo(Periodic):
    """Every ``sync_every`` steps of ``optimizer``, ``outer`` steps along the ranks' mean change.

    The change of a rank, its parameters at the last synchronization minus those of now, is the
    gradient of the outer optimizer (Douillard et al. 2023): usually
    ``SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)``.

    ``fragments`` > 1: the parameters are synchronized in so many parts, one after the other within
    H steps, so that the links are never idle for long nor full at once. ``delay``: a part's sum may
    take so many steps while training goes on; then the new parameters are
    ``mix`` · local + (1 - ``mix``) · outer (Streaming DiLoCo, Douillard et al. 2025, has 0.5).
    ``codec``: what of the changes is sent, with error feedback; :func:`sparse_loco` has one.
    ``pace``: each rank does as many steps as it can in the time of a round. ``weight``: of this
    rank's data, ``release_slots``: between synchronizations; see :class:`Periodic`.

    ::

        outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        with DiLoCo(model, optimizer, outer, sync_every=50):
            for batch in batches: ...  # the loop stays as it is
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        outer: torch.optim.Optimizer,
        sync_every: int | Drift,
        *,
        fragments: int = 1,
        delay: int = 0,
        mix: float = 0.0,
        codec: State | None = None,
        pace: Pace | None = None,
        weight: Weight = None,
        release_slots: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`SynchronizationError` for what cannot be synchronized like this."""
        least = delay + 1 if fragments == 1 and isinstance(delay, int) else None
        super().__init__(model, optimizer, sync_every, group, pace, weight, release_slots, least)
        check_covers("the outer optimizer", outer, self._parameters)
        if not 1 <= fragments <= min(self.sync_every, len(self._parameters)):
            most = min(self.sync_every, len(self._parameters))
            raise SynchronizationError(lines.NO_FRAGMENTS.of(given=fragments, most=most))
        if fragments > 1 and self._drift is not None:
            raise SynchronizationError(lines.DRIFT_OF_FRAGMENTS.of())
        if fragments > 1 and pace is not None:
            raise SynchronizationError(lines.PACE_OF_FRAGMENTS.of())
        if release_slots and (fragments > 1 or delay):
            raise SynchronizationError(lines.SLOTS_IN_USE.of())
        self._fragments = _split(self._parameters, fragments)
        between = self._drift.least if self._drift else self.sync_every
        between = min(between, self.sync_every, pace.least if pace else between) // fragments
        if not 0 <= delay < max(between, 1):
            raise SynchronizationError(lines.NO_DELAY.of(given=delay, most=max(between, 1) - 1))
        if not 0.0 <= mix <= 1.0:
            raise SynchronizationError(lines.NO_MIX.of(given=mix))
        if codec is not None and not fits(codec, self._parameters, group):
            raise SynchronizationError(lines.OTHER_MODELS_CODEC.of())
        self._outer = outer
        self._codec = codec
        self._delay = delay
        self._mix = mix
        self._on_its_way: _OnItsWay | None = None

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`Periodic.state_dict`; waits for a sum that is on its way."""
        way = self._on_its_way
        sums = None
        if way is not None:
            means = [each.clone() for each in way.wait()]
            sums = {"fragment": way.fragment, "due": way.due, "means": means}
            sums["changes"] = [each.clone() for each in way.changes]
        kept = None if self._codec is None else self._codec.state_dict()
        more = {"outer": self._outer.state_dict(), "on_its_way": sums, "codec": kept}
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As :meth:`Periodic.load_state_dict`."""
        try:
            outer, way = state["outer"], self._restored(state["on_its_way"])
            kept = state.get("codec")
            if (kept is None) != (self._codec is None):
                raise ValueError("one has a codec, the other has none")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise SynchronizationError(lines.NOT_A_STATE.of(name="DiLoCo")) from None
        # What checks itself comes first: a refused state changes nothing of the model's.
        if self._codec is not None and kept is not None:
            self._codec.load_state_dict(kept)
        super().load_state_dict(state)
        self._outer.load_state_dict(outer)
        self._on_its_way = way

    def _restored(self, state: dict[str, Any] | None) -> _OnItsWay | None:
        """What was on its way; an error of any kind if the state is of another model."""
        if state is None:
            return None
        if not 0 <= state["fragment"] < len(self._fragments):
            raise ValueError("no such fragment")
        places = self._fragments[state["fragment"]]
        own = [self._parameters[place] for place in places]
        if shapes(state["means"]) != shapes(own):
            raise ValueError("other shapes")
        changes = list(state["changes"])
        if shapes(changes) != (shapes(own) if self._adapts else []):
            raise ValueError("other changes")
        return _OnItsWay(
            state["fragment"], int(state["due"]), copies(changes, own[: len(changes)]), None,
            copies(state["means"], own),
        )  # fmt: skip

    def _alike(self) -> dict[str, float]:
        return super()._alike() | {
            "the number of fragments": len(self._fragments),
            "the delay": self._delay,
            "the mix": self._mix,
            WHETHER_A_CODEC: self._codec is not None,
        }

    def _due(self) -> None:
        way = self._on_its_way
        if way is not None and self.local_step >= way.due:
            self._on_its_way = None
            self._end(way)
        count = len(self._fragments)
        for fragment in range(count):
            if self._since == self.own_steps * (fragment + 1) // count:
                self._start(fragment)
        if self._since >= self.own_steps:
            self._begin_round()

    def _start(self, fragment: int) -> None:
        places = self._fragments[fragment]
        own = [self._parameters[place] for place in places]
        changes = [
            self._anchors[place] - mine.detach() for place, mine in zip(places, own, strict=True)
        ]
        factor = self._agree()
        weighted = changes if factor == 1.0 else [each * factor for each in changes]
        pending = start(fragment, own, weighted, self._codec, self._group)
        due = self.local_step + self._delay
        way = _OnItsWay(fragment, due, changes if self._adapts else [], pending)
        if self._delay:
            self._on_its_way = way
        else:
            self._end(way)

    def _end(self, way: _OnItsWay) -> None:
        means = way.wait()
        if self._adapts:
            self._adapt(way.changes, means, squared_norm(self._anchors))
        self._apply(way.fragment, means)

    def _apply(self, fragment: int, means: Sequence[torch.Tensor]) -> None:
        """One step of the outer optimizer for this fragment, from where all ranks were alike."""
        places = self._fragments[fragment]
        gradients = [each.grad for each in self._parameters]
        local = [self._parameters[place].detach().clone() for place in places] if self._mix else []
        with torch.no_grad():
            for parameter in self._parameters:
                parameter.grad = None  # the outer optimizer leaves such parameters out
            for place, mean in zip(places, means, strict=True):
                self._parameters[place].copy_(self._anchors[place])
                self._parameters[place].grad = mean
        self._outer.step()
        with torch.no_grad():
            for place in places:
                self._anchors[place].copy_(self._parameters[place])
            for place, mine in zip(places, local, strict=False):
                self._parameters[place].lerp_(mine, self._mix)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient


def _split(parameters: Sequence[torch.Tensor], parts: int) -> list[range]:
    """Places of neighbours, in parts of about as many elements; none is empty."""
    total = sum(each.numel() for each in parameters)
    bounds, seen = [0], 0
    for place, parameter in enumerate(parameters):
        left = len(parameters) - place
        wanted = total * len(bounds) / parts
        must = left <= parts - len(bounds)
        if len(bounds) < parts and place > bounds[-1] and (must or seen >= wanted):
            bounds.append(place)
        seen += parameter.numel()
    return [
        range(low, high) for low, high in zip(bounds, [*bounds[1:], len(parameters)], strict=True)
    ]
