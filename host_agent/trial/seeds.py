"""The random numbers of a trial: what can be set from outside of the script.

At the start of each worker the generators of Python, numpy and torch are seeded. A script that
calls ``torch.manual_seed`` itself gets its own seed with seed 0, and another one, shifted alike on
all ranks, with the others. Generators that a script makes and seeds itself (``torch.Generator``,
``numpy.random.default_rng``) are the script's own: it can add WIRESUM_SEED to theirs.
"""

import functools
import random
from typing import Any

SHIFT = 1_000_003
"""Between two seeds."""


def install(seed: int) -> None:
    """Seed all generators, and shift what the script asks ``torch.manual_seed`` for."""
    import torch

    start = seed * SHIFT
    random.seed(start)
    try:
        import numpy
    except ImportError:
        pass
    else:
        numpy.random.seed(start % 2**32)
    torch.manual_seed(start)
    if not seed:
        return
    original = torch.manual_seed

    @functools.wraps(original)
    def manual_seed(given: Any) -> Any:
        return original((int(given) + start) % 2**64)  # as torch itself reads negative ones

    torch.manual_seed = manual_seed  # type: ignore[assignment]
    torch.random.manual_seed = manual_seed  # type: ignore[assignment]
