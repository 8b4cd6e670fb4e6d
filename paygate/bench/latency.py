"""Latencies in HDR histograms: three digits at any size, whatever the longest turns out to be."""

from collections.abc import Iterable
from typing import Final

from hdrh.histogram import HdrHistogram

LATENCY_US_MAX: Final = 120_000_000
"""Two minutes: no payment of a run waits longer."""
_DIGIT_COUNT: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 100.0)
"""What reports show."""


class Latencies:
    """A histogram of latencies in microseconds."""

    def __init__(self, latencies_us: Iterable[int] = ()) -> None:
        self._histogram = HdrHistogram(1, LATENCY_US_MAX, _DIGIT_COUNT)
        for latency_us in latencies_us:
            self._histogram.record_value(max(1, latency_us))

    def percentile_us(self, percent: float) -> int:
        """The latency that `percent` of all don't exceed, to three digits."""
        return int(self._histogram.get_value_at_percentile(percent))

    def summary_us(self) -> dict[str, int]:
        """The percentiles that reports show, by name (`p50` to `max`)."""
        return {percentile_name(percent): self.percentile_us(percent) for percent in PERCENTILES}

    def encoded(self) -> str:
        """The whole histogram in the HDR log format (V2, compressed, base 64), for other tools."""
        return str(self._histogram.encode().decode())


def percentile_name(percent: float) -> str:
    """`p99.9` for 99.9; `max` for 100."""
    return "max" if percent >= 100 else f"p{percent:g}"
