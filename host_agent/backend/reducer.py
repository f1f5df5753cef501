"""Lets torch's C++ code keep works and futures that are written in Python.

A work that is written in Python must live as long as C++ points to it, and the built-in hooks of
DDP's reducer want futures that only C++ can make.
"""

import functools
import importlib
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent.backend.agreement import AgreedWork
from wiresum.host_agent.backend.collectives import Collectives
from wiresum.host_agent.backend.dispatch import held
from wiresum.host_agent.backend.work import SwitchWork


def install_reducer() -> None:
    """Let C++ keep works of wiresum groups; groups of other backends see no change."""
    if hasattr(DistributedDataParallel._register_builtin_comm_hook, "_wiresum"):
        return
    c10d: Any = importlib.import_module("torch._C._distributed_c10d")
    handle = c10d.Reducer._set_forward_pass_work_handle
    register = c10d._register_work
    builtin = DistributedDataParallel._register_builtin_comm_hook

    @functools.wraps(handle)
    def set_forward_pass_work_handle(self: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        return handle(self, _to_keep(work), *args, **kwargs)

    @functools.wraps(register)
    def register_work(tensor: Any, work: Any) -> Any:
        return register(tensor, _to_keep(work))

    @functools.wraps(builtin)
    def register_builtin_comm_hook(self: Any, comm_hook_type: Any) -> Any:
        if not isinstance(self.process_group, Collectives):
            return builtin(self, comm_hook_type)  # type: ignore[no-untyped-call]
        # The built-in hook expects a C++ list in the future; a future that Python completes holds a
        # Python list. The hook of the same name in Python accepts that.
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        hooks = {
            c10d.BuiltinCommHookType.ALLREDUCE: default_hooks.allreduce_hook,
            c10d.BuiltinCommHookType.FP16_COMPRESS: default_hooks.fp16_compress_hook,
        }
        self.logger._set_comm_hook_name(str(comm_hook_type))
        c10d._register_comm_hook(self.reducer, self.process_group, hooks[comm_hook_type])
        return None

    register_builtin_comm_hook._wiresum = True  # type: ignore[attr-defined]
    c10d.Reducer._set_forward_pass_work_handle = set_forward_pass_work_handle
    c10d._register_work = register_work
    DistributedDataParallel._register_builtin_comm_hook = register_builtin_comm_hook  # type: ignore[method-assign]


def _to_keep(work: Any) -> Any:
    return held(work) if isinstance(work, SwitchWork | AgreedWork) else work
