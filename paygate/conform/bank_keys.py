"""The keys of the bank that the kit plays: made from the world's seed, so that root key and receipts are known ahead.

Whoever plays a bank to a gateway, or a gateway (and so the bank behind it) to a client, takes key list and receipts
from here.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.codec.codes import KemId, Reason, TransferOutcome
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import (
    Credentials,
    NotOpened,
    SealingKey,
    key_id_of,
    open_envelope,
    sign_key_list,
    sign_receipts,
)
from paygate.codec.sealed import (
    KeyList,
    PasswordKeyParameters,
    ReceiptKey,
    ReceiptStatement,
    SignedKeyList,
    SuiteKey,
    Terms,
)
from paygate.conform.world import World

CHEAP_PASSWORD_KEY: Final = PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)
"""The cheapest Argon2id that may be asked for: a run seals hundreds of envelopes."""
DAY_MS: Final = 86_400_000
VALID_BEFORE_MS: Final = 300_000
"""How far back a list is valid, for a client whose clock is slow (PG-KEY-6)."""
_SEALING_SIZES: Final = {KemId.MLKEM768_X25519: 96, KemId.X25519: 32}
"""Bytes of a suite's private key; both suites, the better one first."""


@dataclass(frozen=True)
class PlayedBankKeys:
    """Root key, receipt key and sealing keys of one bank. Another `name` of a sealing key gives another key."""

    bank_id: str
    bank_code: str
    seed: bytes

    @staticmethod
    def of(world: World) -> "PlayedBankKeys":
        """The keys of the world's played bank."""
        return PlayedBankKeys(world.bank_id, world.bank_code, world.played_bank_seed)

    @staticmethod
    def key_files(world: dict[str, Any]) -> dict[str, str]:
        """Contents of the files in which a world, as `default_world` made it, looks for a bank's keys, by their names.

        So a gateway or a client can be set up from the world without a bank. The world is changed to name them.
        """
        bank = world["bank"]
        keys = PlayedBankKeys(bank["bank_id"], bank["bank_code"], bytes.fromhex(world["played_bank_seed"]))
        bank["root_public_key"] = "bank-root.pub"
        files = {"bank-root.pub": f"{keys.bank_id} {keys.root_public_key.hex()}\n"}
        for party in (world["gateway"], world["second_gateway"]):
            files[party["link_key"]] = f"{keys._derive(party['gateway_id'].encode(), 32).hex()}\n"
        return files

    @cached_property
    def root_key(self) -> Ed25519PrivateKey:
        """Signs key lists; its public half is what clients pin."""
        return Ed25519PrivateKey.from_private_bytes(self._derive(b"root", 32))

    @cached_property
    def receipt_key(self) -> Ed25519PrivateKey:
        """Signs receipts."""
        return Ed25519PrivateKey.from_private_bytes(self._derive(b"receipt", 32))

    @property
    def root_public_key(self) -> bytes:
        """What clients pin."""
        return self.root_key.public_key().public_bytes_raw()

    def sealing_key(self, kem_id: KemId, name: str = "first") -> SealingKey:
        """A private key of the suite."""
        return SealingKey.from_private_bytes(kem_id, self._derive(b"sealing " + name.encode(), _SEALING_SIZES[kem_id]))

    def suite_key(self, kem_id: KemId, name: str = "first") -> SuiteKey:
        """Its entry in the key list."""
        return self.sealing_key(kem_id, name).public_suite_key()

    # -- key list --------------------------------------------------------------------------------------

    def key_list(self, now_ms: int, **changes: Any) -> KeyList:
        """A list with one key of each suite, valid for a day. Its serial is the time, so that it grows from run to run.

        `changes` replace fields; what is made so may be what no honest bank signs.
        """
        receipt_public = self.receipt_key.public_key().public_bytes_raw()
        usual: dict[str, Any] = {
            "bank_id": self.bank_id,
            "serial": now_ms,
            "valid_from_ms": now_ms - VALID_BEFORE_MS,
            "valid_until_ms": now_ms + DAY_MS,
            "password_key": CHEAP_PASSWORD_KEY,
            "suite_keys": tuple(self.suite_key(kem_id) for kem_id in _SEALING_SIZES),
            "receipt_keys": (ReceiptKey(key_id_of(receipt_public), receipt_public),),
        }
        return KeyList(**(usual | changes))

    def sign(self, key_list: KeyList) -> bytes:
        """The encoded SignedKeyList."""
        return sign_key_list(self.root_key, key_list)

    def read(self, signed_key_list: bytes) -> KeyList:
        """The list that `sign` was given."""
        return decode_record(KeyList, decode_record(SignedKeyList, signed_key_list).key_list)

    # -- payments --------------------------------------------------------------------------------------

    def open(self, key_id: bytes, terms: Terms, envelope: bytes) -> Credentials:
        """Open an envelope as this bank. Raises NotOpened, also for a key that it does not have."""
        for kem_id in _SEALING_SIZES:
            key = self.sealing_key(kem_id)
            if key.public_suite_key().key_id == key_id:
                return open_envelope(key, key_id, terms, envelope)
        raise NotOpened("no key of this bank")

    def statement(
        self,
        terms: Terms,
        envelope_hash: bytes,
        outcome: TransferOutcome,
        now_ms: int,
        *,
        reason: Reason = Reason.NONE,
        utr: str = "",
    ) -> ReceiptStatement:
        """What a receipt of this bank states."""
        key_id = key_id_of(self.receipt_key.public_key().public_bytes_raw())
        return ReceiptStatement(key_id, outcome, reason, terms, utr, now_ms, envelope_hash)

    def receipts(self, *statements: ReceiptStatement) -> list[bytes]:
        """One encoded receipt for each statement, all leaves of one tree."""
        return sign_receipts(self.receipt_key, statements)

    def utrs(self, now_ms: int) -> Iterator[str]:
        """UTRs of today, each once in this run."""
        date = time.strftime("%Y%m%d", time.gmtime(now_ms // 1_000))
        return (f"{self.bank_code}P1{date}{number:08}" for number in count(1))

    def _derive(self, use: bytes, size: int) -> bytes:
        return hashlib.shake_256(b"paygate-conform played bank\0" + use + b"\0" + self.seed).digest(size)
