"""A histogram of whole numbers with a bounded relative error and a bounded memory.

Log-linear buckets, the idea of HDR histograms: every power of two is cut into 64 buckets of one width, so a bucket's
middle differs from any number in it by at most 1/128 of that number, below 1 %. Numbers below 128 have a bucket each.
A library would bring more options, none needed here, and a C extension to install.
"""

from typing import Final

SUB_BUCKET_BITS: Final = 6
"""64 buckets for each power of two: half of one is 1/128, 0.79 %, of the smallest number in it."""
VALUE_MAX: Final = (1 << 63) - 1
"""Larger numbers count as this one, so that there are at most 3,712 buckets: in nanoseconds, 292 years."""


class Histogram:
    """Counts numbers from 0 up; the smallest and the largest are exact."""

    __slots__ = ("_buckets", "_total", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._total = 0
        self.count = 0
        self.minimum = VALUE_MAX
        self.maximum = 0

    def add(self, value: int) -> None:
        """Count one number, which is not below 0."""
        assert value >= 0
        value = min(value, VALUE_MAX)
        shift = max(value.bit_length() - SUB_BUCKET_BITS - 1, 0)
        # The bits behind the leading one number the buckets of a power of two.
        index = (shift << SUB_BUCKET_BITS) + (value >> shift)
        self._buckets[index] = self._buckets.get(index, 0) + 1
        self._total += value
        self.count += 1
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)

    @property
    def mean(self) -> int:
        """The exact mean, rounded down; 0 of nothing."""
        return self._total // self.count if self.count else 0

    def per_mille(self, per_mille: int) -> int:
        """The smallest counted number that at least so many thousandths of all do not exceed, within 1 %.

        500 is the median, 999 the 99.9th percentile. 0 if nothing was counted.
        """
        if not self.count:
            return 0
        # In whole numbers: 0.999 * 1000 in floating point is not 999.
        rank = max(-(-per_mille * self.count // 1_000), 1)
        if rank >= self.count:
            # The largest number is known exactly.
            return self.maximum
        for index in sorted(self._buckets):
            rank -= self._buckets[index]
            if rank <= 0:
                break
        return min(max(_middle(index), self.minimum), self.maximum)


def _middle(index: int) -> int:
    shift = max((index >> SUB_BUCKET_BITS) - 1, 0)
    first = (index - (shift << SUB_BUCKET_BITS)) << shift
    return first + (1 << shift >> 1)
