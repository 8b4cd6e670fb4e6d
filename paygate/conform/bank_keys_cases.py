"""The key list of a bank (spec 6.1, 8.4)."""

import hashlib

from paygate.codec import limits
from paygate.codec.codes import AeadId, KdfId, KemId, KeysStatus
from paygate.codec.messages import BankKeys, BankKeysQuery
from paygate.conform.bank_side import BANK, key_list_of, open_link
from paygate.conform.cases import require
from paygate.conform.trial import Trial


@BANK.case(
    "keys.own",
    "The bank's list is signed by its root key, of this bank, and valid now; key IDs are hashes of their keys.",
    *("6.1", "8.4", "PG-KEY-3", "PG-KEY-4", "PG-KEY-5", "PG-CRY-1"),
)
async def keys_own(t: Trial) -> None:
    key_list = await key_list_of(t, await open_link(t))
    ids = [(key.key_id, key.public_key) for key in key_list.suite_keys]
    ids += [(key.receipt_key_id, key.public_key) for key in key_list.receipt_keys]
    for key_id, public_key in ids:
        right = hashlib.sha256(public_key).digest()[: limits.KEY_ID_SIZE]
        require(key_id == right, f"key ID {right.hex()}, the hash of its public key", key_id.hex())


@BANK.case(
    "keys.suites",
    "The list has an X25519 key, and each suite's KDF, AEAD and key size are those of its KEM.",
    *("8.2", "8.4", "PG-ENV-2"),
)
async def keys_suites(t: Trial) -> None:
    key_list = await key_list_of(t, await open_link(t))
    suites = {
        KemId.X25519: (KdfId.HKDF_SHA256, AeadId.AES_128_GCM, 32),
        KemId.MLKEM768_X25519: (KdfId.HKDF_SHA256, AeadId.AES_256_GCM, 1_216),
    }
    for key in key_list.suite_keys:
        suite = (key.kdf_id, key.aead_id, len(key.public_key))
        require(suite == suites[key.kem_id], f"{suites[key.kem_id]} with {key.kem_id.name}", suite)
    require(any(key.kem_id is KemId.X25519 for key in key_list.suite_keys), "an X25519 key", key_list.suite_keys)


@BANK.case(
    "keys.same_on_every_link",
    "Two links are given the same signed list, unless the bank signs a new one in between with a higher serial.",
    *("6.1", "8.4", "PG-KEY-6"),
)
async def keys_same(t: Trial) -> None:
    wires = [await open_link(t), await open_link(t)]
    signed = [await wire.ask(BankKeysQuery(t.world.bank_id), BankKeys) for wire in wires]
    first, second = [await key_list_of(t, wire) for wire in wires]
    is_grown = second.serial > first.serial
    require(is_grown or signed[0].signed_key_list == signed[1].signed_key_list, "the same list twice", signed[1])


@BANK.case(
    "keys.unknown_bank", "A query for another bank is answered UNKNOWN_BANK, without a list.", *("6.1", "PG-KEY-2")
)
async def keys_unknown_bank(t: Trial) -> None:
    wire = await open_link(t)
    for bank_id in ("NO-SUCH-BANK", t.world.bank_id.swapcase()):
        keys = await wire.ask(BankKeysQuery(bank_id), BankKeys)
        require(keys.status is KeysStatus.UNKNOWN_BANK, "UNKNOWN_BANK", keys)
