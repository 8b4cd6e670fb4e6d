"""The bank's keys in a run, its decoder, and envelopes that are the same bytes for the same seed.

The library's HPKE draws its ephemeral key itself, so clients here seal with the one that makes the spec's vectors,
which takes the key as an argument; the bank opens with the real one. Argon2id has the least legal parameters, and is
computed once for each user and password.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from builders import (
    BANK_ID,
    CHEAP_PASSWORD_KEY,
    NOW_MS,
    PEPPER,
    ROOT_PUBLIC_KEY,
    build_signed_key_list,
    sealing_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from specgen.vector_hpke import seal_x25519

from paygate.bank.decoder import Decoder
from paygate.client.root import BankRoot
from paygate.codec import limits
from paygate.codec import seal as seal_module
from paygate.codec.codes import KemId
from paygate.codec.messages import SealCredentials
from paygate.codec.record_codec import encode_record
from paygate.codec.seal import SealingKey, envelope_info, password_key, verifier_of
from paygate.codec.sealed import CredentialsPlaintext

ROOT: Final = BankRoot(BANK_ID, ROOT_PUBLIC_KEY)
"""What the customers have pinned."""
_VALID_MS: Final = 10 * 365 * 86_400_000
_PADDING: Final = bytes(142)


@cache
def suite_key_of(generation: int) -> SealingKey:
    """The sealing key that came with the n-th rotation; 0 is the first."""
    return sealing_key(KemId.X25519, f"generation {generation}")


@cache
def signed_key_list(generation: int, *, with_older: bool) -> bytes:
    """The key list after the n-th rotation, whose older key may still be in it, behind the new one (T12)."""
    generations = (generation, generation - 1) if with_older else (generation,)
    return build_signed_key_list(
        serial=2 * generation + (1 if with_older else 2),
        valid_from_ms=NOW_MS - _VALID_MS,
        valid_until_ms=NOW_MS + _VALID_MS,
        suite_keys=tuple(suite_key_of(n).public_suite_key() for n in generations),
    )


@cache
def key_of_password(user_id: str, password: str) -> bytes:
    """What the client makes of a password."""
    return password_key(CHEAP_PASSWORD_KEY, BANK_ID, user_id, password)


@cache
def verifier(user_id: str, password: str) -> bytes:
    """What the bank keeps of a password."""
    return verifier_of(PEPPER, key_of_password(user_id, password))


class _RememberingKey:
    """A public key that does not verify again what it has verified: the same list and receipt are seen many times."""

    def __init__(self, public_key: bytes, verified: set[tuple[bytes, bytes, bytes]]) -> None:
        self._public_key = public_key
        self._verified = verified

    def verify(self, signature: bytes, data: bytes) -> None:
        """As the library's. Raises InvalidSignature."""
        if (self._public_key, signature, data) not in self._verified:
            Ed25519PublicKey.from_public_bytes(self._public_key).verify(signature, data)
            self._verified.add((self._public_key, signature, data))


class _RememberingKeys:
    """In the place of the library's class, for one run."""

    def __init__(self) -> None:
        self._verified: set[tuple[bytes, bytes, bytes]] = set()

    def from_public_bytes(self, data: bytes) -> _RememberingKey:
        """As the library's."""
        return _RememberingKey(data, self._verified)


@contextmanager
def remembering_signatures() -> Iterator[None]:
    """A signature that holds is computed once in a run: an eighth of a run's time was for the same few."""
    before = vars(seal_module)["Ed25519PublicKey"]
    vars(seal_module)["Ed25519PublicKey"] = _RememberingKeys()
    try:
        yield
    finally:
        vars(seal_module)["Ed25519PublicKey"] = before


def secrets_of(user_id: str, *passwords: str) -> list[tuple[str, bytes]]:
    """What only the customer and the bank's decoder may hold, each with what it is (I7)."""
    found = [("user ID", user_id.encode())]
    for password in passwords:
        found += [("password", password.encode()), ("password key", key_of_password(user_id, password))]
    return found


def seal(request: SealCredentials, source: random.Random) -> bytes:
    """As `seal_request`, with all randomness from `source`."""
    encoded = request.user_id.encode()
    plaintext = CredentialsPlaintext(
        format_version=1,
        user_id_size=len(encoded),
        user_id=encoded.ljust(limits.USER_ID_SIZE_MAX, b"\0"),
        password_key=key_of_password(request.user_id, request.password),
        nonce=source.randbytes(16),
        padding=_PADDING,
    )
    info = envelope_info(request.suite_key.key_id, request.terms)
    steps = seal_x25519(request.suite_key.public_key, source.randbytes(32), info, encode_record(plaintext))
    return steps["envelope"]


class MemoryDecoder(Decoder):
    """The real decoder with keys that are given to it."""

    def __init__(self, keys: Iterable[SealingKey]) -> None:
        self._pepper = PEPPER
        self.hold(keys)

    def hold(self, keys: Iterable[SealingKey]) -> None:
        """Have these keys from now on and no others."""
        self._keys = {key.public_suite_key().key_id: key for key in keys}
