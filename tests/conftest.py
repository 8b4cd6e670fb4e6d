"""Hypothesis profiles, chosen with HYPOTHESIS_PROFILE: `fast` for every day, `fuzz` for `make fuzz` (ten minutes)."""

import os

from hypothesis import HealthCheck, settings

# Records of many nested fields are slow to draw the first time; that says nothing about the code under test.
_SLOW_START = [HealthCheck.too_slow]

# A deadline would make a busy machine look like a bug.
settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=_SLOW_START)
settings.register_profile("fuzz", max_examples=1_000, deadline=None, suppress_health_check=_SLOW_START)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
