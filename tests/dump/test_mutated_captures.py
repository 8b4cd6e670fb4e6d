"""Damaged captures end in findings and JSON of its schema, never in a traceback, in a bounded memory: the short form of
`make dump-fuzz`.
"""

import random

import pytest
from dump.mutations import MEMORY_MAX, campaign, mutated


@pytest.mark.parametrize("seed", range(4))
def test_damaged_captures_never_fail_and_take_a_bounded_memory(seed: int) -> None:
    tally = campaign(seed, 75)
    assert tally.capture_count == 75
    assert tally.memory_max <= MEMORY_MAX
    # A campaign that is refused at the door, or finds nothing wrong, has tested nothing.
    assert tally.refused_count < 25
    assert tally.frame_count > 100
    assert tally.json_count > 20
    assert len(tally.findings) > 5


def test_a_campaign_can_be_replayed() -> None:
    assert mutated(random.Random("7 3")) == mutated(random.Random("7 3"))
    assert mutated(random.Random("7 3")) != mutated(random.Random("7 4"))
