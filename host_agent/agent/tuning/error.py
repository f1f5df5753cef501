"""The error of each field on this rank's own tensor: it is quantized, and compared.

The blocks have this rank's exponents, not the largest of all ranks: where ranks differ much, the
error of the sum is larger.
"""

import ctypes
from collections.abc import Mapping

from wiresum.host_agent._engine import decode, encode, exponents, layout
from wiresum.host_agent.agent.tuning.policy import FIELDS
from wiresum.host_agent.errors import CodecError

MOST = 1 << 20
"""Elements that are looked at, from the first one."""


def errors(data: int, count: int, workers: int) -> Mapping[int, float]:
    """Of each narrow field that has a budget: |decode(encode(x)) - x| / |x|; 0 for zeros.

    ``data`` is the address of ``count`` float32 numbers, which are only read. Empty if they hold
    Inf or NaN.
    """
    import numpy as np

    count = min(count, MOST)
    values = np.ctypeslib.as_array((ctypes.c_float * count).from_address(data))
    norm = float(np.linalg.norm(values))
    if not np.isfinite(norm):
        return {}
    found = {}
    zeros = np.zeros(count, np.float32)
    for field in FIELDS[1:]:
        try:
            block, bits = layout(count, field)
            codes = exponents(values, "float32", block=block)
            mine, theirs = (
                encode(each, "float32", codes, workers, bits, block=block)
                for each in (values, zeros)
            )
        except CodecError:
            continue
        lanes = mine + np.uint32(workers - 1) * theirs  # the others send zeros
        out = np.empty(count, np.float32)
        decode(lanes, out, "float32", codes, workers, bits, block=block)
        found[field] = float(np.linalg.norm(out - values)) / norm if norm else 0.0
    return found
