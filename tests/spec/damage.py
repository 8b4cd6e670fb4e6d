"""Random damage to frames, with the sizes and the checksum mended so that it reaches the field decoders."""

import random
import zlib

from paygate.codec import limits
from paygate.codec.frame import FLAG_AUTHENTICATED

_TELLING_BYTES = (0, 1, 2, 31, 32, 33, 64, 65, 127, 128, 255)
"""Limits of lengths, counts, codes and characters, and their neighbours."""
_BAD_CHECKSUM_SHARE = 0.05
_BODY_SIZE_FILLED_MAX = 60_000


def damaged(frame: bytes, rng: random.Random) -> bytes:
    """A frame whose body was changed, cut or made longer somewhere; some with a wrong checksum."""
    header = bytearray(frame[: limits.HEADER_SIZE])
    body_size = int.from_bytes(header[6:8])
    body = bytearray(frame[limits.HEADER_SIZE : limits.HEADER_SIZE + body_size])
    mac = frame[limits.HEADER_SIZE + body_size :]
    for _ in range(rng.choice((1, 1, 1, 2))):
        _damage(body, rng)
    header[6:8] = len(body).to_bytes(2)
    if rng.random() < _BAD_CHECKSUM_SHARE:
        header[16] ^= 1 << rng.randrange(8)
        return bytes(header + body) + mac
    return mended(bytes(header), bytes(body)) + mac


def _damage(body: bytearray, rng: random.Random) -> None:
    # The first bytes of a body hold most of its codes and lengths.
    at = min(rng.randrange(len(body) + 1), rng.randrange(len(body) + 1))
    match rng.randrange(5):
        case 0 | 1 if at < len(body):
            body[at] = rng.choice(_TELLING_BYTES)
        case 2 if at < len(body):
            body[at] ^= 1 << rng.randrange(8)
        case 3:
            del body[at : at + rng.choice((1, 1, 2, len(body)))]
        case _:
            body[at:at] = bytes([rng.choice(_TELLING_BYTES)]) * rng.choice((1, 1, 2, 40))


def damaged_header(frame: bytes, rng: random.Random) -> bytes:
    """A frame with one byte of its header changed before the correlation ID; its checksum fits the change."""
    header = bytearray(frame[: limits.HEADER_SIZE])
    at = rng.randrange(8)
    header[at] ^= rng.choice((1 << rng.randrange(8), rng.randrange(1, 256)))
    body_size = int.from_bytes(header[6:8])
    # No more than a packet holds: what announces a larger body is refused by its header.
    body = frame[limits.HEADER_SIZE :].ljust(min(body_size, _BODY_SIZE_FILLED_MAX), b"\0")[:body_size]
    is_authenticated = int.from_bytes(header[4:6]) & FLAG_AUTHENTICATED
    return mended(bytes(header), body) + bytes(limits.MAC_SIZE if is_authenticated else 0)


def mended(header: bytes, body: bytes) -> bytes:
    """Header and body with the checksum that they should have."""
    covered = header[: limits.HEADER_SIZE - 4]
    return covered + zlib.crc32(covered + body).to_bytes(4) + body
