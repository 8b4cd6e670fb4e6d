"""How the spec writes names, types, sizes and legal values: the codec's wording, and what only the spec says."""

from paygate.codec.codes import Route
from paygate.codec.describe import (
    allowed_words,
    first_sentence,
    message_name,
    route_words,
    size_words,
    sizes_of,
    type_words,
)
from paygate.codec.fields import Sensitivity, WireField
from paygate.codec.messages import MESSAGES

__all__ = [
    "SOCKET_KINDS",
    "allowed_words",
    "first_sentence",
    "meaning_words",
    "message_name",
    "route_words",
    "size_words",
    "sizes_of",
    "type_words",
]

SOCKET_KINDS = [kind for kind, declared in MESSAGES.items() if declared.route is not Route.PIPE]
"""Every kind that may travel on a socket, in the order of the declarations."""


def meaning_words(field: WireField) -> str:
    """A field's meaning, and what may be shown of it if that is not all."""
    return (
        field.doc
        + {
            Sensitivity.PUBLIC: "",
            Sensitivity.SIZED: "",
            Sensitivity.SECRET: " (secret)",
        }[field.sensitivity]
    )
