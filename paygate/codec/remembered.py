"""What the compiled codec remembers: texts that come again with every payment, and encodings that are asked for again.

A payment names the same bank, gateway, currency and one of a gateway's merchants; checking the characters of these
texts takes most of the time of the messages that they stand in. A declaration says so of a field (`recurs=True`), and
then each text is checked once. The terms of one payment are encoded up to four times in one process: within messages,
for the envelope, for the receipt, for the store. A record says so (`keeps_encoding`), and then it is encoded once.

Nothing here changes what is accepted or made, and nothing here is secret: fields and records declared secret can't be
remembered. What strangers may send is not declared as recurring, so that nobody makes a server forget.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from paygate.codec.fields import Nested, Record, Sensitivity, fields_of

REMEMBERED_COUNT_MAX: Final = 4_096
"""More parties and merchants than most gateways have, in less than 2.5 MB for each kind of text; who has more pays for
the check whenever a text is forgotten. When full, all is forgotten at once: that costs less than keeping an order."""

KEPT_COUNT_MAX: Final = 4_096
"""As many payments as may be under way at once, each for less than 1 kB."""

K = TypeVar("K")
V = TypeVar("V")


class Remembered(dict[K, V]):
    """What `make` gives for each key, made once and then found; KeyError for a key for which it gives None.

    Keys are compared whole, byte by byte or character by character, and have to be of exactly one type.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[K], V | None]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self._make(key)
        if made is None:
            raise KeyError  # Without the key: nothing that was refused is shown.
        if len(self) >= REMEMBERED_COUNT_MAX:
            self.clear()
        self[key] = made
        return made


kept: Final[dict[int, tuple[Record, bytes]]] = {}
"""Records and their encodings, by identity: a record is frozen, and as long as it is held here no other has its id."""


def keep_lines(name: str, key: str, value: str, encoded: str) -> list[str]:
    """Lines that keep the encoding of a record for the next time it is asked for; `name` is what `kept` is called."""
    return [
        f"if len({name}) >= {KEPT_COUNT_MAX}:",
        f"    {name}.clear()",
        f"{name}[{key}] = {value}, {encoded}",
    ]


def keeps(cls: type[Record]) -> bool:
    """Whether a record's encodings are kept. Raises TypeError for one that says so and holds what may not be shown."""
    if cls.keeps_encoding and not _is_public(cls):
        raise TypeError(f"{cls.__name__} is not public, so that its encodings are not kept")
    return cls.keeps_encoding


def _is_public(cls: type[Record]) -> bool:
    return all(
        f.sensitivity is Sensitivity.PUBLIC and (not isinstance(f.type, Nested) or _is_public(f.type.record))
        for f in fields_of(cls)
    )
