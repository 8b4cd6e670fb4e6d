"""The kinds of field that the wire format is made of.

Strategy
--------
construct is lax where it looks strict: `Enum` lets unknown numbers through, `Flag` takes any byte, text may
be cut. So every field of a message is one of the few types below: a construct `Adapter` that refuses what is
out of range in both directions, and that carries what the spec, the dissectors and a compiled codec need
(size range, value range, words) as plain attributes. A refusal names the field and what was expected, never
the value: values can be secrets, and construct would print them.

A *record* is a frozen dataclass whose fields are declared with `public`, `secret` or `sized`; its layout is
derived from that declaration and from nothing else (R20). Containers never leave this package (style 4).
"""

import dataclasses
import re
import unicodedata
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Any, ClassVar, Final, TypeVar, dataclass_transform

import construct

from paygate.codec import limits

_WIRE: Final = "paygate.wire"
_UINTS: Final = {1: construct.Int8ub, 2: construct.Int16ub, 4: construct.Int32ub, 8: construct.Int64ub}


class BadValue(construct.ConstructError):  # type: ignore[misc]  # construct ships no types
    """A field's value is outside what its declaration allows; `expected` says what would have been right."""

    def __init__(self, expected: str, path: str) -> None:
        self.expected = expected
        super().__init__(f"expected {expected}", path=path)


class Field(construct.Adapter):  # type: ignore[misc]  # construct ships no types
    """Base of every field type.

    `size_min` and `size_max` are what the field takes on the wire, in bytes, its own length prefix included.
    `expected` describes every legal value in words.
    """

    size_min: int
    size_max: int
    expected: str

    def is_legal(self, value: Any) -> bool:
        """Whether `value` may stand on the wire."""
        raise NotImplementedError

    def _check(self, value: Any, path: str) -> Any:
        if not self.is_legal(value):
            raise BadValue(self.expected, path)
        return value

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(obj, path)

    def _encode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(obj, path)


class _UpTo(construct.Adapter):  # type: ignore[misc]  # construct ships no types
    """A length or count that is refused before anything behind it is read, so that no peer's number allocates (T24)."""

    def __init__(self, number: construct.Construct, maximum: int, unit: str) -> None:
        super().__init__(number)
        self.maximum = maximum
        self.unit = unit

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        if obj > self.maximum:
            raise BadValue(f"at most {self.maximum} {self.unit}", path)
        return obj

    def _encode(self, obj: Any, context: Any, path: str) -> Any:
        return self._decode(obj, context, path)


class Uint(Field):
    """An unsigned big-endian integer of `width` bytes within [minimum, maximum]; `unit` in words."""

    def __init__(self, width: int, minimum: int = 0, maximum: int | None = None, unit: str = "") -> None:
        super().__init__(_UINTS[width])
        self.width = width
        self.minimum = minimum
        self.maximum = (1 << (8 * width)) - 1 if maximum is None else maximum
        self.unit = unit
        self.size_min = self.size_max = width
        self.expected = f"a whole number from {self.minimum} to {self.maximum}"

    def is_legal(self, value: Any) -> bool:
        return type(value) is int and self.minimum <= value <= self.maximum


class Choice(Field):
    """One member of an `IntEnum`, in `width` bytes; any other number is refused."""

    def __init__(self, width: int, choices: type[IntEnum]) -> None:
        super().__init__(_UINTS[width])
        self.width = width
        self.choices = choices
        self.size_min = self.size_max = width
        self.expected = f"a code of the registry {choices.__name__}"
        self.by_code = {int(c): c for c in choices}

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, self.choices)

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(self.by_code.get(obj), path)


class Boolean(Field):
    """One byte, 0 or 1; construct's own Flag would take 7 for true."""

    def __init__(self) -> None:
        super().__init__(construct.Int8ub)
        self.size_min = self.size_max = 1
        self.expected = "0 or 1"

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, bool)

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        if obj not in (0, 1):
            raise BadValue(self.expected, path)
        return obj == 1


class Opaque(Field):
    """Exactly `size` bytes, no length prefix. With `zero_allowed` False, all zeros are refused."""

    def __init__(self, size: int, *, zero_allowed: bool = True) -> None:
        super().__init__(construct.Bytes(size))
        self.size = size
        self.zero_allowed = zero_allowed
        self.size_min = self.size_max = size
        self.expected = f"{size} bytes" + ("" if zero_allowed else ", not all zero")

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, bytes) and len(value) == self.size and (self.zero_allowed or any(value))


class Blob(Field):
    """From `minimum` to `maximum` bytes behind a 16-bit length that counts those bytes only.

    `holds` names the record whose encoding the bytes are, if they are one: nobody who only passes them on decodes it.
    """

    PREFIX_SIZE: ClassVar[int] = 2

    def __init__(self, minimum: int, maximum: int, *, holds: str = "") -> None:
        super().__init__(construct.Prefixed(_UpTo(construct.Int16ub, maximum, "bytes"), construct.GreedyBytes))
        self.holds = holds
        self.minimum = minimum
        self.maximum = maximum
        self.size_min = self.PREFIX_SIZE + minimum
        self.size_max = self.PREFIX_SIZE + maximum
        self.expected = f"{minimum} to {maximum} bytes"

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, bytes) and self.minimum <= len(value) <= self.maximum


class Text(Field):
    """From `minimum` to `maximum` bytes of text behind an 8-bit length that counts bytes.

    `charset` is the regular expression that the whole text matches; `words` says it for people. With
    `charset` None the text is UTF-8 in normal form C without control characters (spec 3.4). `recurs` says that few
    different texts come again and again, from peers that are known, and that none is a secret: the compiled codec
    remembers them (`remembered.py`).
    """

    PREFIX_SIZE: ClassVar[int] = 1

    def __init__(self, minimum: int, maximum: int, charset: str | None, words: str, *, recurs: bool = False) -> None:
        super().__init__(construct.Prefixed(_UpTo(construct.Int8ub, maximum, "bytes"), construct.GreedyBytes))
        self.minimum = minimum
        self.maximum = maximum
        self.charset = charset
        self.words = words
        self.recurs = recurs
        self.matches = re.compile(charset).fullmatch if charset is not None else None
        self.size_min = self.PREFIX_SIZE + minimum
        self.size_max = self.PREFIX_SIZE + maximum
        self.expected = f"{minimum} to {maximum} bytes of {words}"

    def is_legal(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # A lone surrogate has no UTF-8.
            return False
        if not self.minimum <= size <= self.maximum:
            return False
        if not value and self.minimum == 0:
            return True
        return self.matches(value) is not None if self.matches else is_plain_text(value)

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(utf8_text(obj), path)

    def _encode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(obj, path).encode()


class Counted(Field):
    """From `minimum` to `maximum` items of one type behind an 8-bit count; a tuple in Python."""

    PREFIX_SIZE: ClassVar[int] = 1

    def __init__(self, item: Field, minimum: int, maximum: int) -> None:
        super().__init__(construct.PrefixedArray(_UpTo(construct.Int8ub, maximum, "items"), item))
        self.item = item
        self.minimum = minimum
        self.maximum = maximum
        self.size_min = self.PREFIX_SIZE + minimum * item.size_min
        self.size_max = self.PREFIX_SIZE + maximum * item.size_max
        self.expected = f"{minimum} to {maximum} items"

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, tuple) and self.minimum <= len(value) <= self.maximum

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        return self._check(tuple(obj), path)


class Nested(Field):
    """The fields of another record, in order, with nothing around them."""

    def __init__(self, record: "type[Record]") -> None:
        super().__init__(_layout_of(record))
        self.record = record
        self.size_min = sum(f.type.size_min for f in fields_of(record))
        self.size_max = sum(f.type.size_max for f in fields_of(record))
        self.expected = f"a {record.__name__}"

    def is_legal(self, value: Any) -> bool:
        return isinstance(value, self.record)

    def _decode(self, obj: Any, context: Any, path: str) -> Any:
        value = self.record(**{f.name: obj[f.name] for f in fields_of(self.record)})
        _check_whole(value, path)
        return value

    def _encode(self, obj: Any, context: Any, path: str) -> Any:
        self._check(obj, path)
        return {f.name: getattr(obj, f.name) for f in fields_of(self.record)}

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        built = super()._build(obj, stream, context, path)
        # Only now, when each field is legal by itself, may a rule between fields look at them.
        _check_whole(obj, path)
        return built


def utf8_text(data: bytes) -> str | None:
    """The text that bytes are in UTF-8, or None.

    No exception: a UnicodeDecodeError holds the bytes, which may be a secret, and would hang on to whatever is
    raised because of it as its context.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def is_plain_text(value: str) -> bool:
    """Whether a text is printable Unicode in normal form C: no control, format, surrogate or line separators.

    Bidirectional overrides and zero-width characters could make a log line lie about what it says (T21).
    """
    # To Python, printable is what is in none of the categories C and Z, but the space: most texts need no closer look.
    return unicodedata.is_normalized("NFC", value) and (
        value.isprintable()
        or all(unicodedata.category(c)[0] != "C" and unicodedata.category(c) not in ("Zl", "Zp") for c in value)
    )


class Sensitivity(Enum):
    """What may be shown of a field; whatever shows a message asks it (style 12)."""

    PUBLIC = "shown"
    SIZED = "only its size is shown"
    SECRET = "never shown"  # noqa: S105  # not a password


@dataclasses.dataclass(frozen=True, slots=True)
class WireField:
    """One field as declared: its name, type, meaning in words, and what may be shown of it."""

    name: str
    type: Field
    doc: str
    sensitivity: Sensitivity


def public(type: Field, doc: str) -> Any:  # reads as the declaration that it is
    """Declare a field whose value may be shown and logged."""
    return dataclasses.field(metadata={_WIRE: (type, doc, Sensitivity.PUBLIC)})


def sized(type: Field, doc: str) -> Any:  # reads as the declaration that it is
    """Declare a field of which only the size is shown: opaque bytes that tell a reader nothing."""
    return dataclasses.field(metadata={_WIRE: (type, doc, Sensitivity.SIZED)})


def secret(type: Field, doc: str) -> Any:  # reads as the declaration that it is
    """Declare a field that is never shown, logged or put into an error. Raises TypeError for one that recurs."""
    if isinstance(type, Text) and type.recurs:
        raise TypeError("a secret is not remembered")
    return dataclasses.field(metadata={_WIRE: (type, doc, Sensitivity.SECRET)})


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A rule between the fields of one record: which field is at fault when it is broken, and what it should be."""

    field: str
    expected: str
    holds: Callable[[Any], bool]


class Record:
    """Base of everything that has a layout: messages, terms, key lists, receipts."""

    __slots__ = ()
    rules: ClassVar[tuple[Rule, ...]] = ()
    """The rules between fields, in the order in which they are checked."""
    keeps_encoding: ClassVar[bool] = False
    """Whether one object is encoded several times, so that the compiled codec keeps its bytes (`remembered.py`)."""

    def broken_rule(self) -> Rule | None:
        """The first rule that this value breaks."""
        return next((rule for rule in self.rules if not rule.holds(self)), None)

    def __repr__(self) -> str:
        # A record's repr ends up in logs and test output, so it masks by the declaration (R4).
        return f"{type(self).__name__}({', '.join(f'{n}={t}' for n, t in shown_fields(self))})"


R = TypeVar("R", bound=Record)


@dataclass_transform(frozen_default=True, field_specifiers=(public, sized, secret))
def record(cls: type[R]) -> type[R]:
    """Make a frozen, slotted dataclass of a declaration."""
    return dataclasses.dataclass(frozen=True, slots=True, repr=False)(cls)


_fields_of: dict[type[Record], tuple[WireField, ...]] = {}


def fields_of(cls: type[Record]) -> tuple[WireField, ...]:
    """A record's fields in wire order; the one source for layouts, sizes and descriptions (R20)."""
    found = _fields_of.get(cls)
    if found is None:
        found = tuple(WireField(f.name, *f.metadata[_WIRE]) for f in dataclasses.fields(cls))  # type: ignore[arg-type]  # every record is a dataclass
        _fields_of[cls] = found
    return found


def _layout_of(cls: type[Record]) -> Any:
    # One Renamed each: `name / type * doc` makes two, and every path would say each name twice.
    return construct.Struct(*(construct.Renamed(f.type, newname=f.name, newdocs=f.doc) for f in fields_of(cls)))


def _check_whole(value: Record, path: str) -> None:
    broken = value.broken_rule()
    if broken is not None:
        raise BadValue(broken.expected, f"{path} -> {broken.field}")


def shown_fields(value: Record) -> list[tuple[str, str]]:
    """(name, text) of each field with secrets masked by the field's declaration."""
    return [(f.name, _shown(f, getattr(value, f.name))) for f in fields_of(type(value))]


def _shown(field: WireField, value: Any) -> str:
    shows: dict[Sensitivity, Callable[[Any], str]] = {
        Sensitivity.PUBLIC: _shown_public,
        Sensitivity.SIZED: lambda v: f"<{len(v)} bytes>",
    }
    # What is not in the table is not shown: a new sensitivity fails closed.
    show = shows.get(field.sensitivity)
    return show(value) if show else "<secret>"


def _shown_public(value: Any) -> str:
    if isinstance(value, Record):
        return f"{{{', '.join(f'{n}={t}' for n, t in shown_fields(value))}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(_shown_public(v) for v in value)}]"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return value.name
    return value if isinstance(value, str) else str(value)


# The vocabulary of fields: every message is made of these.
IDENTIFIER_CHARSET: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_IDENTIFIER_WORDS: Final = "letters, digits, '.', '_' and '-', the first a letter or digit"
IDENTIFIER: Final = Text(1, limits.IDENTIFIER_SIZE_MAX, IDENTIFIER_CHARSET, _IDENTIFIER_WORDS)
PARTY_ID: Final = Text(1, limits.IDENTIFIER_SIZE_MAX, IDENTIFIER_CHARSET, _IDENTIFIER_WORDS, recurs=True)
"""The identifier of a bank, gateway or merchant, from somebody who deals with it: no stranger's claim."""
PARTY_ID_OR_EMPTY: Final = Text(0, limits.IDENTIFIER_SIZE_MAX, IDENTIFIER_CHARSET, _IDENTIFIER_WORDS, recurs=True)
PRINTABLE_WORDS: Final = "printable text"
PASSCODE: Final = Text(1, limits.PASSCODE_SIZE_MAX, r"[!-{}~]+", "printable ASCII without blanks and '|'")
MERCHANT_NAME_OR_EMPTY: Final = Text(0, limits.MERCHANT_NAME_SIZE_MAX, None, PRINTABLE_WORDS, recurs=True)
USER_ID: Final = Text(1, limits.USER_ID_SIZE_MAX, None, PRINTABLE_WORDS)
PASSWORD: Final = Text(1, limits.PASSWORD_SIZE_MAX, None, PRINTABLE_WORDS)
CURRENCY: Final = Text(limits.CURRENCY_SIZE, limits.CURRENCY_SIZE, r"[A-Z]{3}", "3 capital letters", recurs=True)
CURRENCY_OR_EMPTY: Final = Text(0, limits.CURRENCY_SIZE, r"[A-Z]{3}", "3 capital letters", recurs=True)
_UTR_WORDS: Final = "4 capital letters, 'P', 17 digits"
UTR_OR_EMPTY: Final = Text(0, limits.UTR_SIZE, r"[A-Z]{4}P[0-9]{17}", _UTR_WORDS)
ERROR_TEXT: Final = Text(0, limits.ERROR_TEXT_SIZE_MAX, r"[ -~]*", "printable ASCII")
PAYMENT_ID: Final = Opaque(limits.PAYMENT_ID_SIZE, zero_allowed=False)
SESSION_ID: Final = Opaque(limits.SESSION_ID_SIZE, zero_allowed=False)
SESSION_ID_OR_ZERO: Final = Opaque(limits.SESSION_ID_SIZE)
KEY_ID: Final = Opaque(limits.KEY_ID_SIZE)
HASH: Final = Opaque(limits.HASH_SIZE)
AMOUNT_MINOR: Final = Uint(8, 1, limits.AMOUNT_MINOR_MAX, "minor units of the currency")
AMOUNT_MINOR_OR_ZERO: Final = Uint(8, 0, limits.AMOUNT_MINOR_MAX, "minor units of the currency")
TIME_MS: Final = Uint(8, 0, limits.TIME_MS_MAX, "milliseconds since 1970-01-01T00:00:00Z")
TIME_LEFT_MS: Final = Uint(4, 0, limits.SESSION_MS, "milliseconds left")
ENVELOPE: Final = Blob(1, limits.ENVELOPE_SIZE_MAX)
RECEIPT_OR_EMPTY: Final = Blob(0, limits.RECEIPT_SIZE_MAX, holds="Receipt")
