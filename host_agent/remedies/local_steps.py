"""Local steps for scripts that stay as they are, though their models are wrapped in DDP.

DDP's hook leaves every gradient as it is on its rank; after each step of the optimizer that trains
the model, ``wiresum.optim`` counts, and synchronizes when it is time. Between synchronizations the
ranks have different models: a checkpoint of one rank is its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._C._distributed_c10d import GradBucket

from wiresum.host_agent.optim import LocalSGD, narrow_diloco, sparse_loco
from wiresum.host_agent.optim.periodic import Periodic

Make = Callable[[torch.nn.Module, torch.optim.Optimizer, Any], Periodic]
"""From a model, its optimizer and its group."""


def keep(state: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """A DDP hook that sends nothing."""
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def register(ddp: Any, make: Make) -> None:
    """Give the model local steps, from the first step of its optimizer on.

    That step raises ``SynchronizationError`` if the optimizer trains a part of the model only.
    """
    from torch.optim import optimizer as torch_optimizer

    ddp.register_comm_hook(None, keep)
    model = ddp.module
    begun = False
    own = {id(each) for each in model.parameters() if each.requires_grad}

    def begin(optimizer: torch.optim.Optimizer, *_: object) -> None:
        # The hook stays: torch goes through its hooks meanwhile, and none may be removed then.
        nonlocal begun
        if begun or own.isdisjoint(
            id(each) for group in optimizer.param_groups for each in group["params"]
        ):
            return
        begun = True
        make(model, optimizer, ddp.process_group).__enter__()

    torch_optimizer.register_optimizer_step_pre_hook(begin)


def local_steps(ddp: Any, h: int = 8, warmup: int = 0) -> None:
    """The mean of the models every ``h`` steps, in the first ``warmup`` ones at each."""
    register(
        ddp,
        lambda model, optimizer, group: LocalSGD(
            model, optimizer, h, warmup_steps=warmup, group=group
        ),
    )


def sparse(ddp: Any, h: int = 8, **options: Any) -> None:
    """``sparse_loco`` every ``h`` steps."""
    register(
        ddp,
        lambda model, optimizer, group: sparse_loco(model, optimizer, h, group=group, **options),
    )


def narrow(ddp: Any, h: int = 32, **options: Any) -> None:
    """``narrow_diloco`` every ``h`` steps."""
    register(
        ddp,
        lambda model, optimizer, group: narrow_diloco(model, optimizer, h, group=group, **options),
    )
