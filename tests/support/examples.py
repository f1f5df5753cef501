"""How many examples hypothesis makes: a third of them in `make test`, all in `make test-slow`.

They are others in every run.
"""

import os

ALL = os.environ.get("WIRESUM_TEST_EXAMPLES") == "all"
LEAST = 10


def examples(count: int) -> int:
    """Of ``count`` examples those of this run: all, or a third, but ten at least."""
    return count if ALL else min(count, max(LEAST, count // 3))
