"""Receipts: RFC 6962 trees, every bit bound, nobody else's accepted (T8, T9)."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import (
    FIXED_ENVELOPE,
    NOW_MS,
    RECEIPT_KEY,
    RECEIPT_KEY_ID,
    ROOT_KEY,
    UTR,
    build_declined_statement,
    build_key_list,
    build_receipt,
    build_statement,
    build_terms,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec import limits
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.fields import fields_of
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.seal import (
    LABEL_RECEIPT_ROOT,
    BadReceipt,
    envelope_hash,
    key_id_of,
    match_receipt,
    merkle_paths,
    merkle_root,
    receipt_leaf,
    sign_receipts,
    verify_receipt,
)
from paygate.codec.sealed import Receipt, ReceiptKey, ReceiptStatement, Terms

TREE_SIZES = range(1, 41)
KEY_LIST = build_key_list()


# -- trees, written down from RFC 6962 section 2.1 -------------------------------------------------------


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k


def naive_root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*naive_path(index, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(index - k, leaves[k:]), naive_root(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [hashlib.sha256(b"leaf %d" % i).digest() for i in range(count)]


@pytest.mark.pg("PG-RCP-2")
@pytest.mark.parametrize("count", TREE_SIZES)
def test_roots_and_paths_are_those_of_rfc_6962(count: int) -> None:
    leaves = leaves_of(count)
    root, paths = merkle_paths(leaves)
    assert root == naive_root(leaves)
    assert [list(path) for path in paths] == [naive_path(i, leaves) for i in range(count)]
    for index, path in enumerate(paths):
        assert merkle_root(leaves[index], index, count, path) == root


@pytest.mark.pg("PG-RCP-2")
@pytest.mark.parametrize("count", TREE_SIZES)
def test_a_path_of_another_length_or_place_gives_no_such_root(count: int) -> None:
    leaves = leaves_of(count)
    root, paths = merkle_paths(leaves)
    for index, path in enumerate(paths):
        with pytest.raises(BadReceipt, match="too long"):
            merkle_root(leaves[index], index, count, (*path, leaves[0]))
        if path:
            with pytest.raises(BadReceipt, match="too short"):
                merkle_root(leaves[index], index, count, path[:-1])
        for other in range(count):
            if other != index:
                with contextlib.suppress(BadReceipt):
                    assert merkle_root(leaves[index], other, count, path) != root


@given(st.integers(1, 300), st.data())
def test_larger_trees(count: int, data: st.DataObject) -> None:
    leaves = leaves_of(count)
    index = data.draw(st.integers(0, count - 1))
    root, paths = merkle_paths(leaves)
    assert root == naive_root(leaves)
    assert list(paths[index]) == naive_path(index, leaves)


def test_a_receipt_has_room_for_the_largest_tree() -> None:
    count = 1 << limits.RECEIPT_PATH_COUNT_MAX
    path = leaves_of(limits.RECEIPT_PATH_COUNT_MAX)
    decoded = decode_record(Receipt, build_receipt())
    largest = encode_record(replace(decoded, leaf_count=count, leaf_index=count - 1, path=tuple(path)))
    assert len(largest) <= limits.RECEIPT_SIZE_MAX


# -- receipts --------------------------------------------------------------------------------------------


def statements_of(count: int) -> list[ReceiptStatement]:
    return [build_statement(terms=build_terms(payment_id=bytes([i + 1]) * 16)) for i in range(count)]


@pytest.mark.pg("PG-RCP-3")
@pytest.mark.parametrize("count", TREE_SIZES)
def test_every_receipt_of_a_tick_verifies_alone(count: int) -> None:
    statements = statements_of(count)
    receipts = sign_receipts(RECEIPT_KEY, statements)
    assert [verify_receipt(receipt, KEY_LIST) for receipt in receipts] == statements
    signatures = {decode_record(Receipt, receipt).signature for receipt in receipts}
    assert len(signatures) == 1
    root = naive_root([receipt_leaf(s) for s in statements])
    RECEIPT_KEY.public_key().verify(signatures.pop(), LABEL_RECEIPT_ROOT + RECEIPT_KEY_ID + count.to_bytes(4) + root)


def test_a_leaf_is_the_hash_of_the_whole_statement() -> None:
    statement = build_statement()
    assert receipt_leaf(statement) == hashlib.sha256(b"\0paygate/v1/receipt\0" + encode_record(statement)).digest()


def test_no_statements_make_no_receipts_and_one_has_an_empty_path() -> None:
    assert sign_receipts(RECEIPT_KEY, []) == []
    assert decode_record(Receipt, build_receipt()).path == ()


def test_signing_again_gives_the_same_bytes() -> None:
    assert build_receipt() == build_receipt()  # T1: replays are byte-identical


@pytest.mark.pg("PG-RCP-3")
@pytest.mark.parametrize(("count", "index"), [(1, 0), (2, 1), (3, 2), (7, 4)])
def test_every_flipped_bit_of_a_receipt_is_refused(count: int, index: int) -> None:
    receipt = bytearray(sign_receipts(RECEIPT_KEY, statements_of(count))[index])
    for bit in range(8 * len(receipt)):
        receipt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadReceipt):
            verify_receipt(bytes(receipt), KEY_LIST)
        receipt[bit // 8] ^= 1 << bit % 8
    verify_receipt(bytes(receipt), KEY_LIST)


@pytest.mark.pg("PG-RCP-1")
def test_a_receipt_cut_or_followed_by_more_is_refused() -> None:
    receipt = build_receipt()
    for size in range(len(receipt)):
        with pytest.raises(BadReceipt, match="malformed"):
            verify_receipt(receipt[:size], KEY_LIST)
    with pytest.raises(BadReceipt, match="malformed: trailing bytes"):
        verify_receipt(receipt + b"\0", KEY_LIST)


@given(st.binary(max_size=600))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadReceipt):
        verify_receipt(garbage, KEY_LIST)


@pytest.mark.pg("PG-RCP-1")
def test_a_receipt_under_a_key_that_is_not_listed_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    other_id = key_id_of(other.public_key().public_bytes_raw())
    with pytest.raises(BadReceipt, match="the bank's key list does not hold"):
        verify_receipt(sign_receipts(other, [build_statement(receipt_key_id=other_id)])[0], KEY_LIST)


def test_a_key_under_anothers_id_is_not_believed() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32).public_key().public_bytes_raw()
    swapped = build_key_list(receipt_keys=(ReceiptKey(RECEIPT_KEY_ID, other),))
    with pytest.raises(BadReceipt, match="does not hold"):
        verify_receipt(build_receipt(), swapped)


@pytest.mark.pg("PG-RCP-3")
def test_a_forged_signature_is_refused() -> None:
    # T8: whoever holds another key can copy everything but the signature.
    genuine = decode_record(Receipt, build_receipt())
    forged = ROOT_KEY.sign(LABEL_RECEIPT_ROOT + RECEIPT_KEY_ID + (1).to_bytes(4) + receipt_leaf(genuine.statement))
    for signature in (forged, bytes(64), b"\xff" * 64):
        with pytest.raises(BadReceipt, match="signature does not verify"):
            verify_receipt(encode_record(replace(genuine, signature=signature)), KEY_LIST)


def test_a_leaf_can_not_pass_for_a_node() -> None:
    # With one prefix for both, the hash of a pair would be a leaf of a smaller tree.
    statements = statements_of(2)
    first, second = (decode_record(Receipt, r) for r in sign_receipts(RECEIPT_KEY, statements))
    for tree in (replace(first, leaf_count=1, path=()), replace(second, leaf_index=0), replace(first, leaf_index=1)):
        with pytest.raises(BadReceipt):
            verify_receipt(encode_record(tree), KEY_LIST)


def test_two_receipt_keys_may_be_listed_while_they_rotate() -> None:
    new = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    new_public = new.public_key().public_bytes_raw()
    key_list = build_key_list(receipt_keys=(ReceiptKey(key_id_of(new_public), new_public), *KEY_LIST.receipt_keys))
    for key in (new, RECEIPT_KEY):
        statement = build_statement(receipt_key_id=key_id_of(key.public_key().public_bytes_raw()))
        assert verify_receipt(sign_receipts(key, [statement])[0], key_list) == statement


# -- whose receipt ---------------------------------------------------------------------------------------

OTHER_TERMS: dict[str, Any] = {
    "bank_id": "BANK2",
    "gateway_id": "GW2",
    "merchant_id": "M-200",
    "transaction_id": "TX-2002",
    "payment_id": b"q" * 16,
    "session_id": b"t" * 16,
    "amount_minor": 125_001,
    "currency": "USD",
    "authorised_at_ms": NOW_MS + 1,
}


def test_a_receipt_of_this_payment_matches() -> None:
    match_receipt(verify_receipt(build_receipt(), KEY_LIST), build_terms(), envelope_hash(FIXED_ENVELOPE))


@pytest.mark.pg("PG-RCP-4")
@pytest.mark.parametrize("name", [f.name for f in fields_of(Terms)])
def test_a_receipt_of_another_payment_is_refused(name: str) -> None:
    # T9, field by field.
    other = build_receipt(build_statement(terms=build_terms(**{name: OTHER_TERMS[name]})))
    with pytest.raises(BadReceipt, match=f"of another payment: its {name} differs"):
        match_receipt(verify_receipt(other, KEY_LIST), build_terms(), envelope_hash(FIXED_ENVELOPE))


@pytest.mark.pg("PG-RCP-4")
def test_a_receipt_of_another_envelope_is_refused() -> None:
    other = build_receipt(build_statement(envelope_hash=envelope_hash(b"another envelope")))
    with pytest.raises(BadReceipt, match="of another envelope"):
        match_receipt(verify_receipt(other, KEY_LIST), build_terms(), envelope_hash(FIXED_ENVELOPE))


@pytest.mark.parametrize(
    "statement",
    [
        build_declined_statement(),
        build_statement(outcome=TransferOutcome.FENCED, reason=Reason.FENCED, utr=""),
    ],
    ids=lambda s: s.outcome.name,
)
def test_every_final_outcome_has_a_receipt(statement: ReceiptStatement) -> None:
    assert verify_receipt(build_receipt(statement), KEY_LIST) == statement


def test_the_statement_tells_the_utr() -> None:
    assert verify_receipt(build_receipt(), KEY_LIST).utr == UTR
