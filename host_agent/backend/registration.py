"""Makes ``init_process_group("wiresum")`` known to torch. Loaded by every ``import torch``."""

from typing import Any

BACKEND = "wiresum"
DEVICES = ["cpu", "cuda"]


def register_backend() -> None:
    """Register the backend; does nothing if torch has no ``torch.distributed``."""
    import torch.distributed as dist

    if not dist.is_available() or BACKEND in dist.Backend.backend_list:
        return
    dist.Backend.register_backend(BACKEND, _create, extended_api=True, devices=list(DEVICES))


def _create(options: Any, _backend_options: Any) -> Any:
    # Imported late: most programs that import torch never make a wiresum group.
    from wiresum.host_agent.backend.create import create

    return create(options)
