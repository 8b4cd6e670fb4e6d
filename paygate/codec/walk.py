"""Where each field stands in encoded bytes: the walk along a record's declaration that annotates hex and finds faults.

Strategy: the decoder says what a record is, or which field is wrong first; this walk says where everything stands,
also in bytes that the decoder refuses. It reads by the same declarations, in the order of spec 3.3 (PG-ENC-7), so its
first fault is the decoder's; behind a wrong value it goes on as long as the next field's place is known. Records that
a blob holds (`Blob.holds`) are walked as well, though no decoder of a frame looks into them.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from paygate.codec import sealed
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import (
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Sensitivity,
    Text,
    Uint,
    WireField,
    fields_of,
    utf8_text,
)


class Part(Enum):
    """What a span is of its field."""

    SIZE = "size"
    """The length in front of a text or blob; the value is a number of bytes."""
    COUNT = "count"
    """The count in front of a list; the value is a number of items, which follow one level deeper."""
    VALUE = "value"
    """The value itself."""
    RECORD = "record"
    """A whole nested record, or one that a blob holds; its fields follow one level deeper."""
    REST = "rest"
    """Bytes that no field claims: left over at the end, or behind a fault after which no place is known. Nothing
    declares them public, so they count as secret: they may be another message's, which came under a wrong kind."""


class Span(NamedTuple):
    """Some bytes and what they are by the declaration. Offsets count from the first of all bytes that were given."""

    path: str
    """Such as `terms.amount_minor` or `suite_keys[0].kem_id`; empty for the REST of the outermost record."""
    field: WireField | None
    """The declared field, for an item that of its list; None for REST."""
    type: Field | None
    """The field's type, for an item the item's; None for REST."""
    part: Part
    start: int
    end: int
    value: Any
    """Decoded (of a length the number, legal or not); None if it breaks its declaration, and for REST."""
    depth: int
    """How many records and lists it stands in, the outermost record not counted."""
    sensitivity: Sensitivity
    """What may be shown, surroundings considered: whoever shows a span asks this, not the field."""

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start


class Fault(NamedTuple):
    """Where bytes break the declaration: TRUNCATED_FIELD, TRAILING_BYTES or BAD_VALUE, as the decoder says it."""

    code: ErrorCode
    expected: str
    span: Span
    """The bytes at fault. Of a broken rule between fields: the field that the rule names."""
    is_held: bool
    """Within a record that a blob holds: the message around it is sound all the same."""

    @property
    def path(self) -> str:
        """Of the field, with indices, which the decoder's path lacks; empty for TRAILING_BYTES."""
        return self.span.path


@dataclass(slots=True)
class Walk:
    """What was found: all spans in wire order, a record before its fields, and all faults in the order of checking."""

    spans: list[Span]
    faults: list[Fault]
    value: Record | None
    """The record, if nothing is wrong with it."""

    @property
    def fault(self) -> Fault | None:
        """The first fault that a decoder refuses the record for."""
        return next((fault for fault in self.faults if not fault.is_held), None)


def walk(cls: type[Record], data: bytes, start: int = 0, end: int | None = None) -> Walk:
    """Walk the one record that `data[start:end]` should hold. Takes whatever bytes there are and never raises.

    Where a record with secrets is broken, a wrong length can move a secret into its neighbour's place: then all that
    stands behind a field of variable size counts as secret (R4).
    """
    walker = _Walker(data, start, len(data) if end is None else end, [], [], is_held=False)
    value = walker.whole(cls, "", 0, Sensitivity.PUBLIC)
    found = Walk(walker.spans, walker.faults, value)
    if value is None and holds_secrets(cls):
        _hide_what_may_be_moved(found)
    return found


def decoder_path(path: str) -> str:
    """A span's path as the decoder's errors have it: without indices."""
    return _INDEX.sub("", path)


_INDEX: Final = re.compile(r"\[\d+\]")


def record_held(field: Field) -> type[Record] | None:
    """The record that a blob holds exactly one encoding of, if it holds any."""
    if not isinstance(field, Blob) or not field.holds:
        return None
    held: type[Record] = getattr(sealed, field.holds)
    return held


def holds_secrets(cls: type[Record]) -> bool:
    """Whether a field of it, or of a record within it, is secret."""
    return any(_is_secret(field.sensitivity, field.type) for field in fields_of(cls))


def _is_secret(sensitivity: Sensitivity, field: Field) -> bool:
    if sensitivity is Sensitivity.SECRET:
        return True
    if isinstance(field, Counted):
        return _is_secret(sensitivity, field.item)
    inner = field.record if isinstance(field, Nested) else record_held(field)
    return inner is not None and holds_secrets(inner)


def _hide_what_may_be_moved(found: Walk) -> None:
    # The first length stands where it must, since nothing before it varies in size; what it measures does not.
    certain_end = next((s.end for s in found.spans if s.part in (Part.SIZE, Part.COUNT)), 0)

    def hidden(span: Span) -> Span:
        return span if span.end <= certain_end else span._replace(sensitivity=Sensitivity.SECRET)

    found.spans[:] = map(hidden, found.spans)
    found.faults[:] = [fault._replace(span=hidden(fault.span)) for fault in found.faults]


class _Stopped(Exception):
    """Behind this place nobody knows where a field begins."""


class _Place(NamedTuple):
    """What a span has of its declaration."""

    path: str
    field: WireField | None
    type: Field | None
    depth: int
    sensitivity: Sensitivity

    def span(self, part: Part, start: int, end: int, value: Any) -> Span:
        return Span(self.path, self.field, self.type, part, start, end, value, self.depth, self.sensitivity)


class _Walker:
    """Walks one outermost record, or one that a blob holds, which ends where its blob does."""

    def __init__(
        self, data: bytes, start: int, end: int, spans: list[Span], faults: list[Fault], *, is_held: bool
    ) -> None:
        self.data = data
        self.at = start
        self.end = end
        self.spans = spans
        self.faults = faults
        self.is_held = is_held

    def whole(self, cls: type[Record], path: str, depth: int, around: Sensitivity) -> Record | None:
        """The record that all bytes up to the end should be; None if they are not."""
        rest = _Place(path, None, None, depth, Sensitivity.SECRET)
        try:
            value = self._record(cls, f"{path}." if path else "", depth, around)
        except _Stopped:
            if self.at < self.end:
                self._add(rest, Part.REST, self.at, self.end, None)
            return None
        if self.at == self.end:
            return value
        self._add(rest, Part.REST, self.at, self.end, None)
        self._fault(ErrorCode.TRAILING_BYTES, f"the end of a {cls.__name__}")
        return None

    def _record(self, cls: type[Record], before: str, depth: int, around: Sensitivity) -> Record | None:
        # The fields, then the rules between them (PG-ENC-7).
        values = {}
        for field in fields_of(cls):
            sensitivity = Sensitivity.SECRET if around is Sensitivity.SECRET else field.sensitivity
            values[field.name] = self._value(_Place(before + field.name, field, field.type, depth, sensitivity))
        if None in values.values():
            return None
        record = cls(**values)
        broken = record.broken_rule()
        if broken is None:
            return record
        path = before + broken.field
        named = next(s for s in reversed(self.spans) if s.path == path and s.part is not Part.SIZE)
        self._fault(ErrorCode.BAD_VALUE, broken.expected, named)
        return None

    def _value(self, place: _Place) -> Any:
        match place.type:
            case Nested():
                return self._nested(place, place.type)
            case Counted():
                return self._list(place, place.type)
            case Blob():
                return self._blob(place, place.type)
            case Text():
                size = self._length(place, place.type, Part.SIZE, "bytes")
                return self._checked(place, utf8_text(self._take(place, Part.VALUE, size)), size)
            case Opaque(size=size):
                return self._checked(place, self._take(place, Part.VALUE, size), size)
            case Uint(width=size) | Choice(width=size):
                return self._checked(place, self._number(place, size), size)
            case Boolean():
                return self._checked(place, self._number(place, 1), 1)
        raise AssertionError(f"no walk over {type(place.type).__name__}")

    def _nested(self, place: _Place, kind: Nested) -> Record | None:
        index = len(self.spans)
        start = self.at
        self._add(place, Part.RECORD, start, start, None)
        value = None
        try:
            value = self._record(kind.record, f"{place.path}.", place.depth + 1, place.sensitivity)
        finally:
            self.spans[index] = place.span(Part.RECORD, start, self.at, value)
        return value

    def _list(self, place: _Place, kind: Counted) -> tuple[Any, ...] | None:
        count = self._length(place, kind, Part.COUNT, "items")
        counted = self.spans[-1]
        items = tuple(
            self._value(place._replace(path=f"{place.path}[{i}]", type=kind.item, depth=place.depth + 1))
            for i in range(count)
        )
        if not kind.is_legal(items):
            self._fault(ErrorCode.BAD_VALUE, kind.expected, counted)
            return None
        return None if None in items else items

    def _blob(self, place: _Place, kind: Blob) -> bytes | None:
        size = self._length(place, kind, Part.SIZE, "bytes")
        data = self._take(place, Part.VALUE, size)
        held = record_held(kind)
        if held is None or not data:
            checked: bytes | None = self._checked(place, data, size)
            return checked
        index = len(self.spans)
        start = self.at - size
        self._add(place, Part.RECORD, start, self.at, None)
        is_legal = kind.is_legal(data)
        if not is_legal:
            self._fault(ErrorCode.BAD_VALUE, kind.expected)
        inside = _Walker(self.data, start, self.at, self.spans, self.faults, is_held=True)
        value = inside.whole(held, place.path, place.depth + 1, Sensitivity.PUBLIC)
        self.spans[index] = place.span(Part.RECORD, start, self.at, value)
        return data if is_legal else None

    # -- bytes, spans and faults ---------------------------------------------------------------------------

    def _take(self, place: _Place, part: Part, size: int) -> bytes:
        start = self.at
        self.at = min(start + size, self.end)
        if self.at - start < size:
            self._add(place, part, start, self.at, None)
            self._fault(ErrorCode.TRUNCATED_FIELD, "more bytes")
            raise _Stopped
        return self.data[start : self.at]

    def _number(self, place: _Place, size: int) -> Any:
        number = int.from_bytes(self._take(place, Part.VALUE, size))
        match place.type:
            case Choice(choices=choices):
                return next((choice for choice in choices if choice == number), None)
            case Boolean():
                return {0: False, 1: True}.get(number)
        return number

    def _length(self, place: _Place, kind: Text | Blob | Counted, part: Part, unit: str) -> int:
        # A length is held against its maximum before anything behind it is looked at (PG-ENC-7).
        length = int.from_bytes(self._take(place, part, kind.PREFIX_SIZE))
        self._add(place, part, self.at - kind.PREFIX_SIZE, self.at, length)
        if length > kind.maximum:
            self._fault(ErrorCode.BAD_VALUE, f"at most {kind.maximum} {unit}")
            raise _Stopped
        return length

    def _checked(self, place: _Place, value: Any, size: int) -> Any:
        assert place.type is not None
        is_legal = place.type.is_legal(value)
        self._add(place, Part.VALUE, self.at - size, self.at, value if is_legal else None)
        if not is_legal:
            self._fault(ErrorCode.BAD_VALUE, place.type.expected)
        return value if is_legal else None

    def _add(self, place: _Place, part: Part, start: int, end: int, value: Any) -> None:
        self.spans.append(place.span(part, start, end, value))

    def _fault(self, code: ErrorCode, expected: str, span: Span | None = None) -> None:
        span = span or self.spans[-1]
        self.faults.append(Fault(code, expected, span, self.is_held))
