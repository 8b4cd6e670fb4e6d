"""What a process does once, so that no program that is forked from it has to."""

import gc
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

import paygate.net.capture  # noqa: F401  # programs import it late
from paygate.codec.fields import Record
from paygate.codec.record_codec import _compile

_KEY_SIZE = 32


def prepare_forks() -> None:
    """Compile the codec of every record and import what `cryptography` imports late; call it after all imports."""
    for record in list(_kinds(Record)):  # all of them first: compiling makes drafts, which are subclasses too
        _compile(record)
    X25519PublicKey.from_public_bytes(bytes(_KEY_SIZE))
    gc.collect()
    gc.freeze()  # what is there now is shared by all forks: no collection need look at it, and so copy it


def _kinds(cls: type[Record]) -> Iterator[type[Record]]:
    """The dataclasses among the subclasses: neither a base of several nor a draft is one itself."""
    for kind in cls.__subclasses__():
        if "__dataclass_fields__" in vars(kind):
            yield kind
        yield from _kinds(kind)
