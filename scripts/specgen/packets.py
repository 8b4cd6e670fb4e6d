"""Packet diagrams: a record's bytes as Mermaid `packet` draws them.

Mermaid numbers bits, so a record of a fixed size is drawn to scale. One that has fields of variable size can't be:
there each such field, each part and each run of more than eight bytes fills the rest of its row, and no bits are
numbered.
"""

from dataclasses import dataclass

from paygate.codec.fields import Blob, Counted, Field, Nested, Record, Text, fields_of
from specgen.words import size_words, sizes_of, type_words

ROW_BITS = 32
EXACT_SIZE_MAX = 8
"""Bytes; a longer run of fixed size would fill many rows and tell nothing."""


@dataclass(frozen=True, slots=True)
class _Box:
    label: str
    bit_count: int | None  # None: to the end of the row


def packet_diagram(record: type[Record]) -> str:
    """A fenced Mermaid diagram of a record."""
    boxes = [box for field in fields_of(record) for box in _boxes(field.name, field.type)]
    size_min, size_max = sizes_of(record)
    is_exact = all(box.bit_count is not None for box in boxes)
    assert not is_exact or size_min == size_max
    lines = ["```mermaid"]
    if not is_exact:
        lines.append('%%{init: {"packet": {"showBits": false}}}%%')
    lines.append("packet")
    at = 0
    for box in boxes:
        bit_count = box.bit_count
        if bit_count is None:
            left = ROW_BITS - at % ROW_BITS
            # A sliver of a row has no room for words.
            bit_count = left if left >= ROW_BITS // 2 else left + ROW_BITS
        lines.append(f'{at}-{at + bit_count - 1}: "{box.label}"')
        at += bit_count
    return "\n".join([*lines, "```"])


def _boxes(name: str, field: Field) -> list[_Box]:
    match field:
        case Text() | Blob():
            return [
                _Box(f"{name} size", 8 * field.PREFIX_SIZE),
                _Box(f"{name}: {size_words(field.minimum, field.maximum)} bytes", None),
            ]
        case Counted():
            counted = f"{name}: {size_words(field.minimum, field.maximum)} of {type_words(field.item)}"
            return [_Box(f"{name} count", 8 * field.PREFIX_SIZE), _Box(counted, None)]
        case Nested():
            return [_Box(f"{name}: {field.record.__name__}, {size_words(field.size_min, field.size_max)} bytes", None)]
    if field.size_max > EXACT_SIZE_MAX:
        return [_Box(f"{name}: {field.size_max} bytes", None)]
    return [_Box(name, 8 * field.size_max)]
