"""From the integers of a window to its deviation and its number of different values.

Offline works on arrays, online on plain numbers; both do the same operations on the same integers and
floats, in the same order, so they agree to the last bit.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["LEAST_WEIGHT", "deviation", "deviations", "different_values", "estimates"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

LEAST_WEIGHT = 1e-300  # of all that a decayed mean is of, after about a thousand half-lives: nothing is left
_LOW_BITS = 40  # of the sum of squares are in its low part
_WORD = 2.0**64
_MASK = 2**64 - 1
_HALF, _HALF_MASK = np.uint64(32), np.uint64(2**32 - 1)


def deviation(count: int, total: int, high: int, low: int, scale: int) -> float:
    """Give the sample standard deviation of `count` values from their sum and the two parts of their squares.

    Examples
    --------
    >>> deviation(2, 4, 0, 10, 1)  # of 1 and 3
    1.4142135623730951
    """
    if count < 2:
        return math.nan
    mean, rest = divmod(total, count)
    # The squares of the distances from the whole number next to the mean: nothing left to cancel.
    around = (high << _LOW_BITS) + low - mean * (total + rest)
    spread = float(around >> 64) * _WORD + float(around & _MASK)
    return math.sqrt(max(spread - float(rest * rest) / count, 0.0) / (count - 1)) / scale


def deviations(count: Ints, total: Ints, high: Ints, low: Ints, scale: int) -> Floats:
    """Give `deviation` of arrays."""
    enough = count > 1
    n = np.where(enough, count, 2)
    mean = total // n
    rest = total - mean * n
    product_high, product_low = _product(mean, total + rest)
    square_low = (high.astype(np.uint64) << np.uint64(_LOW_BITS)) + low.astype(np.uint64)
    square_high = (high >> (64 - _LOW_BITS)).astype(np.uint64) + (square_low < low.astype(np.uint64))
    around_low = square_low - product_low
    around_high = square_high - product_high - (square_low < product_low)
    spread = around_high.astype(np.float64) * _WORD + around_low.astype(np.float64)
    variance = np.maximum(spread - (rest * rest).astype(np.float64) / n, 0.0) / (n - 1)
    return np.where(enough, np.sqrt(variance) / scale, np.nan)


def _product(left: Ints, right: Ints) -> tuple[Words, Words]:
    """Multiply into 128 bits, in two's complement: the upper and the lower word."""
    is_negative = (left < 0) != (right < 0)
    a, b = np.abs(left).astype(np.uint64), np.abs(right).astype(np.uint64)
    a_high, a_low, b_high, b_low = a >> _HALF, a & _HALF_MASK, b >> _HALF, b & _HALF_MASK
    low, cross, other = a_low * b_low, a_low * b_high, a_high * b_low
    middle = (low >> _HALF) + (cross & _HALF_MASK) + (other & _HALF_MASK)
    low = (low & _HALF_MASK) | (middle << _HALF)
    high = a_high * b_high + (cross >> _HALF) + (other >> _HALF) + (middle >> _HALF)
    negated_low = ~low + np.uint64(1)
    negated_high = ~high + (negated_low == 0)
    return np.where(is_negative, negated_high, high), np.where(is_negative, negated_low, low)


@lru_cache(maxsize=64)
def estimates(buckets: int) -> Floats:
    """Give the estimated number of different values for 0, 1, ... buckets that hold any, rounded.

    When every bucket holds one, half an empty one is assumed.

    Examples
    --------
    >>> estimates(512)[[0, 1, 2, 300, 512]].tolist()
    [0.0, 1.0, 2.0, 451.0, 3549.0]
    """
    empty = [max(buckets - held, 0.5) for held in range(buckets + 1)]
    return np.array([float(round(-buckets * math.log(each / buckets))) for each in empty])


def different_values(cumulative: npt.NDArray[np.uint32], buckets: int) -> float:
    """Estimate how many values differ from the counts of their buckets, summed up along them."""
    held = int(np.count_nonzero(np.diff(cumulative))) + int(cumulative[0] != 0)
    return float(estimates(buckets)[held])
