"""The formal model of a payment: all of its runs keep the promises, and without a rule some run breaks one."""

import shutil

import pytest
from check_model import AS_IT_IS, WITHOUT_A_RULE, Case, Finding, check
from outside_tools import unavailable


# The larger ones take some ten seconds each: `make model`.
@pytest.mark.parametrize("case", [AS_IT_IS[0], *WITHOUT_A_RULE], ids=lambda case: case.name)
def test_the_model(case: Case) -> None:
    if missing := [program for program in ("spin", "cc") if shutil.which(program) is None]:
        unavailable(f"{missing[0]} is missing")
    finding = check(case)
    assert finding.is_as_expected(case), f"found {finding.error or 'nothing'}\n{finding.schedule}"


@pytest.mark.parametrize(
    ("finds", "error", "is_expected"),
    [
        (None, None, True),
        (None, "assertion violated x<=1", False),
        ("x<=1", None, False),
        ("x<=1", "assertion violated x<=1", True),
        ("x<=1", "invalid end state", False),
    ],
)
def test_what_counts_as_expected(finds: str | None, error: str | None, *, is_expected: bool) -> None:
    assert Finding(1, error, 0.0, "").is_as_expected(Case("any", (), finds)) is is_expected
