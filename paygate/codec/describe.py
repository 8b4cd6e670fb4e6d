"""What messages and declarations look like to a person: one wording for logs, tools and the spec (R20).

A message's secrets are masked by the field's declaration (style 12). What is said of a declaration holds no value.
"""

from paygate.codec.codes import Kind, Route
from paygate.codec.fields import (
    PRINTABLE_WORDS,
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Text,
    Uint,
    fields_of,
    shown_fields,
)
from paygate.codec.messages import MESSAGES, Message


def describe(message: Message) -> str:
    """One line: the kind and its fields, secrets masked. Safe for logs."""
    fields = " ".join(f"{name}={text or '-'}" for name, text in shown_fields(message))
    return f"{message.kind.name} {fields}"


def message_name(kind: Kind) -> str:
    """`TokenQuery` for TOKEN_QUERY: the name that the declaration has."""
    return MESSAGES[kind].__name__


def type_words(field: Field) -> str:
    """A type as spec section 3.2 writes it."""
    match field:
        case Uint():
            return f"u{8 * field.width}"
        case Choice():
            return f"u{8 * field.width} {field.choices.__name__}"
        case Boolean():
            return "bool"
        case Opaque():
            return f"bytes[{field.size}]"
        case Blob():
            return f"blob {field.minimum}..{field.maximum}"
        case Text():
            return f"text {field.minimum}..{field.maximum}"
        case Counted():
            return f"list {field.minimum}..{field.maximum} of {type_words(field.item)}"
        case Nested():
            return field.record.__name__
    raise AssertionError(f"the spec has no words for {type(field).__name__}")


def allowed_words(field: Field) -> str:
    """What the type alone does not say of the legal values; empty if it says all."""
    match field:
        case Uint() if (field.minimum, field.maximum) != (0, (1 << (8 * field.width)) - 1):
            return str(field.minimum) if field.minimum == field.maximum else f"{field.minimum} to {field.maximum}"
        case Opaque() if not field.zero_allowed:
            return "not all zero"
        case Text():
            return "text (3.4)" if field.words == PRINTABLE_WORDS else field.words
        case Counted():
            return allowed_words(field.item)
    return ""


def size_words(size_min: int, size_max: int) -> str:
    """A size in bytes, or the range of one."""
    return str(size_min) if size_min == size_max else f"{size_min} to {size_max}"


def route_words(kind: Kind) -> str:
    """Who sends a kind to whom."""
    replies = kind.is_reply
    match MESSAGES[kind].route:
        case Route.ANY:
            return "either end of any link"
        case Route.CALLER:
            return "to the end that connected" if replies else "from the end that connected, on any link"
        case Route.CLIENT_TO_GATEWAY:
            return "gateway to client" if replies else "client to gateway"
        case Route.GATEWAY_TO_BANK:
            return "bank to gateway" if replies else "gateway to bank"
        case Route.PIPE:
            return "child to parent" if replies else "parent to child"


def sizes_of(record: type[Record]) -> tuple[int, int]:
    """The smallest and the largest encoding of a record in bytes."""
    return sum(f.type.size_min for f in fields_of(record)), sum(f.type.size_max for f in fields_of(record))


def first_sentence(record: type) -> str:
    """What a declaration's docstring says first."""
    return " ".join((record.__doc__ or "").split("\n\n")[0].split())
