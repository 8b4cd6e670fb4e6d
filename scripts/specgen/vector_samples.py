"""Values at the edges of what a declaration allows, and encodings just outside of it.

Everything is derived from a field's declaration (range, size, codes, rules); only texts are chosen by hand, since a
character set does not say which characters are worth trying.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

from paygate.codec.fields import (
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Rule,
    Text,
    Uint,
    fields_of,
)
from specgen.vector_values import encode, encode_field, prefixed

R = TypeVar("R", bound=Record)


class TextSamples(NamedTuple):
    """Texts of one charset: the shortest and the longest that are legal, and bytes that are not."""

    shortest: str
    longest: str
    illegal: dict[str, bytes]


_NOT_UTF8: Final = {
    "not_utf8": b"A\xff",
    "overlong_utf8": b"A\xc0\x80",
    "surrogate_in_utf8": b"\xed\xa0\x80",
    "cut_utf8": b"A\xe2\x82",
}
_IDENTIFIER: Final = TextSamples(
    "0",
    "Z.-_" + "z9" * 14,
    {
        "begins_with_dot": b".A",
        "begins_with_dash": b"-A",
        "begins_with_underscore": b"_A",
        "blank": b"A B",
        "slash": b"A/B",
        "bar": b"A|B",
        "line_feed": b"A\n",
        "zero_byte": b"A\0",
        "not_ascii": "A\u00e9".encode(),
        **_NOT_UTF8,
    },
)
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F)))
TEXT_SAMPLES: Final[dict[str | None, TextSamples]] = {
    r"[A-Za-z0-9][A-Za-z0-9._-]*": _IDENTIFIER,
    r"[!-{}~]+": TextSamples(
        "!",
        "{}~" + "9" * 29,
        {
            "blank": b"43 21",
            "bar": b"43|21",
            "tab": b"4321\t",
            "delete": b"4321\x7f",
            "not_ascii": "4321\u0663".encode(),
            **_NOT_UTF8,
        },
    ),
    r"[A-Z]{3}": TextSamples(
        "AAA",
        "ZZZ",
        {"two_letters": b"IN", "lower_case": b"inr", "digit": b"IN1", "not_ascii": "I\u00d1".encode(), **_NOT_UTF8},
    ),
    r"[A-Z]{4}P[0-9]{17}": TextSamples(
        "AAAAP00001010100000000",
        "ZZZZP99999123199999999",
        {
            "digit_missing": b"PGBKP1202601020000001",
            "lower_case": b"pgbkp12026010200000001",
            "no_p": b"PGBKN12026010200000001",
            "letter_among_digits": b"PGBKP1202601020000000A",
            "blank_at_end": b"PGBKP1202601020000001 ",
            **_NOT_UTF8,
        },
    ),
    r"[ -~]*": TextSamples(
        "x",
        (_PRINTABLE * 2)[:120],
        {
            "line_feed": b"a\nb",
            "escape": b"\x1b[0m",
            "delete": b"a\x7f",
            "zero_byte": b"a\0",
            "not_ascii": "\u00e9".encode(),
            **_NOT_UTF8,
        },
    ),
    None: TextSamples(
        "x",
        "\U0001f600" * 16,
        {
            "not_nfc": "e\u0301".encode(),
            "not_nfc_singleton": "\u212b".encode(),
            "bell": b"a\x07",
            "line_feed": b"a\nb",
            "zero_byte": b"a\0",
            "delete": b"a\x7f",
            "c1_control": "a\u0085".encode(),
            "right_to_left_override": "a\u202eb".encode(),
            "zero_width_space": "a\u200bb".encode(),
            "byte_order_mark": "\ufeffa".encode(),
            "line_separator": "a\u2028b".encode(),
            "paragraph_separator": "a\u2029b".encode(),
            "private_use": "\ue000".encode(),
            "noncharacter": "\ufffe".encode(),
            **_NOT_UTF8,
        },
    ),
}
"""By the charset of a Text. The unassigned characters among the illegal are those that never will be assigned."""


def at_lower_end(value: R) -> R:
    """The record with every field at its least value that the rules between fields allow; codes stay."""
    return _at_end(value, _least)


def at_upper_end(value: R) -> R:
    """The record with every field at its greatest value that the rules between fields allow; codes stay."""
    return _at_end(value, _greatest)


def _at_end(value: R, ends: Any) -> R:
    for field in fields_of(type(value)):
        for end in ends(field.type, getattr(value, field.name)):
            changed = with_field(value, field.name, end)
            if changed.broken_rule() is None:
                value = changed
                break
    return value


def with_field(value: R, name: str, new: Any) -> R:
    """The record with another value in one field, legal or not."""
    return type(value)(**{f.name: getattr(value, f.name) for f in fields_of(type(value))} | {name: new})


def _least(field: Field, value: Any) -> list[Any]:
    match field:
        case Uint():
            return [field.minimum, field.minimum + 1]
        case Opaque():
            least = bytes(field.size - 1) + b"\1"
            return [bytes(field.size), least] if field.zero_allowed else [least]
        case Blob():
            return [bytes(field.minimum), b"\0"]
        case Text():
            shortest = TEXT_SAMPLES[field.charset].shortest
            return [shortest] if field.minimum else ["", shortest]
        case Counted(item=Nested()):
            return [(at_lower_end(value[0]),) * field.minimum]
        case Counted():
            return [tuple(_least(field.item, None)[:1]) * field.minimum]
        case Nested():
            return [at_lower_end(value)]
    return []


def _greatest(field: Field, value: Any) -> list[Any]:
    match field:
        case Uint():
            return [field.maximum]
        case Opaque():
            return [b"\xff" * field.size]
        case Blob():
            return [b"\xff" * field.maximum]
        case Text():
            return [TEXT_SAMPLES[field.charset].longest]
        case Counted(item=Uint() as item):
            # All different, and the lowest among them: in Hello that is the version that exists.
            return [(*(item.maximum - i for i in range(field.maximum - 1)), item.minimum)]
        case Counted(item=Nested()):
            return [(at_upper_end(value[0]),) * field.maximum]
        case Counted():
            return [tuple(_greatest(field.item, None)) * field.maximum]
        case Nested():
            return [at_upper_end(value)]
    return []


class Fault(NamedTuple):
    """An encoding with one thing wrong: the path of the field at fault, what is wrong, and the bytes."""

    path: str
    name: str
    data: bytes


def illegal_values(value: Record) -> Iterator[Fault]:
    """The record's encoding with one field just outside its declaration, each field and each way in turn."""
    parts = [encode_field(f.type, getattr(value, f.name)) for f in fields_of(type(value))]
    for index, field in enumerate(fields_of(type(value))):
        before, after = b"".join(parts[:index]), b"".join(parts[index + 1 :])
        for path, name, data in _illegal(field.type, getattr(value, field.name)):
            yield Fault(f"{field.name}.{path}" if path else field.name, name, before + data + after)


def _illegal(field: Field, value: Any) -> Iterator[Fault]:
    match field:
        case Nested():
            yield from illegal_values(value)
        case Counted():
            yield from _illegal_list(field, value)
        case _:
            for name, data in _illegal_bytes(field):
                yield Fault("", name, data)


def _illegal_list(field: Counted, value: tuple[Any, ...]) -> Iterator[Fault]:
    item = value[0] if value else _least(field.item, None)[0]
    many = encode_field(field.item, item) * (field.maximum + 1)
    yield Fault("", "too_many_items", bytes([field.maximum + 1]) + many)
    if field.minimum:
        yield Fault("", "too_few_items", bytes([field.minimum - 1]))
    if value:
        rest = b"".join(encode_field(field.item, other) for other in value[1:])
        for path, name, data in _illegal(field.item, item):
            yield Fault(path, f"item_{name}", bytes([len(value)]) + data + rest)


def _illegal_bytes(field: Field) -> Iterator[tuple[str, bytes]]:
    match field:
        case Uint():
            if field.minimum:
                yield "below_minimum", (field.minimum - 1).to_bytes(field.width)
            if field.maximum < (1 << 8 * field.width) - 1:
                yield "above_maximum", (field.maximum + 1).to_bytes(field.width)
                yield "all_ones", b"\xff" * field.width
        case Choice():
            numbers = {int(choice) for choice in field.choices}
            beside = {number + step for number in numbers for step in (-1, 1)} | {0, (1 << 8 * field.width) - 1}
            for number in sorted(n for n in beside - numbers if 0 <= n < 1 << 8 * field.width):
                yield f"unknown_code_{number}", number.to_bytes(field.width)
        case Boolean():
            yield "two", b"\2"
            yield "all_ones", b"\xff"
        case Opaque(zero_allowed=False):
            yield "all_zero", bytes(field.size)
        case Blob():
            yield "too_long", prefixed(bytes(field.maximum + 1), field.PREFIX_SIZE)
            if field.minimum:
                yield "too_short", prefixed(bytes(field.minimum - 1), field.PREFIX_SIZE)
        case Text():
            samples = TEXT_SAMPLES[field.charset]
            yield "too_long", prefixed((samples.longest.encode() + b"A" * field.maximum)[: field.maximum + 1], 1)
            if field.minimum:
                yield "too_short", prefixed(samples.shortest.encode()[: field.minimum - 1], 1)
            for name, data in samples.illegal.items():
                yield name, prefixed(data, field.PREFIX_SIZE)


def broken_rules(variants: Iterable[R], donors: Iterable[R] = ()) -> Iterator[Fault]:
    """Encodings whose fields are each legal, but break exactly one rule between fields.

    Each record of `variants` gets, in each field, the values that the others have there, and those of `donors`,
    which need not be legal; those that break one rule themselves are given too.
    """
    others = [*variants, *donors]
    for donor in donors:
        broken = _broken(donor)
        if len(broken) == 1:
            yield Fault(broken[0].field, "alone", encode(donor))
    for value in variants:
        seen: set[tuple[str, str]] = set()
        for field in fields_of(type(value)):
            for other in others:
                changed = with_field(value, field.name, getattr(other, field.name))
                broken = _broken(changed)
                if len(broken) != 1:
                    continue
                shown = getattr(other, field.name)
                what = f"{field.name}_{shown.name.lower()}" if hasattr(shown, "name") else field.name
                if (broken[0].field, what) not in seen:
                    seen.add((broken[0].field, what))
                    yield Fault(broken[0].field, what, encode(changed))


def _broken(value: Record) -> list[Rule]:
    return [rule for rule in type(value).rules if not rule.holds(value)]


def cuts(value: Record) -> Iterator[Fault]:
    """The record's encoding, ending one byte before the end of each field in turn."""
    whole = encode(value)
    for path, end in _ends(value):
        yield Fault(path, "cut", whole[: end - 1])


def _ends(value: Record) -> Iterator[tuple[str, int]]:
    start = 0
    for field in fields_of(type(value)):
        inner = getattr(value, field.name)
        size = len(encode_field(field.type, inner))
        if isinstance(field.type, Nested):
            yield from ((f"{field.name}.{path}", start + end) for path, end in _ends(inner))
        elif isinstance(field.type, Counted) and isinstance(field.type.item, Nested):
            yield field.name, start + 1
            yield from ((f"{field.name}.{path}", start + 1 + end) for path, end in _ends(inner[0]))
        elif size:
            yield field.name, start + size
        start += size
