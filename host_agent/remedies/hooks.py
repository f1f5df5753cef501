"""Registers communication hooks, torch's and wiresum's own, with every DDP model of a script.

DDP takes one hook, and a script's own has precedence: the hook is registered at the first forward
pass, if there is none by then.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

from wiresum.host_agent.remedies.spec import VARIABLE, parse

log = logging.getLogger("wiresum")

COMPRESS_FROM = 2
"""Before this step PowerSGD sends gradients as they are; torch demands at least two such steps."""

used: list[str] = []
"""Of each DDP model that has made a forward pass: the hook it has got, or why it has none."""


def install() -> None:
    """Wrap DDP's forward pass. Raises ``CodecError`` for what is no hook."""
    from torch.nn.parallel import DistributedDataParallel

    text = os.environ[VARIABLE]
    parse(text)
    original: Any = DistributedDataParallel.forward

    @functools.wraps(original)
    def forward(self: Any, *inputs: Any, **named: Any) -> Any:
        if not hasattr(self, "_wiresum_hook"):
            self._wiresum_hook = put(self, text)
            used.append(self._wiresum_hook)
        return original(self, *inputs, **named)

    DistributedDataParallel.forward = forward  # type: ignore[method-assign]


def put(model: Any, text: str) -> str:
    """Put what ``text`` names on a DDP model, unless it has a hook: the hook it has then.

    Raises ``CodecError``.
    """
    spec = parse(text)
    if model._comm_hooks:
        log.warning("wiresum: the script has a DDP hook of its own, %s is not used", text)
        return "the script's own"
    _REGISTER[spec.name](model, **spec.options)
    return text


def _fp16(model: Any) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    model.register_comm_hook(None, default_hooks.fp16_compress_hook)


def _powersgd(model: Any, rank: int = 1) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    state = powerSGD_hook.PowerSGDState(
        process_group=None, matrix_approximation_rank=rank, start_powerSGD_iter=COMPRESS_FROM
    )

    @functools.wraps(powerSGD_hook.powerSGD_hook)  # DDP checks the hook's annotations
    def in_order(state: Any, bucket: Any) -> Any:
        # The hook's callbacks issue collectives. Of several buckets they run in another order on
        # each rank, and gloo would match a sum of one bucket with one of another.
        future = powerSGD_hook.powerSGD_hook(state, bucket)
        future.wait()
        return future

    model.register_comm_hook(state, in_order)


def _codec(state: str) -> Callable[..., None]:
    def register(model: Any, **options: Any) -> None:
        from wiresum.host_agent.hooks import ddp
        from wiresum.host_agent.hooks import state as states

        model.register_comm_hook(getattr(states, state)(model, **options), ddp.compress)

    return register


def _steps(name: str) -> Callable[..., None]:
    def register(model: Any, **options: Any) -> None:
        from wiresum.host_agent.remedies import local_steps

        getattr(local_steps, name)(model, **options)

    return register


_REGISTER: dict[str, Callable[..., None]] = {
    "fp16": _fp16,
    "powersgd": _powersgd,
    "block-float": _codec("BlockFloat"),
    "top-k": _codec("TopK"),
    "ternary": _codec("Ternary"),
    "vote": _codec("Vote"),
    "thc": _codec("THC"),
    "local-steps": _steps("local_steps"),
    "diloco": _steps("narrow"),
    "sparse-loco": _steps("sparse"),
}
