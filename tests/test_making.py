"""Frozen dataclasses made by way of a draft are the same as those that their `__init__` makes."""

import dataclasses
from typing import Any

import pytest

from paygate.making import maker_of


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    one: int
    other: str = "none"


@dataclasses.dataclass(frozen=True, slots=True)
class Triple(Pair):
    third: Any = None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (maker_of(Pair)(1, "x"), Pair(1, "x")),
        (maker_of(Pair)(1), Pair(1)),
        (maker_of(Pair)(other="x", one=1), Pair(1, "x")),
        (maker_of(Triple)(1, "x", [2]), Triple(1, "x", [2])),
    ],
)
def test_a_maker_makes_what_the_class_makes(made: Pair, expected: Pair) -> None:
    assert made == expected
    assert type(made) is type(expected)
    assert repr(made) == repr(expected)
    assert not hasattr(made, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.one = 2  # type: ignore[misc]  # frozen
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.other


def test_a_maker_refuses_what_the_class_refuses() -> None:
    with pytest.raises(TypeError):
        maker_of(Pair)()  # type: ignore[call-arg]  # one is missing
    with pytest.raises(TypeError):
        maker_of(Pair)(1, "x", 3)  # type: ignore[call-arg]  # one too many


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    one: int

    def __post_init__(self) -> None:
        assert self.one


@dataclasses.dataclass(frozen=True)
class Roomy:
    one: int


@dataclasses.dataclass(frozen=True, slots=True)
class Fresh:
    ones: list[int] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("cls", [Checked, Roomy, Fresh, int])
def test_a_class_that_does_more_than_set_its_fields_has_no_maker(cls: Any) -> None:
    with pytest.raises(TypeError):
        maker_of(cls)
