"""The process group that does what the switch cannot: gloo on CPU, nccl on CUDA."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, ProcessGroup, ProcessGroupGloo, Store


def make_fallback(
    store: Store, rank: int, size: int, timeout: timedelta, prefix: str
) -> ProcessGroup:
    """A plain ``ProcessGroup`` over gloo (and nccl where there is CUDA); all ranks must call it.

    ``prefix`` separates its keys in ``store``: a gloo group must never be used by two threads at
    once, so whoever needs another thread makes another group.
    """
    store = PrefixStore(f"wiresum/{prefix}", store)
    group = ProcessGroup(store, rank, size)
    group._set_default_backend(ProcessGroup.BackendType.GLOO)
    gloo = ProcessGroupGloo(PrefixStore("gloo", store), rank, size, timeout=timeout)
    gloo._set_sequence_number_for_group()
    group._register_backend(torch.device("cpu"), ProcessGroup.BackendType.GLOO, gloo)
    if torch.cuda.is_available() and dist.is_nccl_available():
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        nccl = dist.ProcessGroupNCCL(PrefixStore("nccl", store), rank, size, options)
        group._register_backend(torch.device("cuda"), ProcessGroup.BackendType.NCCL, nccl)
    return group
