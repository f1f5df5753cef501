"""Where a normal distribution is best cut off, so that few even levels carry it. Without torch."""

import math


def clip_for(top: int) -> float:
    """Where normally distributed values of variance 1 are cut off, for ``top`` steps: the number,
    in steps of 1/16, with the least expected square of the error of stochastic rounding."""

    def error(clip: float) -> float:
        beyond = math.erfc(clip / math.sqrt(2)) / 2
        density = math.exp(-clip * clip / 2) / math.sqrt(2 * math.pi)
        return (2 * clip / top) ** 2 / 6 + 2 * ((1 + clip * clip) * beyond - clip * density)

    return min((sixteenths / 16 for sixteenths in range(8, 97)), key=error)
