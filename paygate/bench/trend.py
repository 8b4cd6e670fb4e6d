"""How a cost grows with a size that grows tenfold from point to point: flat, logarithmic, or worse.

The rule: costs are fitted as a line over the logarithm of the size. If the last is more than a tenth above the line
through all before it, or above their mean where that line falls, the cost grows faster than the logarithm. Otherwise it
is flat where the line through all rises by at most a tenth of the mean over the whole range, and logarithmic where it
rises by more.
"""

from collections.abc import Sequence
from math import log10
from statistics import linear_regression, mean
from typing import Final

POINT_COUNT_MIN: Final = 3
"""Two lie on a line whatever they are."""
NOISE_SHARE: Final = 0.1
"""What medians of the same thing differ by on a machine that does other things too."""


def trend_of(points: Sequence[tuple[float, float]], unit: str) -> str:
    """The verdict on these points (size, cost), in order of size; empty if they are too few."""
    if len(points) < POINT_COUNT_MIN:
        return ""
    decades, costs = [log10(size) for size, _ in points], [cost for _, cost in points]
    before = linear_regression(decades[:-1], costs[:-1])
    # No cost falls as a size grows: a line that does is noise, and foretells nothing.
    expected = max(before.intercept + before.slope * decades[-1], mean(costs[:-1]))
    if costs[-1] > expected + NOISE_SHARE * abs(expected):
        return f"worse than logarithmic: {costs[-1]:.4g} {unit} at the last, where the logarithm expects {expected:.4g}"
    slope = linear_regression(decades, costs).slope
    rise = slope * (decades[-1] - decades[0])
    if abs(rise) <= NOISE_SHARE * mean(costs):
        return f"flat: {slope:+.3g} {unit} a decade"
    return f"{'logarithmic' if rise > 0 else 'falling'}: {slope:+.3g} {unit} a decade"
