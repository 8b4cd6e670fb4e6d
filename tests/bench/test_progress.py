"""Progress where nobody watches: a line for each step, beside how many there will be."""

import pytest

from paygate.bench.progress import ProgressBar


def test_steps_that_will_not_come_are_taken_off_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(3) as progress:
        progress.step("first")
        progress.drop(1)
        progress.step("last")
    assert capsys.readouterr().err.splitlines() == ["[1/3] first", "[2/2] last"]
