"""How a script ends whose collectives went over gloo."""

import subprocess
from pathlib import Path

from support.training import spawned

AGAIN = Path(__file__).with_name("again_and_again.py")
HASTY = Path(__file__).with_name("hasty.py")


def test_a_script_may_end_while_gloo_still_holds_its_tensors():
    for _ in range(2):
        done = subprocess.run(
            [*spawned(2), str(HASTY)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr


def test_a_model_may_end_right_after_its_group(tmp_path):
    """With gloo alone, about one in 25 such ends hangs: the group is freed with the GIL held."""
    ended = subprocess.run(
        [*spawned(2), str(AGAIN), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("ended well") == 2
