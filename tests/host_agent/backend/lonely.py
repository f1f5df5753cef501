"""One of two ranks; the other one never comes."""

import datetime
import os

import torch.distributed as dist

os.environ["WORLD_SIZE"] = "2"
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
dist.init_process_group(
    "wiresum", store=store, rank=0, world_size=2, timeout=datetime.timedelta(seconds=60)
)
