"""A customer whose balance a case relies on is given to one case only, whatever became of the run."""

from pathlib import Path

import pytest

from paygate.conform.bank_spenders import Spenders
from paygate.conform.cases import Skipped, WorldUsedUp
from paygate.conform.world import Use, WorldCustomer

CUSTOMERS = [WorldCustomer(f"spender {number} é", "secret", 10_000, Use.SPENDING) for number in range(3)]


def test_a_run_that_was_broken_off_leaves_nobody_to_the_next(tmp_path: Path) -> None:
    world = tmp_path / "world.json"
    broken_off = Spenders.beside(world, CUSTOMERS)
    assert broken_off.take() == CUSTOMERS[0]
    later, at_the_same_time = Spenders.beside(world, CUSTOMERS), Spenders.beside(world, CUSTOMERS)
    assert later.take() == CUSTOMERS[1]
    assert at_the_same_time.take() == CUSTOMERS[2]


def test_when_all_have_spent_it_is_said_what_to_do(tmp_path: Path) -> None:
    for customer in CUSTOMERS:
        assert Spenders.beside(tmp_path / "world.json", CUSTOMERS).take() == customer
    with pytest.raises(WorldUsedUp, match=r"make a new world .*remove .*world-spent\.txt"):
        Spenders.beside(tmp_path / "world.json", CUSTOMERS).take()


def test_nobody_spends_who_could_not_be_noted(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="could not note who spends in"):
        Spenders.beside(tmp_path / "nowhere" / "world.json", CUSTOMERS).take()
