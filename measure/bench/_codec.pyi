"""The codec's loops, timed; see ``native/``."""

def isa() -> str:
    """The instruction set in use in this module: avx512, avx2 or baseline."""

def use_isa(name: str) -> bool:
    """Use another instruction set in this module; False if this machine does not have it."""

def time_codec(
    dtype: str, field: int, workers: int, elements: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round for exponents, quantize, encode (both), dequantize, and memcpy.

    ``copy_in``, ``copy_out``: of as many bytes as the tensor has, to and from a buffer that is used
    over and over, as packets are; ``copy``: of the tensor into another one.
    Raises ``CodecError`` if the field has no budget for so many workers.
    """
