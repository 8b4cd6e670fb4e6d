"""Hypothesis strategies for every record of the wire format, derived from the field declarations (R20, R25)."""

import dataclasses
import unicodedata
from functools import cache
from typing import Any, Final, TypeVar

from hypothesis import assume
from hypothesis import strategies as st

from paygate.codec import messages, sealed
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.frame import Header

R = TypeVar("R", bound=Record)

RECORDS: Final[list[type[Record]]] = [
    Header,
    *(
        declared
        for declared in (vars(messages) | vars(sealed)).values()
        if isinstance(declared, type) and issubclass(declared, Record) and dataclasses.is_dataclass(declared)
    ),
]
"""Everything that has a layout: all messages, and what they are made of."""


@cache
def field_values(field: Field) -> st.SearchStrategy[Any]:
    """Legal values of a field, its extremes among them."""
    match field:
        case Uint():
            return st.integers(field.minimum, field.maximum)
        case Choice():
            return st.sampled_from(list(field.choices))
        case Boolean():
            return st.booleans()
        case Opaque():
            drawn = st.binary(min_size=field.size, max_size=field.size)
            return st.just(bytes(field.size)) | drawn if field.zero_allowed else drawn.filter(any)
        case Blob():
            return st.binary(min_size=field.minimum, max_size=field.maximum)
        case Text():
            return st.just("") | _texts(field) if field.minimum == 0 else _texts(field)
        case Counted():
            return st.lists(field_values(field.item), min_size=field.minimum, max_size=field.maximum).map(tuple)
        case Nested():
            return records(field.record)
    raise AssertionError(f"no strategy for {type(field).__name__}")


@cache
def _texts(field: Text) -> st.SearchStrategy[str]:
    """Texts of at least one character."""
    if field.charset is None:
        drawn = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=field.maximum)
        return drawn.map(lambda text: _cut(unicodedata.normalize("NFC", text), field.maximum)).filter(field.is_legal)
    if not field.is_legal("A"):
        return st.from_regex(field.charset, fullmatch=True)
    # from_regex is very slow at long texts, so characters that may come first and later are found by trial.
    first = [c for c in map(chr, range(128)) if field.is_legal(c)]
    later = "".join(c for c in map(chr, range(128)) if field.is_legal("A" + c))
    drawn = st.text(later, max_size=field.maximum - 1)
    longest = st.text(later, min_size=field.maximum - 1, max_size=field.maximum - 1)
    return st.builds(str.__add__, st.sampled_from(first), drawn | longest).filter(field.is_legal)


def _cut(text: str, size_max: int) -> str:
    while len(text.encode()) > size_max:
        text = text[:-1]
    return text


@st.composite
def records(draw: st.DrawFn, cls: type[R]) -> R:
    """Legal values of a record.

    Where a rule between fields is broken, the field that it names is drawn anew, and moved to one of its extremes
    if chance does not meet the rule: so every record is legal in the end, whatever its rules are.
    """
    types = {f.name: f.type for f in fields_of(cls)}
    values = {name: draw(field_values(field)) for name, field in types.items()}
    for _ in types:
        broken = cls(**values).broken_rule()
        if broken is None:
            break
        name = broken.field
        candidates = [draw(field_values(types[name])), *_extremes(draw, types[name], values[name])]
        meeting = [c for c in candidates if _meets(cls, {**values, name: c}, name)]
        assume(meeting)  # A latest time that is the end of the year 9999 leaves no later one.
        values[name] = meeting[0]
    return cls(**values)


def _meets(cls: type[Record], values: dict[str, Any], name: str) -> bool:
    broken = cls(**values).broken_rule()
    return broken is None or broken.field != name


def _extremes(draw: st.DrawFn, field: Field, value: Any) -> list[Any]:
    match field:
        case Uint():
            return [field.minimum, field.maximum]
        case Choice():
            return list(field.choices)
        case Opaque():
            cut = draw(st.integers(0, field.size))  # what must be zero from somewhere on, or all of it
            return [value[:cut].ljust(field.size, b"\0"), bytes(field.size), b"x" * field.size]
        case Text():
            return ["", draw(_texts(field).filter(bool))]
        case Blob():
            return [b"", b"x"]
    return []


def illegal_values(field: Field) -> list[Any]:
    """Values that may not stand in a field: each just outside what is legal, and some of another type."""
    wrong: list[Any] = [None, object(), 1.5, [], {}]
    match field:
        case Uint():
            wrong += [-1, field.minimum - 1, field.maximum + 1, 1 << 64, 1 << 200, True, "1", b"1"]
        case Choice():
            numbers = {int(choice) for choice in field.choices}
            wrong += [-1, 0, min(numbers), max(numbers) + 1, "CLIENT", True]
        case Boolean():
            wrong += [0, 1, 2, "yes", b"\1"]
        case Opaque():
            wrong += [b"", b"x" * (field.size - 1), b"x" * (field.size + 1), bytearray(b"x" * field.size)]
            wrong += ["x" * field.size, 7]
            wrong += [] if field.zero_allowed else [bytes(field.size)]
        case Blob():
            wrong += [b"x" * (field.maximum + 1), b"x" * 70_000, bytearray(b"x" * field.minimum), "text", 7]
            wrong += [b"x" * (field.minimum - 1)] if field.minimum else []
        case Text():
            wrong += [
                "A" * (field.maximum + 1),
                "A" * 300,
                "A\n",
                "A\0",
                "\x7f",
                "\x1b[0m",
                "\ud800",
                "e\u0301",
                b"A",
                7,
            ]
            wrong += ["\u202e", "\u2028", "\ufeff"]
            wrong += [""] if field.minimum else []
        case Counted():
            item = _any_legal(field.item)
            wrong += [(item,) * (field.maximum + 1), (item,) * 300, [item], iter(())]
            wrong += [()] if field.minimum else []
            wrong += [(bad,) for bad in illegal_values(field.item)]
        case Nested():
            wrong += ["record", b"record", {}, Other()]
    return [value for value in wrong if isinstance(field, Counted) or not field.is_legal(value)]


class Other(Record):
    """A record that is a part of no other."""


def _any_legal(field: Field) -> Any:
    match field:
        case Uint():
            return field.minimum
        case Opaque():
            return b"x" * field.size
        case Nested():
            return field.record(**{f.name: _any_legal(f.type) for f in fields_of(field.record)})
        case Choice():
            return next(iter(field.choices))
        case Blob():
            return b"x" * field.minimum
    raise AssertionError(f"no counted field holds {type(field).__name__}")
