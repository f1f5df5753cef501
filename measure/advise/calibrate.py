"""Measures at once, on this machine, what the hosts pay: the codec and a cipher, on one core."""

import statistics
import time

from wiresum.measure import lines
from wiresum.measure.advise.errors import AdviceError
from wiresum.measure.model.costs import Costs, Range

_SIZE = 4 << 20
_ROUNDS = 5
_FIELDS = (32, 16, 8)


def calibrate(workers: int) -> Costs:
    """Costs with this machine's speeds; takes less than a second.

    Raises :class:`AdviceError` if wiresum was built without its benchmarks' native part.
    """
    from dataclasses import replace

    return replace(_codec(workers), cipher=Range.about(_cipher(), 0.7, 1.3))


def _codec(workers: int) -> Costs:
    try:
        from wiresum.measure.bench import _codec as native
    except ImportError:
        raise AdviceError(lines.NO_NATIVE_PART.of()) from None
    encode, decode = {}, {}
    for field in _FIELDS:
        seconds = native.time_codec("float32", field, min(workers, 64), _SIZE // 4, _ROUNDS)
        encode[field] = _SIZE / statistics.median(seconds["encode"])
        decode[field] = _SIZE / statistics.median(seconds["dequantize"])
    return Costs().with_codec(encode, decode)


def _cipher() -> float:
    """AES-128-GCM, in messages of a frame's size: bytes per second."""
    import os

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, message = AESGCM(os.urandom(16)), bytes(1440)
    begin = time.perf_counter()
    count = 2000
    for number in range(count):
        cipher.encrypt(number.to_bytes(12, "big"), message, None)
    return count * len(message) / (time.perf_counter() - begin)
