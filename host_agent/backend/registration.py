"""Makes ``init_process_group("wiresum")`` known to torch. Loaded by every ``import torch``."""

from pathlib import Path
from typing import Any

BACKEND = "wiresum"


def register_backend() -> None:
    """Register the backend; does nothing if torch has no ``torch.distributed``."""
    import torch.distributed as dist

    if not dist.is_available() or BACKEND in dist.Backend.backend_list:
        return
    dist.Backend.register_backend(BACKEND, _create, extended_api=True, devices=_devices())


def _devices() -> list[str]:
    """The device types whose tensors a group on this machine accepts."""
    import torch

    # torch prefers cuda wherever a backend has it, for the tensors of object collectives for one.
    # Asking the driver would take time in every process that imports torch.
    built = torch.version.cuda is not None or torch.version.hip is not None
    names = ("nvidia[0-9]*", "dxg", "kfd")
    there = built and any(any(Path("/dev").glob(name)) for name in names)
    return ["cpu", "cuda"] if there else ["cpu"]


def _create(options: Any, _backend_options: Any) -> Any:
    # Imported late: most programs that import torch never make a wiresum group.
    from wiresum.common import logs
    from wiresum.host_agent.backend import metrics, report
    from wiresum.host_agent.backend.create import create

    logs.configure_library()
    # Not every launcher sets RANK; the group knows its rank.
    members = list(options.global_ranks_in_group)
    rank = members[options.group_rank] if members else options.group_rank
    logs.bind(rank=rank)
    report.set_group(rank, options.group_size)
    metrics.serve(rank=rank)
    return create(options)
