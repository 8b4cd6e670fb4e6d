"""Signed things for crypto.json: key lists and receipts, those that a client must take and those it must refuse.

`result` says where a check by spec 8.4 or 8.5 ends: `accepted`, or what does not hold.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.codec.record_codec import decode_record
from paygate.codec.seal import LABEL_KEY_LIST, LABEL_RECEIPT, LABEL_RECEIPT_ROOT, envelope_hash, key_id_of
from paygate.codec.sealed import KeyList, Receipt, ReceiptStatement, SignedKeyList, Terms
from specgen.vector_fixtures import (
    BANK_ID,
    DAY_MS,
    NOW_MS,
    OPAQUE_ENVELOPE,
    RECEIPT_KEY,
    RECEIPT_KEY_ID,
    ROOT_KEY,
    ROOT_PUBLIC_KEY,
    build_key_list,
    build_statement,
    build_terms,
    fixed_bytes,
)
from specgen.vector_values import encode, json_of

_OTHER_KEY: Final = Ed25519PrivateKey.from_private_bytes(fixed_bytes("another Ed25519 key", 32))
_OTHER_PUBLIC_KEY: Final = _OTHER_KEY.public_key().public_bytes_raw()
_LEAF_COUNTS: Final = (1, 2, 3, 5, 8)


# -- key lists (spec 8.4) --------------------------------------------------------------------------------


def key_lists() -> dict[str, Any]:
    """One key list with its signature, and checks of it and of others."""
    key_list = build_key_list()
    encoding = encode(key_list)
    signature = ROOT_KEY.sign(LABEL_KEY_LIST + encoding)
    return {
        "fields": json_of(key_list),
        "encoding": encoding.hex(),
        "signed_bytes": (LABEL_KEY_LIST + encoding).hex(),
        "signature": signature.hex(),
        "signed_key_list": encode(SignedKeyList(encoding, signature)).hex(),
        "checks": [*_key_list_checks()],
    }


def _signed(key_list: KeyList, key: Ed25519PrivateKey = ROOT_KEY) -> bytes:
    return _signed_bytes(encode(key_list), key)


def _signed_bytes(encoding: bytes, key: Ed25519PrivateKey = ROOT_KEY) -> bytes:
    return encode(SignedKeyList(encoding, key.sign(LABEL_KEY_LIST + encoding)))


def _key_list_checks() -> Iterator[dict[str, Any]]:
    usual = build_key_list(suite_keys=build_key_list().suite_keys[:1])
    signed = _signed(usual)
    yield _key_list_check("usual", signed, "accepted")
    yield _key_list_check("same_serial_as_seen", signed, "accepted", serial_min=usual.serial)
    yield _key_list_check("first_millisecond", signed, "accepted", now_ms=usual.valid_from_ms)
    yield _key_list_check("last_millisecond", signed, "accepted", now_ms=usual.valid_until_ms - 1)
    yield _key_list_check("wrong_root_key", _signed(usual, _OTHER_KEY), "signature")
    yield _key_list_check("other_root_pinned", signed, "signature", root_public_key=_OTHER_PUBLIC_KEY)
    encoding = encode(usual)
    without_label = encode(SignedKeyList(encoding, ROOT_KEY.sign(encoding)))
    yield _key_list_check("signed_without_label", without_label, "signature")
    changed = encode(SignedKeyList(encode(replace(usual, serial=8)), decode_record(SignedKeyList, signed).signature))
    yield _key_list_check("changed_after_signing", changed, "signature")
    yield _key_list_check("other_bank", _signed(replace(usual, bank_id="BANK2")), "bank_id")
    yield _key_list_check("not_valid_yet", signed, "validity", now_ms=usual.valid_from_ms - 1)
    yield _key_list_check("expired", signed, "validity", now_ms=usual.valid_until_ms)
    yield _key_list_check("long_expired", signed, "validity", now_ms=NOW_MS + 365 * DAY_MS)
    yield _key_list_check("lower_serial_than_seen", signed, "serial", serial_min=usual.serial + 1)
    yield _key_list_check("bytes_after_the_signature", signed + b"\0", "malformed")
    yield _key_list_check("bytes_after_the_list", _signed_bytes(encoding + b"\0"), "malformed")
    yield _key_list_check("cut", signed[:-1], "malformed")
    yield _key_list_check("no_suite_keys", _signed(replace(usual, suite_keys=())), "malformed")
    yield _key_list_check("empty", b"", "malformed")


def _key_list_check(
    name: str,
    signed_key_list: bytes,
    result: str,
    *,
    root_public_key: bytes = ROOT_PUBLIC_KEY,
    now_ms: int = NOW_MS,
    serial_min: int = 0,
) -> dict[str, Any]:
    return {
        "name": name,
        "signed_key_list": signed_key_list.hex(),
        "root_public_key": root_public_key.hex(),
        "bank_id": BANK_ID,
        "now_ms": str(now_ms),
        "serial_min": str(serial_min),
        "result": result,
    }


# -- receipts (spec 8.5) ---------------------------------------------------------------------------------


def receipts() -> dict[str, Any]:
    """One leaf with its input, trees of several sizes, and checks."""
    statement = build_statement()
    leaf_input = b"\0" + LABEL_RECEIPT + encode(statement)
    return {
        "leaf": {
            "statement": json_of(statement),
            "statement_encoding": encode(statement).hex(),
            "leaf_input": leaf_input.hex(),
            "leaf": hashlib.sha256(leaf_input).hexdigest(),
        },
        "trees": [_tree(leaf_count) for leaf_count in _LEAF_COUNTS],
        "checks": [*_receipt_checks()],
    }


def _statements(leaf_count: int) -> list[ReceiptStatement]:
    return [build_statement(), *(_statement(number) for number in range(1, leaf_count))]


def _statement(number: int) -> ReceiptStatement:
    terms = build_terms(transaction_id=f"TX-{1001 + number}", payment_id=fixed_bytes(f"payment ID {number}", 16))
    return build_statement(terms=terms, utr=f"PGBKP120260102{1 + number:08d}")


def _leaf(statement: ReceiptStatement) -> bytes:
    return hashlib.sha256(b"\0" + LABEL_RECEIPT + encode(statement)).digest()


def _root(leaves: Sequence[bytes]) -> bytes:
    # As RFC 6962 section 2.1 defines it: the left part is the largest power of two that is less than the whole.
    if len(leaves) == 1:
        return leaves[0]
    left = _split(len(leaves))
    return hashlib.sha256(b"\1" + _root(leaves[:left]) + _root(leaves[left:])).digest()


def _path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    # RFC 6962 section 2.1.1, from the leaf upward.
    if len(leaves) == 1:
        return []
    left = _split(len(leaves))
    if index < left:
        return [*_path(index, leaves[:left]), _root(leaves[left:])]
    return [*_path(index - left, leaves[left:]), _root(leaves[:left])]


def _split(leaf_count: int) -> int:
    return 1 << (leaf_count - 1).bit_length() - 1


def _signed_root(leaf_count: int, root: bytes) -> bytes:
    return LABEL_RECEIPT_ROOT + RECEIPT_KEY_ID + leaf_count.to_bytes(4) + root


def _receipts(leaf_count: int, key: Ed25519PrivateKey = RECEIPT_KEY) -> list[Receipt]:
    statements = _statements(leaf_count)
    leaves = [_leaf(statement) for statement in statements]
    signature = key.sign(_signed_root(leaf_count, _root(leaves)))
    return [
        Receipt(statement, index, leaf_count, tuple(_path(index, leaves)), signature)
        for index, statement in enumerate(statements)
    ]


def _tree(leaf_count: int) -> dict[str, Any]:
    made = _receipts(leaf_count)
    root = _root([_leaf(receipt.statement) for receipt in made])
    return {
        "leaf_count": leaf_count,
        "root": root.hex(),
        "signed_bytes": _signed_root(leaf_count, root).hex(),
        "signature": made[0].signature.hex(),
        "leaves": [
            {
                "leaf_index": receipt.leaf_index,
                "leaf": _leaf(receipt.statement).hex(),
                "path": [node.hex() for node in receipt.path],
                "receipt": encode(receipt).hex(),
            }
            for receipt in made
        ],
    }


def _receipt_checks() -> Iterator[dict[str, Any]]:
    alone, of_5, of_8 = _receipts(1)[0], _receipts(5), _receipts(8)
    first, last = of_5[0], of_5[4]
    yield _check("alone", alone, "accepted")
    yield _check("first_of_5", first, "accepted")
    yield _check("path_too_short", replace(first, path=first.path[:-1]), "path")
    yield _check("path_too_long", replace(first, path=(*first.path, bytes(32))), "path")
    yield _check("path_of_one_alone", replace(alone, path=(bytes(32),)), "path")
    yield _check("no_path", replace(first, path=()), "path")
    yield _check("place_of_another_path_length", replace(first, leaf_index=4), "path")
    yield _check("path_of_another_place", replace(last, path=first.path), "path", last.statement.terms)
    yield _check("place_of_a_neighbour", replace(of_8[0], leaf_index=1), "signature")
    yield _check("another_leaf_count", replace(of_8[0], leaf_count=7), "signature")
    yield _check("path_changed", replace(first, path=(bytes(32), *first.path[1:])), "signature")
    yield _check("path_in_other_order", replace(first, path=first.path[::-1]), "signature")
    changed = bytes([alone.signature[0] ^ 1]) + alone.signature[1:]
    yield _check("signature_changed", replace(alone, signature=changed), "signature")
    yield _check("signed_by_another_key", _receipts(1, _OTHER_KEY)[0], "signature")
    leaf = _leaf(alone.statement)
    without_label = RECEIPT_KEY.sign(RECEIPT_KEY_ID + (1).to_bytes(4) + leaf)
    yield _check("signed_without_label", replace(alone, signature=without_label), "signature")
    another_utr = replace(alone.statement, utr="PGBKP12026010200000002")
    yield _check("statement_changed", replace(alone, statement=another_utr), "signature")
    unknown = replace(alone.statement, receipt_key_id=key_id_of(_OTHER_PUBLIC_KEY))
    yield _check("key_not_in_the_list", replace(alone, statement=unknown), "unknown_key")
    yield _check("index_not_below_count", replace(alone, leaf_index=1), "malformed")
    yield _check("bytes_after_it", encode(alone) + b"\0", "malformed")
    yield _check("cut", encode(alone)[:-1], "malformed")
    yield _check("empty", b"", "malformed")
    yield _check("other_amount", alone, "terms", build_terms(amount_minor=125_001))
    yield _check("other_payment", alone, "terms", build_terms(payment_id=fixed_bytes("another payment ID", 16)))
    yield _check("other_time", alone, "terms", build_terms(authorised_at_ms=NOW_MS + 1))
    yield _check("other_envelope", alone, "envelope_hash", envelope=b"another envelope")


def _check(
    name: str,
    receipt: Receipt | bytes,
    result: str,
    terms: Terms | None = None,
    *,
    envelope: bytes = OPAQUE_ENVELOPE,
) -> dict[str, Any]:
    data = receipt if isinstance(receipt, bytes) else encode(receipt)
    return {
        "name": name,
        "receipt": data.hex(),
        "terms": json_of(terms or build_terms()),
        "envelope_hash": envelope_hash(envelope).hex(),
        "result": result,
    }
