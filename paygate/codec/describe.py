"""What a message or a kind looks like to a person, with secrets masked by the field's declaration (style 12)."""

from paygate.codec.codes import Kind
from paygate.codec.fields import Sensitivity, fields_of, shown_fields
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES, Message


def describe(message: Message) -> str:
    """One line: the kind and its fields, secrets masked. Safe for logs."""
    fields = " ".join(f"{name}={text or '-'}" for name, text in shown_fields(message))
    return f"{message.kind.name} {fields}"


def describe_kind(kind: Kind) -> str:
    """Several lines: what a kind is, who sends it, its size in bytes, and each field with its legal values."""
    declared = MESSAGES[kind]
    size_min, size_max = body_size_range(kind)
    lines = [
        f"{kind.name} (0x{kind:02x}), {declared.route.value}, body {size_min} to {size_max} bytes",
        f"  {(declared.__doc__ or '').strip().splitlines()[0]}",
    ]
    for field in fields_of(declared):
        mask = "" if field.sensitivity is Sensitivity.PUBLIC else f" [{field.sensitivity.value}]"
        lines.append(f"  {field.name}: {field.type.expected}; {field.doc}{mask}")
    return "\n".join(lines)
