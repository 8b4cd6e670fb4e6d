"""Every record of the protocol that is no message: what is sealed, signed, or a part of something."""

import dataclasses

from paygate.codec import sealed
from paygate.codec.fields import Record

RECORDS: list[type[Record]] = [
    declared
    for declared in vars(sealed).values()
    if isinstance(declared, type) and issubclass(declared, Record) and dataclasses.is_dataclass(declared)
]
"""In the order of their declarations."""
