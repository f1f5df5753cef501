"""Ends while gloo's threads still hold the tensors of its last collective.

They run only when nobody else wants the CPU, and get the GIL only when Python gives it away.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group("wiresum")
group = dist.group.WORLD  # as DDP does: gloo outlives destroy_process_group()
ones = torch.ones(1000)
dist.all_reduce(ones)
cpus = sorted(os.sched_getaffinity(0))
slowed = 0
for task in Path("/proc/self/task").iterdir():
    os.sched_setaffinity(int(task.name), {cpus[dist.get_rank() % len(cpus)]})
    if "gloo_runloop" in (task / "comm").read_text():
        os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
        slowed += 1
assert slowed, "torch has no gloo threads of this name any more"
sys.setswitchinterval(100)
dist.all_reduce(ones)
