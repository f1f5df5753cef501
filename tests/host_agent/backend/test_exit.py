"""How a script ends whose collectives went over gloo."""

import subprocess
from pathlib import Path

from support.training import spawned

HASTY = Path(__file__).with_name("hasty.py")


def test_a_script_may_end_while_gloo_still_holds_its_tensors():
    for _ in range(2):
        done = subprocess.run(
            [*spawned(2), str(HASTY)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
