"""What the workers of the backend's tests do: ``torchrun scenarios.py NAME[+NAME…] [BACKEND]``."""

import os
import sys

import scenarios_callbacks
import scenarios_carried
import scenarios_collectives
import scenarios_groups
import scenarios_lifecycle
import scenarios_sharded
import scenarios_tensors
import scenarios_torch
import scenarios_training
import torch.distributed as dist
from scenario_tools import LIMIT

MODULES = (
    scenarios_callbacks,
    scenarios_carried,
    scenarios_collectives,
    scenarios_groups,
    scenarios_lifecycle,
    scenarios_sharded,
    scenarios_tensors,
    scenarios_torch,
    scenarios_training,
)


def main() -> None:
    backend = sys.argv[2] if len(sys.argv) > 2 else "wiresum"
    if backend == "none":
        dist.init_process_group()
    else:
        dist.init_process_group(backend, timeout=LIMIT)
    for name in sys.argv[1].split("+"):
        (module,) = [module for module in MODULES if hasattr(module, name)]
        getattr(module, name)()
        print(f"{name} passed on rank {os.environ['RANK']}", flush=True)
    if "KEEP_GROUP" not in os.environ:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
