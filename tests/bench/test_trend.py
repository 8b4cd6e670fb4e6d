"""The verdict on how a cost grows."""

import pytest

from paygate.bench.trend import trend_of


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        ([200, 202, 199, 203], "flat: +0.6 us a decade"),
        ([200, 230, 260, 290], "logarithmic: +30 us a decade"),
        ([290, 260, 230, 200], "falling: -30 us a decade"),
        # 200 us and a tenth of a microsecond a row.
        ([200, 201, 210, 300], "worse than logarithmic: 300 us at the last, where the logarithm expects 213.7"),
        ([200, 900], ""),
        # Three that fall by chance foretell nothing of the fourth.
        ([750.6, 781.6, 667.8, 746.1], "flat: -12.7 us a decade"),
    ],
)
def test_costs_over_sizes_that_grow_tenfold(costs: list[float], told: str) -> None:
    assert trend_of([(10.0 ** (3 + n), float(cost)) for n, cost in enumerate(costs)], "us") == told
