"""Every numbered requirement of spec/protocol.md is named by a test, and no test names one that is not there.

A test names what it proves by the mark `@pytest.mark.pg("PG-FRM-3", ...)` on a function or class, or in `pytestmark` of
its module. The marks are read from the sources and not collected, which takes a second; so they must be written out
where they stand. A case of the conformance kit names its numbers where it is declared.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from specgen.document import requirements

from paygate.conform.roles import ROLES

ROOT: Final = Path(__file__).parents[2]
SPEC: Final = ROOT / "spec" / "protocol.md"
TESTS: Final = ROOT / "tests"


@dataclass(frozen=True, slots=True)
class Naming:
    """A number and who names it: a file and line, or a case of the conformance kit."""

    number: str
    where: str


@dataclass(frozen=True, slots=True)
class StrayMark:
    """A mark that marks no test, or that doesn't write its numbers out."""

    where: str
    fault: str


# -- marks -----------------------------------------------------------------------------------------------


def marks_in(source: str, name: str) -> Iterator[Naming | StrayMark]:
    """All marks of one file of tests, which is called `name`."""
    module = ast.parse(source)
    placed = set(_placed_marks(module)) if Path(name).name.startswith("test_") else set()
    for node in ast.walk(module):
        if not _is_mark(node):
            continue
        where = f"{name}:{node.lineno}"
        if node not in placed:
            yield StrayMark(where, "the mark is on nothing that pytest runs as a test")
        elif not node.args or node.keywords:
            yield StrayMark(where, "the mark names no numbers")
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield Naming(argument.value, where)
            else:
                yield StrayMark(where, "a number is not written out")


def _is_mark(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.pg"


def _placed_marks(module: ast.Module) -> Iterator[ast.expr]:
    """What stands where pytest takes a mark for a test from: decorators, and `pytestmark` of the module."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name("pytestmark")], value=value):
                yield from value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
            case ast.FunctionDef() | ast.AsyncFunctionDef() if statement.name.startswith("test_"):
                yield from statement.decorator_list
            case ast.ClassDef() if statement.name.startswith("Test"):
                yield from statement.decorator_list
                for method in statement.body:
                    if isinstance(method, ast.FunctionDef) and method.name.startswith("test_"):
                        yield from method.decorator_list


def marks_of_tests() -> list[Naming | StrayMark]:
    """The marks of all tests."""
    found: list[Naming | StrayMark] = []
    for path in sorted(TESTS.rglob("*.py")):
        found += marks_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    return found


def numbers_of_cases() -> list[Naming]:
    """What the cases of the conformance kit cite; tests/conform runs them all against our own servers."""
    cases = [case for role in ROLES.values() for case in role.catalogue]
    return [Naming(number, f"case {case.case_id}") for case in cases for number in case.requirements]


# -- what is wrong ---------------------------------------------------------------------------------------


def complaints(stated: Iterable[str], found: Iterable[Naming | StrayMark]) -> list[str]:
    """A line for each number that nothing names, each name of a number that isn't stated, and each stray mark."""
    stated, found = list(stated), list(found)
    named = {mark.number for mark in found if isinstance(mark, Naming)}
    lines = [f"{number} is named by no test" for number in stated if number not in named]
    for mark in found:
        if isinstance(mark, StrayMark):
            lines.append(f"{mark.where}: {mark.fault}")
        elif mark.number not in stated:
            lines.append(f"{mark.where}: {mark.number} is not in spec/protocol.md")
    return lines


def test_every_requirement_is_named_by_a_test_and_no_test_names_another() -> None:
    stated = [requirement.number for requirement in requirements(SPEC.read_text(encoding="utf-8"))]
    wrong = complaints(stated, [*marks_of_tests(), *numbers_of_cases()])
    assert not wrong, "\n".join(wrong)


# -- the check itself ------------------------------------------------------------------------------------

EXAMPLE: Final = """
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.pg("PG-A-1")]

@pytest.mark.pg("PG-A-2", "PG-A-3")
@pytest.mark.parametrize("x", [1])
def test_function(x): ...

@pytest.mark.pg("PG-A-4")
class TestClass:
    @pytest.mark.pg("PG-A-5")
    def test_method(self): ...

@pytest.mark.pg("PG-A-6")
async def test_coroutine(): ...
"""


def test_marks_are_found_wherever_pytest_takes_them_from() -> None:
    found = list(marks_in(EXAMPLE, "tests/test_example.py"))
    assert all(isinstance(mark, Naming) for mark in found)
    assert sorted(mark.number for mark in found if isinstance(mark, Naming)) == [f"PG-A-{n}" for n in range(1, 7)]
    assert Naming("PG-A-3", "tests/test_example.py:6") in found


def test_what_nothing_names_and_what_is_not_stated_is_listed() -> None:
    found = list(marks_in(EXAMPLE, "tests/test_example.py"))
    stated = [f"PG-A-{n}" for n in range(1, 7)]
    assert complaints(stated, found) == []
    assert complaints([*stated, "PG-A-7"], found) == ["PG-A-7 is named by no test"]
    assert complaints(stated[:-1], found) == ["tests/test_example.py:15: PG-A-6 is not in spec/protocol.md"]
    case = Naming("PG-A-7", "case bank.hello.opens")
    assert complaints([*stated, "PG-A-7"], [*found, case]) == []
    assert complaints(stated, [*found, case]) == ["case bank.hello.opens: PG-A-7 is not in spec/protocol.md"]


def test_a_mark_that_marks_no_test_proves_nothing() -> None:
    for source, name in (
        ('@pytest.mark.pg("PG-A-1")\ndef helper(): ...', "tests/test_example.py"),
        ('proves = pytest.mark.pg("PG-A-1")', "tests/test_example.py"),
        ('@pytest.mark.pg("PG-A-1")\ndef test_function(): ...', "tests/world.py"),
        ('class Helper:\n    @pytest.mark.pg("PG-A-1")\n    def test_method(self): ...', "tests/test_example.py"),
        ("@pytest.mark.pg()\ndef test_function(): ...", "tests/test_example.py"),
        ("@pytest.mark.pg(NUMBER)\ndef test_function(): ...", "tests/test_example.py"),
        ('@pytest.mark.pg(*["PG-A-1"])\ndef test_function(): ...', "tests/test_example.py"),
    ):
        found = list(marks_in(source, name))
        assert any(isinstance(mark, StrayMark) for mark in found), source
        assert any(f"{name}:" in line for line in complaints(["PG-A-1"], found)), source


def test_the_marks_of_this_project_and_the_cases_of_the_kit_are_read() -> None:
    assert any(isinstance(mark, Naming) for mark in marks_of_tests())
    cases = [case for role in ROLES.values() for case in role.catalogue]
    assert {mark.where for mark in numbers_of_cases()} == {f"case {c.case_id}" for c in cases if c.requirements}
