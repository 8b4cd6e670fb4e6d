"""One legal message of each kind, made from its declaration: what the measured tables are fed with."""

from functools import cache
from itertools import product
from typing import Any

from paygate.codec.codes import Kind
from paygate.codec.fields import Blob, Boolean, Choice, Counted, Field, Nested, Opaque, Record, Text, Uint, fields_of
from paygate.codec.messages import MESSAGES, Message


@cache
def sample(kind: Kind) -> Message:
    """The smallest legal message of a kind."""
    message = smallest(MESSAGES[kind])
    assert isinstance(message, Message)
    return message


def smallest(record: type[Record]) -> Record:
    """A record of the smallest legal values; of the codes, the first ones under which no rule is broken."""
    candidates = {field.name: _candidates(field.type) for field in fields_of(record)}
    for values in product(*candidates.values()):
        value = record(**dict(zip(candidates, values, strict=True)))
        if value.broken_rule() is None:
            return value
    raise AssertionError(f"no smallest values of {record.__name__} meet its rules")


def _candidates(field: Field) -> list[Any]:
    match field:
        case Uint():
            return [field.minimum, field.minimum + 1]
        case Choice():
            return list(field.choices)
        case Boolean():
            return [False]
        case Opaque():
            return [bytes(field.size) if field.zero_allowed else b"\1" * field.size]
        case Blob():
            return [bytes(field.minimum)]
        case Text():
            return ["A" * field.minimum]
        case Counted():
            return [tuple(_candidates(field.item)[0] for _ in range(field.minimum))]
        case Nested():
            return [smallest(field.record)]
    raise AssertionError(f"no smallest {type(field).__name__}")
