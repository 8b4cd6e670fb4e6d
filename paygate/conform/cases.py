"""How a case is declared, what it may raise, and how cases are chosen by section, requirement or ID."""

import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from paygate.conform.trial import Trial

CASE_MS_MAX: Final = 60_000
"""No case may take longer, unless it is slow and says how long: each wait is bounded, and so is their sum."""
SLOW_MS: Final = 15_000
"""A case that has to wait longer than this is slow, and left out by --no-slow."""

_SECTION: Final = re.compile(r"[0-9]+(\.[0-9]+)*|[A-Z]")
_REQUIREMENT: Final = re.compile(r"PG-[A-Z]+(-[0-9]+)?")


class Failed(Exception):
    """The implementation under test did something else than the spec says."""

    def __init__(self, expected: str, got: object) -> None:
        self.expected = expected
        self.got = str(got)
        super().__init__(f"expected {expected}; got {got}")


class Skipped(Exception):
    """The case can't be run here; the text says why, for somebody who knows only the command line."""


CANCELLED: Final = "cancelled"
"""Why a case was skipped that did not run, or not to its end, because the run was broken off."""


class WorldUsedUp(Skipped):
    """The case can't be run because the world has no more of what it uses up; a run with one does not end with 0."""


class Unreachable(Exception):
    """Nobody answers at the address under test; without it no case means anything."""


def require(holds: bool, expected: str, got: object) -> None:
    """Fail the case unless it holds. `expected` says what would have been right, `got` what was seen."""
    if not holds:
        raise Failed(expected, got)


Body = Callable[["Trial"], Coroutine[Any, Any, None]]
Prepare = Callable[["Trial"], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that an implementation must do."""

    case_id: str
    sections: tuple[str, ...]
    """Sections of spec/protocol.md."""
    requirements: tuple[str, ...]
    """Numbered requirements (`PG-...`) that it proves."""
    expects: str
    """What is expected, in one sentence."""
    body: Body
    waits_ms: int
    """How long it must wait by its nature, for a timer of the implementation under test."""
    is_exclusive: bool
    """Whether it disturbs others, and so runs alone after them."""

    @property
    def is_slow(self) -> bool:
        """Whether --no-slow leaves it out."""
        return self.waits_ms > SLOW_MS

    @property
    def limit_ms(self) -> int:
        """When the case is given up."""
        return self.waits_ms + CASE_MS_MAX

    def is_selected_by(self, selector: str) -> bool:
        """Whether a SECTION argument means this case."""
        if _REQUIREMENT.fullmatch(selector):
            return any(r == selector or r.startswith(f"{selector}-") for r in self.requirements)
        if _SECTION.fullmatch(selector):
            return any(s == selector or s.startswith(f"{selector}.") for s in self.sections)
        return self.case_id == selector or self.case_id.startswith(f"{selector}.")


class UnknownSelector(ValueError):
    """A SECTION argument that means no case; the text lists what exists."""


class Catalogue:
    """The cases of one role under test, in the order of the sections that they are first of all about.

    `prepare` is the story that runs before all cases and whose result they find in `Trial.shared`; its links and
    background stories live as long as the run.
    """

    def __init__(self, role: str, prepare: Prepare) -> None:
        self.role = role
        self.prepare = prepare
        self._cases: dict[str, Case] = {}

    def __iter__(self) -> Iterator[Case]:
        return iter(sorted(self._cases.values(), key=lambda case: _section_order(case.sections[0])))

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, case_id: str) -> Case:
        return self._cases[case_id]

    def case(
        self,
        name: str,
        expects: str,
        *where: str,
        waits_ms: int = 0,
        exclusive: bool = False,
    ) -> Callable[[Body], Body]:
        """Declare the case `ROLE.name`. The decorated coroutine passes by returning.

        `where`: the sections (`5.1`) and requirements (`PG-LNK-2`) of the spec that it is about.
        """
        requirements = tuple(place for place in where if _REQUIREMENT.fullmatch(place))
        sections = tuple(place for place in where if place not in requirements)
        assert sections, where
        assert all(_SECTION.fullmatch(section) for section in sections), where

        def declare(body: Body) -> Body:
            case_id = f"{self.role}.{name}"
            assert case_id not in self._cases, f"{case_id} is declared twice"
            self._cases[case_id] = Case(case_id, sections, requirements, expects, body, waits_ms, exclusive)
            return body

        return declare

    def select(self, selectors: Iterable[str]) -> list[Case]:
        """The cases that any of the selectors means; all without one. Raises UnknownSelector."""
        wanted = list(selectors)
        for selector in wanted:
            if not any(case.is_selected_by(selector) for case in self):
                raise UnknownSelector(f"{selector!r} names no case of the {self.role}; {self._what_exists()}")
        return [case for case in self if not wanted or any(case.is_selected_by(s) for s in wanted)]

    def _what_exists(self) -> str:
        sections = sorted({s for case in self for s in case.sections}, key=_section_order)
        numbers = sorted({r.rpartition("-")[0] for case in self for r in case.requirements})
        groups = dict.fromkeys(case.case_id.rpartition(".")[0] for case in self)
        told = [f"sections {', '.join(sections)}"]
        told += [f"requirements {', '.join(f'{n}-…' for n in numbers)}"] if numbers else []
        told += [f"groups of cases {', '.join(groups)}"]
        return "; ".join(told)


def _section_order(section: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in section.split("."))
