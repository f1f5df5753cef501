"""One of two ranks that probe their link: RANK FOLDER; writes what it finds into the folder."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from wiresum.host_agent.observe.probe import probe

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
found = probe(dist.FileStore(str(folder / "store"), 2), rank, 2, 30.0)
(folder / f"{rank}.json").write_text(json.dumps(found))
