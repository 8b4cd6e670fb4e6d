"""crypto.json, computed a second time: with the codec's own functions, and step by step with the library."""

import hashlib
import hmac
import zlib
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from specgen import vector_crypto
from specgen.vector_values import record_of
from vectors.vector_files import load, texts

from paygate.codec import seal
from paygate.codec.codes import AeadId, KdfId, KemId
from paygate.codec.frame import decode_frame, decode_head, frame_checksum, frame_mac
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import (
    CredentialsPlaintext,
    KeyList,
    PasswordKeyParameters,
    Receipt,
    ReceiptStatement,
    SignedKeyList,
    Terms,
)

FILE: Final = load("crypto.json")
KEYS: Final = FILE["test_keys"]
ENVELOPES: Final = {KemId.X25519: FILE["x25519_envelope"], KemId.MLKEM768_X25519: FILE["hybrid_envelope"]}
SEALING_KEYS: Final = {
    KemId.X25519: seal.SealingKey.from_private_bytes(KemId.X25519, bytes.fromhex(KEYS["x25519"]["private_key"])),
    KemId.MLKEM768_X25519: seal.SealingKey.from_private_bytes(
        KemId.MLKEM768_X25519, bytes.fromhex(KEYS["hybrid"]["private_key"])
    ),
}
PEPPER: Final = bytes.fromhex(KEYS["pepper"])
KEY_LIST: Final = record_of(KeyList, FILE["key_list"]["fields"])
KEY_LIST_REFUSALS: Final = {
    "malformed": "malformed",
    "signature": "not signed by the pinned root key",
    "bank_id": "is of bank",
    "validity": "not valid now",
    "serial": "is older than",
}
RECEIPT_REFUSALS: Final = {
    "malformed": "malformed",
    "unknown_key": "does not hold",
    "path": "path is too",
    "signature": "signature does not verify",
    "terms": "is of another payment",
    "envelope_hash": "is of another envelope",
}


def by_name(entry: dict[str, Any]) -> str:
    return str(entry["name"])


def unhex(entry: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(entry[name]) for name in names]


def test_labels_are_the_codecs() -> None:
    assert {name: bytes.fromhex(label) for name, label in FILE["labels"].items()} == {
        "envelope": seal.LABEL_ENVELOPE,
        "password_salt": seal.LABEL_SALT,
        "verifier": seal.LABEL_VERIFIER,
        "key_list": seal.LABEL_KEY_LIST,
        "receipt": seal.LABEL_RECEIPT,
        "receipt_root": seal.LABEL_RECEIPT_ROOT,
    }


def test_public_halves_and_key_ids_belong_to_their_private_halves() -> None:
    for name in ("root", "receipt"):
        private, public = unhex(KEYS[name], "private_key", "public_key")
        assert Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw() == public
    for name, kem_id in (("x25519", KemId.X25519), ("hybrid", KemId.MLKEM768_X25519)):
        suite_key = SEALING_KEYS[kem_id].public_suite_key()
        assert unhex(KEYS[name], "public_key", "key_id") == [suite_key.public_key, suite_key.key_id]
    for name in ("receipt", "x25519", "hybrid"):
        public, hashed, key_id = unhex(KEYS[name], "public_key", "key_id_input_sha256", "key_id")
        assert hashed == hashlib.sha256(public).digest()
        assert key_id == seal.key_id_of(public) == hashed[:8]


@pytest.mark.parametrize("entry", FILE["frames"], ids=lambda entry: entry["kind"]["name"])
def test_checksum_and_mac(entry: dict[str, Any]) -> None:
    frame, checksum_input, checksum, mac_input, full, mac = unhex(
        entry, "frame", "checksum_input", "checksum", "mac_input", "hmac_sha256", "mac"
    )
    link_key = bytes.fromhex(KEYS["link_key"])
    assert zlib.crc32(checksum_input) == int.from_bytes(checksum) == frame_checksum(mac_input)
    assert hmac.digest(link_key, mac_input, hashlib.sha256) == full
    assert mac == full[:16] == frame_mac(link_key, mac_input)
    assert frame == mac_input + mac
    decode_frame(decode_head(frame[:20]), frame).check_mac(link_key)


@pytest.mark.parametrize("entry", FILE["passwords"], ids=by_name)
def test_password_key_and_verifier(entry: dict[str, Any]) -> None:
    user_typed, user_id, typed, password = (
        data.decode()
        for data in unhex(entry, "user_id_typed_utf8", "user_id_utf8", "password_typed_utf8", "password_utf8")
    )
    salt_input, hashed, salt, key = unhex(entry, "salt_input", "salt_input_sha256", "salt", "password_key")
    assert hashlib.sha256(salt_input).digest() == hashed
    parameters = record_of(PasswordKeyParameters, entry["parameters"])
    for user, typed_as in ((user_typed, typed), (user_id, password)):
        assert seal.password_salt(entry["bank_id"], user) == salt == hashed[:16]
        assert seal.password_key(parameters, entry["bank_id"], user, typed_as) == key
    assert hmac.digest(PEPPER, bytes.fromhex(entry["verifier_input"]), hashlib.sha256).hex() == entry["verifier"]
    assert seal.verifier_of(PEPPER, key).hex() == entry["verifier"]


def test_a_password_is_given_with_the_default_parameters_and_one_in_another_form() -> None:
    parameters = [record_of(PasswordKeyParameters, entry["parameters"]) for entry in FILE["passwords"]]
    assert seal.DEFAULT_PASSWORD_KEY in parameters
    assert any(entry["password_typed_utf8"] != entry["password_utf8"] for entry in FILE["passwords"])


# -- envelopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kem_id", KemId, ids=lambda kem_id: kem_id.name)
def test_an_envelope_opens_to_its_plaintext(kem_id: KemId) -> None:
    entry = ENVELOPES[kem_id]
    terms = record_of(Terms, entry["terms"])
    key_id, info, plaintext, envelope = unhex(entry, "key_id", "info", "plaintext", "envelope")
    suite_key = SEALING_KEYS[kem_id].public_suite_key()
    assert [entry["suite"][name]["code"] for name in ("kem_id", "kdf_id", "aead_id")] == [
        suite_key.kem_id, suite_key.kdf_id, suite_key.aead_id
    ]  # fmt: skip
    assert encode_record(terms).hex() == entry["terms_encoding"]
    assert info == seal.envelope_info(key_id, terms)
    fields = record_of(CredentialsPlaintext, entry["plaintext_fields"])
    assert encode_record(fields) == plaintext
    opened = seal.open_envelope(SEALING_KEYS[kem_id], key_id, terms, envelope)
    assert opened == seal.Credentials("asha", fields.password_key)
    assert seal.envelope_hash(envelope).hex() == entry["envelope_hash"]


def test_each_step_of_the_x25519_envelope_follows_from_the_one_before() -> None:
    entry = ENVELOPES[KemId.X25519]
    steps = {name: bytes.fromhex(value) for name, value in entry["steps"].items()}
    ephemeral = X25519PrivateKey.from_private_bytes(steps["ephemeral_private_key"])
    public_key = bytes.fromhex(KEYS["x25519"]["public_key"])
    assert steps["enc"] == ephemeral.public_key().public_bytes_raw()
    assert steps["dh"] == ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    assert steps["kem_context"] == steps["enc"] + public_key
    kem = b"HPKE-v1KEM\x00\x20"
    assert steps["eae_prk"] == hmac.digest(bytes(32), kem + b"eae_prk" + steps["dh"], hashlib.sha256)
    expanded = b"\x00\x20" + kem + b"shared_secret" + steps["kem_context"] + b"\1"
    assert steps["shared_secret"] == hmac.digest(steps["eae_prk"], expanded, hashlib.sha256)
    check_key_schedule(entry, steps, key_size=16)
    assert entry["envelope"] == (steps["enc"] + steps["ciphertext"]).hex()


def test_each_step_of_the_hybrid_envelope_follows_from_the_one_before() -> None:
    entry = ENVELOPES[KemId.MLKEM768_X25519]
    steps = {name: bytes.fromhex(value) for name, value in entry["steps"].items()}
    assert steps["enc"] == steps["ml_kem_ciphertext"] + steps["x25519_ephemeral_public_key"]
    assert len(steps["enc"]) == 1_120
    x25519 = X25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS["hybrid"]["private_key"])[64:])
    ephemeral = X25519PublicKey.from_public_bytes(steps["x25519_ephemeral_public_key"])
    assert steps["x25519_shared_secret"] == x25519.exchange(ephemeral)
    public_key = bytes.fromhex(KEYS["hybrid"]["public_key"])[1_184:]
    secrets = steps["ml_kem_shared_secret"] + steps["x25519_shared_secret"]
    assert steps["combiner_input"] == secrets + steps["x25519_ephemeral_public_key"] + public_key + b"\\.//^\\"
    assert steps["shared_secret"] == hashlib.sha3_256(steps["combiner_input"]).digest()
    check_key_schedule(entry, steps, key_size=32)
    assert entry["envelope"] == (steps["enc"] + steps["ciphertext"]).hex()


def check_key_schedule(entry: dict[str, Any], steps: dict[str, bytes], *, key_size: int) -> None:
    numbers = [entry["suite"][name]["code"] for name in ("kem_id", "kdf_id", "aead_id")]
    suite_id = b"HPKE" + b"".join(number.to_bytes(2) for number in numbers)
    labeled = b"HPKE-v1" + suite_id
    assert steps["suite_id"] == suite_id
    assert steps["psk_id_hash"] == hmac.digest(bytes(32), labeled + b"psk_id_hash", hashlib.sha256)
    info = bytes.fromhex(entry["info"])
    assert steps["info_hash"] == hmac.digest(bytes(32), labeled + b"info_hash" + info, hashlib.sha256)
    context = b"\0" + steps["psk_id_hash"] + steps["info_hash"]
    assert steps["key_schedule_context"] == context
    assert steps["secret"] == hmac.digest(steps["shared_secret"], labeled + b"secret", hashlib.sha256)
    for name, size in (("key", key_size), ("base_nonce", 12)):
        expanded = size.to_bytes(2) + labeled + name.encode() + context + b"\1"
        assert steps[name] == hmac.digest(steps["secret"], expanded, hashlib.sha256)[:size]
    opened = AESGCM(steps["key"]).decrypt(steps["base_nonce"], steps["ciphertext"], None)
    assert opened.hex() == entry["plaintext"]


def test_the_suites_are_those_of_the_protocol() -> None:
    assert {code for entry in ENVELOPES.values() for code in names_of(entry["suite"])} == {
        code.name for registry in (KemId, KdfId, AeadId) for code in registry
    }


def names_of(suite: dict[str, Any]) -> set[str]:
    return {code["name"] for code in suite.values()}


@pytest.mark.parametrize("entry", FILE["refused_envelopes"], ids=by_name)
def test_an_envelope_that_must_not_open_does_not(entry: dict[str, Any]) -> None:
    key_id, envelope = unhex(entry, "key_id", "envelope")
    with pytest.raises(seal.NotOpened):
        seal.open_envelope(SEALING_KEYS[KemId.X25519], key_id, record_of(Terms, entry["terms"]), envelope)


def test_the_hybrid_envelope_is_kept_while_it_opens_and_made_anew_when_it_does_not() -> None:
    kept = vector_crypto.render(texts()["crypto.json"])["hybrid_envelope"]
    assert kept == ENVELOPES[KemId.MLKEM768_X25519]
    damaged = texts()["crypto.json"].replace(kept["envelope"], "00" + kept["envelope"][2:])
    for previous in ("", "{", "[]", damaged):
        made = vector_crypto.render(previous)["hybrid_envelope"]
        assert made["envelope"] != kept["envelope"]
        assert made["plaintext"] == kept["plaintext"]


# -- key lists and receipts ------------------------------------------------------------------------------


def test_the_key_list_is_signed_over_its_bytes() -> None:
    entry = FILE["key_list"]
    encoding, signed_bytes, signature, signed = unhex(entry, "encoding", "signed_bytes", "signature", "signed_key_list")
    assert encode_record(KEY_LIST) == encoding
    assert signed_bytes == seal.LABEL_KEY_LIST + encoding
    root_private, root_public = unhex(KEYS["root"], "private_key", "public_key")
    Ed25519PublicKey.from_public_bytes(root_public).verify(signature, signed_bytes)
    assert seal.sign_key_list(Ed25519PrivateKey.from_private_bytes(root_private), KEY_LIST) == signed
    assert decode_record(SignedKeyList, signed) == SignedKeyList(encoding, signature)


@pytest.mark.parametrize("entry", FILE["key_list"]["checks"], ids=by_name)
def test_a_key_list_is_taken_or_refused(entry: dict[str, Any]) -> None:
    signed, root_public_key = unhex(entry, "signed_key_list", "root_public_key")
    arguments = (signed, root_public_key, entry["bank_id"], int(entry["now_ms"]), int(entry["serial_min"]))
    if entry["result"] == "accepted":
        assert seal.verify_key_list(*arguments).bank_id == entry["bank_id"]
        return
    with pytest.raises(seal.BadKeyList, match=KEY_LIST_REFUSALS[entry["result"]]):
        seal.verify_key_list(*arguments)


def test_the_leaf_is_hashed_from_the_statement() -> None:
    entry = FILE["receipts"]["leaf"]
    statement = record_of(ReceiptStatement, entry["statement"])
    assert encode_record(statement).hex() == entry["statement_encoding"]
    assert hashlib.sha256(bytes.fromhex(entry["leaf_input"])).hexdigest() == entry["leaf"]
    assert seal.receipt_leaf(statement).hex() == entry["leaf"]


@pytest.mark.parametrize("tree", FILE["receipts"]["trees"], ids=lambda tree: str(tree["leaf_count"]))
def test_a_tree_has_its_root_paths_and_signature(tree: dict[str, Any]) -> None:
    leaves = [bytes.fromhex(leaf["leaf"]) for leaf in tree["leaves"]]
    assert len(leaves) == tree["leaf_count"]
    root, paths = seal.merkle_paths(leaves)
    assert root.hex() == tree["root"]
    assert [[node.hex() for node in path] for path in paths] == [leaf["path"] for leaf in tree["leaves"]]
    receipt_private, receipt_public = unhex(KEYS["receipt"], "private_key", "public_key")
    signature, signed_bytes = unhex(tree, "signature", "signed_bytes")
    Ed25519PublicKey.from_public_bytes(receipt_public).verify(signature, signed_bytes)
    decoded = [decode_record(Receipt, bytes.fromhex(leaf["receipt"])) for leaf in tree["leaves"]]
    statements = [receipt.statement for receipt in decoded]
    made = seal.sign_receipts(Ed25519PrivateKey.from_private_bytes(receipt_private), statements)
    assert [receipt.hex() for receipt in made] == [leaf["receipt"] for leaf in tree["leaves"]]
    for index, (leaf, receipt) in enumerate(zip(tree["leaves"], decoded, strict=True)):
        assert leaf["leaf_index"] == index == receipt.leaf_index
        assert seal.receipt_leaf(receipt.statement).hex() == leaf["leaf"]
        assert seal.merkle_root(leaves[index], index, len(leaves), paths[index]) == root
        assert seal.verify_receipt(bytes.fromhex(leaf["receipt"]), KEY_LIST) == receipt.statement


def test_trees_have_the_sizes_where_a_last_leaf_is_carried_up_and_where_not() -> None:
    assert [tree["leaf_count"] for tree in FILE["receipts"]["trees"]] == [1, 2, 3, 5, 8]


@pytest.mark.parametrize("entry", FILE["receipts"]["checks"], ids=by_name)
def test_a_receipt_is_taken_or_refused(entry: dict[str, Any]) -> None:
    receipt, sent_envelope_hash = unhex(entry, "receipt", "envelope_hash")
    terms = record_of(Terms, entry["terms"])
    if entry["result"] in ("accepted", "terms", "envelope_hash"):
        statement = seal.verify_receipt(receipt, KEY_LIST)
        if entry["result"] == "accepted":
            seal.match_receipt(statement, terms, sent_envelope_hash)
            return
        with pytest.raises(seal.BadReceipt, match=RECEIPT_REFUSALS[entry["result"]]):
            seal.match_receipt(statement, terms, sent_envelope_hash)
        return
    with pytest.raises(seal.BadReceipt, match=RECEIPT_REFUSALS[entry["result"]]):
        seal.verify_receipt(receipt, KEY_LIST)


@pytest.mark.parametrize(
    ("checks", "refusals"),
    [(FILE["key_list"]["checks"], KEY_LIST_REFUSALS), (FILE["receipts"]["checks"], RECEIPT_REFUSALS)],
    ids=["key lists", "receipts"],
)
def test_every_way_to_refuse_is_shown(checks: list[dict[str, Any]], refusals: dict[str, str]) -> None:
    assert {entry["result"] for entry in checks} == {"accepted", *refusals}
