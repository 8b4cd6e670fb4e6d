"""What the cases name is in the spec, so that a failure leads to the sentence that was broken."""

import re
from pathlib import Path

import pytest

from paygate.conform.cases import Case
from paygate.conform.roles import ROLES

SPEC = (Path(__file__).parents[2] / "spec" / "protocol.md").read_text(encoding="utf-8")
SECTIONS = set(re.findall(r"^#{2,3} (?:Appendix )?([0-9]+(?:\.[0-9]+)?|[A-Z])\b", SPEC, re.MULTILINE))
NUMBERS = set(re.findall(r"\*\*(PG-[A-Z]+-[0-9]+)\.\*\*", SPEC))
CASES = [case for role in ROLES.values() for case in role.catalogue]


def test_the_spec_was_read() -> None:
    assert len(SECTIONS) > 40
    assert len(NUMBERS) > 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case_id)
def test_a_case_names_what_is_in_the_spec(case: Case) -> None:
    assert set(case.sections) <= SECTIONS
    assert set(case.requirements) <= NUMBERS
    assert case.expects.endswith(".")
