"""What may stand on a socket, found by walking the declarations: for the outputs that repeat every record."""

import re
from collections.abc import Iterator
from typing import Final

from paygate.codec import sealed
from paygate.codec.codes import Code
from paygate.codec.fields import Choice, Counted, Field, Nested, Record, fields_of
from paygate.codec.messages import MESSAGES
from paygate.codec.walk import record_held
from specgen.words import SOCKET_KINDS

SOCKET_MESSAGES: Final = [MESSAGES[kind] for kind in SOCKET_KINDS]
"""The messages of every kind that may travel on a socket, in the order of the declarations."""

SEALED_RECORDS: Final[list[type[Record]]] = [
    declared
    for declared in vars(sealed).values()
    if isinstance(declared, type) and issubclass(declared, Record) and declared.__module__ == sealed.__name__
]
"""Every record that is signed or sealed, in the order of the declarations."""


def snake_case(name: str) -> str:
    """`token_query` for `TokenQuery`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def records_from(roots: list[type[Record]]) -> list[type[Record]]:
    """The records given and all that they are made of or hold in a blob, each once, parts after what they are in."""
    found = list(roots)
    for record in found:  # it grows while it is walked
        found += [part for part in _parts_of(record) if part not in found]
    return found


def _parts_of(record: type[Record]) -> Iterator[type[Record]]:
    for field in fields_of(record):
        innermost = _item_of(field.type)
        held = innermost.record if isinstance(innermost, Nested) else record_held(field.type)
        if held is not None:
            yield held


def _item_of(field: Field) -> Field:
    return _item_of(field.item) if isinstance(field, Counted) else field


def codes_from(records: list[type[Record]]) -> list[type[Code]]:
    """Every registry that a field of these records draws from, in the order of their first use."""
    found: dict[type[Code], None] = {}
    for record in records:
        for field in fields_of(record):
            if isinstance(field.type, Choice):
                assert issubclass(field.type.choices, Code)
                found[field.type.choices] = None
    return list(found)
