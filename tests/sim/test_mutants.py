"""The mutation gate: each bug of the table is caught by its seed, by the invariant that it breaks, and only with it."""

from functools import cache

import pytest
from sim import hunt
from sim.mutants import MUTANTS, Kinds, Mutant, world_of
from sim.shrink import Failure, failure_of

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@cache
def _run_without(seed: int, only: Kinds) -> Failure | None:
    return failure_of(world_of(seed, only))


@each_mutant
def test_a_mutant_is_caught_by_its_seed(mutant: Mutant) -> None:
    failure = mutant.run(mutant.seed)
    again = f"; find another seed with: python -m sim.hunt --update {mutant.name}"
    assert failure is not None, f"seed {mutant.seed} does not catch it any more{again}"
    assert failure.kind == mutant.breaks, f"{failure}{again}"


@each_mutant
def test_without_the_mutant_its_seed_passes(mutant: Mutant) -> None:
    assert _run_without(mutant.seed, mutant.only) is None


def test_the_table_names_each_mutant_once_and_what_it_is() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len({mutant.put_in for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.seed <= mutant.budget for mutant in MUTANTS), "a search from seed 1 finds it within its budget"


def test_a_hunt_finds_what_is_easy(capsys: pytest.CaptureFixture[str]) -> None:
    assert hunt.main(["--seed", "1", "hash-not-in-receipt"]) == 0
    assert "1 of 1 mutants caught within their budgets" in capsys.readouterr().out


def test_a_hunt_knows_its_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hunt.main(["no-such-mutant"])
    assert "there is no mutant no-such-mutant; there are synchronous-normal" in capsys.readouterr().err
