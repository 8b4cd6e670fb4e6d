"""Envelopes: opened by the right key under the right terms, and by nothing else (R4, T2, T3, T11)."""

import hashlib
import hmac
import unicodedata
from dataclasses import replace

import pytest
from builders import (
    FIXED_ENVELOPE,
    PEPPER,
    RECEIPT_KEY,
    ROOT_KEY,
    build_envelope,
    build_key_list,
    build_terms,
    sealing_key,
)
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from strategies import records

from paygate.codec import limits
from paygate.codec.codes import AeadId, KdfId, KemId
from paygate.codec.errors import LocalProtocolError, RemoteProtocolError
from paygate.codec.fields import fields_of
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.seal import (
    BadKeyList,
    NotOpened,
    SealingKey,
    choose_suite_key,
    envelope_hash,
    envelope_info,
    key_id_of,
    open_envelope,
    seal_credentials,
)
from paygate.codec.sealed import SuiteKey, Terms

each_suite = pytest.mark.parametrize("kem_id", KemId, ids=lambda kem_id: kem_id.name)
TERMS_FIELDS = [f.name for f in fields_of(Terms)]
PLAINTEXT = b"\1\4" + b"asha".ljust(64, b"\0") + b"k" * 32 + b"n" * 16 + bytes(142)
ENVELOPE_SIZES = {KemId.X25519: 304, KemId.MLKEM768_X25519: 1_392}


def refused(key: SealingKey, key_id: bytes, terms: Terms, envelope: bytes) -> None:
    with pytest.raises(NotOpened) as caught:
        open_envelope(key, key_id, terms, envelope)
    # One answer for every cause: a decoder's words must not become an oracle.
    assert str(caught.value) == "the envelope does not open under these terms"


@each_suite
def test_what_was_sealed_is_opened(kem_id: KemId) -> None:
    key = sealing_key(kem_id)
    envelope = build_envelope(kem_id)
    assert len(envelope) == ENVELOPE_SIZES[kem_id] <= limits.ENVELOPE_SIZE_MAX
    opened = open_envelope(key, key.public_suite_key().key_id, build_terms(), envelope)
    assert (opened.user_id, opened.password_key) == ("asha", b"k" * 32)
    assert envelope_hash(envelope) == hashlib.sha256(envelope).digest()


@pytest.mark.pg("PG-ENV-4")
@each_suite
@pytest.mark.parametrize("user_id", ["a", "u" * 64, "ü" * 32, "asha@example.com", "आशा"])
def test_every_user_id_makes_an_envelope_of_the_same_size(kem_id: KemId, user_id: str) -> None:
    key = sealing_key(kem_id)
    envelope = build_envelope(kem_id, user_id=user_id)
    assert len(envelope) == ENVELOPE_SIZES[kem_id]
    opened = open_envelope(key, key.public_suite_key().key_id, build_terms(), envelope)
    assert opened.user_id == unicodedata.normalize("NFC", user_id)


def test_a_user_id_is_sealed_in_normal_form_c() -> None:
    key = sealing_key(KemId.X25519)
    envelope = build_envelope(user_id="u\u0308ser")
    assert open_envelope(key, key.public_suite_key().key_id, build_terms(), envelope).user_id == "\u00fcser"


@pytest.mark.parametrize("user_id", ["", "u" * 65, "ü" * 33, "a\0b"])
def test_no_other_user_id_is_sealed(user_id: str) -> None:
    with pytest.raises(LocalProtocolError):
        build_envelope(user_id=user_id)


@given(records(Terms), st.sampled_from(KemId))
def test_any_terms_bind(terms: Terms, kem_id: KemId) -> None:
    key = sealing_key(kem_id)
    key_id = key.public_suite_key().key_id
    envelope = build_envelope(kem_id, terms)
    assert open_envelope(key, key_id, terms, envelope).user_id == "asha"
    refused(key, key_id, replace(terms, amount_minor=terms.amount_minor % limits.AMOUNT_MINOR_MAX + 1), envelope)


def test_two_envelopes_of_the_same_credentials_differ() -> None:
    assert build_envelope() != build_envelope()


# -- every bit -------------------------------------------------------------------------------------------


@each_suite
def test_every_flipped_bit_of_an_envelope_is_refused(kem_id: KemId) -> None:
    # Every bit of both suites: 304 bytes, and 1,392 in about two seconds.
    key = sealing_key(kem_id)
    key_id = key.public_suite_key().key_id
    envelope = bytearray(build_envelope(kem_id))
    for bit in range(8 * len(envelope)):
        envelope[bit // 8] ^= 1 << bit % 8
        refused(key, key_id, build_terms(), bytes(envelope))
        envelope[bit // 8] ^= 1 << bit % 8
    open_envelope(key, key_id, build_terms(), bytes(envelope))


@pytest.mark.pg("PG-ENV-6", "PG-TRM-1")
@each_suite
def test_every_flipped_bit_of_the_terms_is_refused(kem_id: KemId) -> None:
    key = sealing_key(kem_id)
    key_id = key.public_suite_key().key_id
    envelope = build_envelope(kem_id)
    encoded = bytearray(encode_record(build_terms()))
    changed_fields: set[str] = set()
    for bit in range(8 * len(encoded)):
        encoded[bit // 8] ^= 1 << bit % 8
        try:
            terms = decode_record(Terms, bytes(encoded))
        except RemoteProtocolError:
            pass  # No peer can say such terms at all.
        else:
            refused(key, key_id, terms, envelope)
            changed_fields |= {n for n in TERMS_FIELDS if getattr(terms, n) != getattr(build_terms(), n)}
        encoded[bit // 8] ^= 1 << bit % 8
    assert changed_fields == set(TERMS_FIELDS)


@pytest.mark.pg("PG-ENV-6")
@each_suite
def test_every_flipped_bit_of_the_key_id_is_refused(kem_id: KemId) -> None:
    key = sealing_key(kem_id)
    key_id = bytearray(key.public_suite_key().key_id)
    envelope = build_envelope(kem_id)
    for bit in range(8 * len(key_id)):
        key_id[bit // 8] ^= 1 << bit % 8
        refused(key, bytes(key_id), build_terms(), envelope)
        key_id[bit // 8] ^= 1 << bit % 8


@each_suite
def test_an_envelope_of_another_size_is_refused(kem_id: KemId) -> None:
    key = sealing_key(kem_id)
    key_id = key.public_suite_key().key_id
    envelope = build_envelope(kem_id)
    for size in range(len(envelope)):
        refused(key, key_id, build_terms(), envelope[:size])
    refused(key, key_id, build_terms(), envelope + b"\0")
    refused(key, key_id, build_terms(), b"")


@each_suite
@given(st.binary(max_size=1_500))
def test_any_bytes_are_refused(kem_id: KemId, envelope: bytes) -> None:
    refused(sealing_key(kem_id), bytes(8), build_terms(), envelope)


@each_suite
def test_another_key_does_not_open(kem_id: KemId) -> None:
    other = sealing_key(kem_id, "other")
    usual_id = sealing_key(kem_id).public_suite_key().key_id
    refused(other, usual_id, build_terms(), build_envelope(kem_id))
    refused(other, other.public_suite_key().key_id, build_terms(), build_envelope(kem_id))


def test_a_key_of_the_other_suite_does_not_open() -> None:
    for kem_id, other_id in (tuple(KemId), tuple(KemId)[::-1]):
        key = sealing_key(other_id)
        refused(key, sealing_key(kem_id).public_suite_key().key_id, build_terms(), build_envelope(kem_id))


def test_low_order_points_do_not_open() -> None:
    # An all-zero shared secret would be known to everybody.
    key = sealing_key(KemId.X25519)
    for point in (bytes(32), b"\1" + bytes(31)):
        refused(key, key.public_suite_key().key_id, build_terms(), point + build_envelope()[32:])


def seal_plaintext(plaintext: bytes) -> bytes:
    """An envelope for the usual X25519 key under the usual terms, holding anything."""
    suite_key = sealing_key(KemId.X25519).public_suite_key()
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
    public_key = X25519PublicKey.from_public_bytes(suite_key.public_key)
    return suite.encrypt(plaintext, public_key, info=envelope_info(suite_key.key_id, build_terms()))


@pytest.mark.pg("PG-ENV-5")
@pytest.mark.parametrize(
    "plaintext",
    [
        b"\2" + PLAINTEXT[1:],  # another format
        b"\1\0" + PLAINTEXT[2:],  # nobody
        b"\1\x41" + PLAINTEXT[2:],  # a size beyond the field
        b"\1\3" + PLAINTEXT[2:],  # a letter where zeros should be
        PLAINTEXT[:65] + b"\1" + PLAINTEXT[66:],
        PLAINTEXT[:114] + b"\1" + PLAINTEXT[115:],  # padding
        PLAINTEXT[:-1] + b"\1",
        PLAINTEXT[:-1],
        PLAINTEXT + b"\0",
        b"",
    ],
)
def test_a_plaintext_that_is_not_as_it_should_be_is_refused_like_anything_else(plaintext: bytes) -> None:
    key = sealing_key(KemId.X25519)
    key_id = key.public_suite_key().key_id
    assert open_envelope(key, key_id, build_terms(), seal_plaintext(PLAINTEXT)).user_id == "asha"
    refused(key, key_id, build_terms(), seal_plaintext(plaintext))


# -- keys ------------------------------------------------------------------------------------------------


@each_suite
def test_private_keys_come_back(kem_id: KemId) -> None:
    key = SealingKey.generate(kem_id)
    again = SealingKey.from_private_bytes(kem_id, key.private_bytes())
    assert again.public_suite_key() == key.public_suite_key()
    suite_key = key.public_suite_key()
    envelope = seal_credentials(suite_key, build_terms(), "asha", b"k" * 32, b"n" * 16)
    assert open_envelope(again, suite_key.key_id, build_terms(), envelope).user_id == "asha"
    assert suite_key.key_id == hashlib.sha256(suite_key.public_key).digest()[:8]
    assert len(suite_key.public_key) == {KemId.X25519: 32, KemId.MLKEM768_X25519: 1_216}[kem_id]
    assert encode_record(suite_key)


@each_suite
def test_private_keys_of_another_length_are_refused(kem_id: KemId) -> None:
    size = len(sealing_key(kem_id).private_bytes())
    for wrong_size in (0, size - 1, size + 1):
        with pytest.raises(ValueError, match=f"has {size} bytes, not {wrong_size}"):
            SealingKey.from_private_bytes(kem_id, bytes(wrong_size))


@each_suite
@pytest.mark.parametrize("public_key", [bytes(32), b"\xff" * 31, b"\xff" * 33, b"\xff" * 1_216, b"\xff" * 1_184])
def test_a_public_key_that_is_none_seals_nothing(kem_id: KemId, public_key: bytes) -> None:
    suite_key = replace(sealing_key(kem_id).public_suite_key(), public_key=public_key)
    with pytest.raises(BadKeyList, match=f"the bank's {kem_id.name} key is not a public key of that suite"):
        seal_credentials(suite_key, build_terms(), "asha", b"k" * 32, b"n" * 16)


def test_keys_have_different_ids() -> None:
    keys = [sealing_key(kem_id, name).public_suite_key().key_id for kem_id in KemId for name in ("usual", "other")]
    keys += [key_id_of(key.public_key().public_bytes_raw()) for key in (ROOT_KEY, RECEIPT_KEY)]
    assert len(set(keys)) == len(keys)


# -- the choice of the suite -----------------------------------------------------------------------------

X25519_KEY = sealing_key(KemId.X25519).public_suite_key()
OTHER_X25519_KEY = sealing_key(KemId.X25519, "other").public_suite_key()
HYBRID_KEY = sealing_key(KemId.MLKEM768_X25519).public_suite_key()
UNKNOWN_COMBINATION = replace(HYBRID_KEY, aead_id=AeadId.AES_128_GCM)


@pytest.mark.pg("PG-ENV-2", "PG-ENV-3")
@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        ((X25519_KEY,), X25519_KEY),
        ((HYBRID_KEY,), HYBRID_KEY),
        ((X25519_KEY, HYBRID_KEY), HYBRID_KEY),
        ((HYBRID_KEY, X25519_KEY), HYBRID_KEY),
        ((X25519_KEY, OTHER_X25519_KEY), X25519_KEY),  # T12: the bank lists the newer one first
        ((OTHER_X25519_KEY, X25519_KEY), OTHER_X25519_KEY),
        ((UNKNOWN_COMBINATION, X25519_KEY), X25519_KEY),
        ((replace(HYBRID_KEY, public_key=HYBRID_KEY.public_key[:-1]), X25519_KEY), X25519_KEY),
        ((replace(X25519_KEY, public_key=HYBRID_KEY.public_key), OTHER_X25519_KEY), OTHER_X25519_KEY),
    ],
)
def test_the_best_suite_that_both_know_is_chosen(listed: tuple[SuiteKey, ...], chosen: SuiteKey) -> None:
    # T11: the order of the list is no way to force the weaker suite, and the list itself is under the root key.
    assert choose_suite_key(build_key_list(suite_keys=listed)) == chosen


@pytest.mark.pg("PG-ENV-3")
def test_without_a_known_suite_nothing_is_chosen() -> None:
    unknown = (UNKNOWN_COMBINATION, replace(X25519_KEY, aead_id=AeadId.AES_256_GCM))
    with pytest.raises(BadKeyList, match="no suite that this program implements"):
        choose_suite_key(build_key_list(suite_keys=unknown))


# -- HPKE by another hand --------------------------------------------------------------------------------
#
# RFC 9180, sections 4 and 5, base mode, written down here from HMAC, X25519 and AES-GCM alone. The RFC's own
# vector holds it; then it has to open what `seal_credentials` made. (The vector uses `aad`, which the public API
# of `cryptography` does not offer, so the library can't be held against the vector directly.)


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, "sha256")


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    block = hmac.digest(prk, size.to_bytes(2) + b"HPKE-v1" + suite_id + label + info + b"\1", "sha256")
    assert size <= len(block)
    return block[:size]


def dhkem_x25519_shared_secret(private_key: bytes, enc: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private_key)
    suite_id = b"KEM" + KemId.X25519.to_bytes(2)
    dh = key.exchange(X25519PublicKey.from_public_bytes(enc))
    eae_prk = labeled_extract(suite_id, b"", b"eae_prk", dh)
    kem_context = enc + key.public_key().public_bytes_raw()
    return labeled_expand(suite_id, eae_prk, b"shared_secret", kem_context, 32)


def hpke_open(
    kem_id: int, aead_id: int, key_size: int, shared_secret: bytes, info: bytes, aad: bytes, ciphertext: bytes
) -> bytes:
    suite_id = b"HPKE" + kem_id.to_bytes(2) + KdfId.HKDF_SHA256.to_bytes(2) + aead_id.to_bytes(2)
    psk_id_hash = labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(suite_id, b"", b"info_hash", info)
    context = b"\0" + psk_id_hash + info_hash
    secret = labeled_extract(suite_id, shared_secret, b"secret", b"")
    key = labeled_expand(suite_id, secret, b"key", context, key_size)
    base_nonce = labeled_expand(suite_id, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(base_nonce, ciphertext, aad)  # the first message's nonce is the base nonce


def test_the_other_hand_opens_the_vector_of_rfc_9180() -> None:
    # RFC 9180 appendix A.1.1.1, sequence number 0.
    shared_secret = dhkem_x25519_shared_secret(
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"),
        bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"),
    )
    assert shared_secret.hex() == "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"
    plaintext = hpke_open(
        0x0020,
        0x0001,
        16,
        shared_secret,
        info=bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"),
        aad=b"Count-0",
        ciphertext=bytes.fromhex(
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
        ),
    )
    assert plaintext == b"Beauty is truth, truth beauty"


@pytest.mark.pg("PG-ENV-1", "PG-ENV-2", "PG-ENV-4")
def test_the_other_hand_opens_our_x25519_envelopes() -> None:
    key = sealing_key(KemId.X25519)
    envelope = build_envelope()
    info = envelope_info(key.public_suite_key().key_id, build_terms())
    shared_secret = dhkem_x25519_shared_secret(key.private_bytes(), envelope[:32])
    assert hpke_open(0x0020, 0x0001, 16, shared_secret, info, b"", envelope[32:]) == PLAINTEXT
    assert len(PLAINTEXT) == limits.ENVELOPE_PLAINTEXT_SIZE == 256


@pytest.mark.pg("PG-ENV-1", "PG-ENV-2", "PG-ENV-4")
def test_the_other_hand_opens_our_hybrid_envelopes() -> None:
    # The KEM 0x647a is X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 and X25519 under one SHA3-256.
    key = sealing_key(KemId.MLKEM768_X25519)
    envelope = build_envelope(KemId.MLKEM768_X25519)
    mlkem_ciphertext, x25519_ciphertext = envelope[:1_088], envelope[1_088:1_120]
    mlkem_secret = MLKEM768PrivateKey.from_seed_bytes(key.private_bytes()[:64]).decapsulate(mlkem_ciphertext)
    x25519_key = X25519PrivateKey.from_private_bytes(key.private_bytes()[64:])
    x25519_secret = x25519_key.exchange(X25519PublicKey.from_public_bytes(x25519_ciphertext))
    x25519_public = x25519_key.public_key().public_bytes_raw()
    shared_secret = hashlib.sha3_256(
        mlkem_secret + x25519_secret + x25519_ciphertext + x25519_public + rb"\.//^\ "[:6]
    ).digest()
    info = envelope_info(key.public_suite_key().key_id, build_terms())
    assert hpke_open(0x647A, 0x0002, 32, shared_secret, info, b"", envelope[1_120:]) == PLAINTEXT


@pytest.mark.pg("PG-CRY-1", "PG-ENV-1", "PG-TRM-1")
def test_info_is_label_key_id_and_terms() -> None:
    assert envelope_info(b"12345678", build_terms()) == b"paygate/v1/envelope\x0012345678" + encode_record(
        build_terms()
    )


def test_the_examples_envelope_opens_under_nothing() -> None:
    key = sealing_key(KemId.X25519)
    refused(key, key.public_suite_key().key_id, build_terms(), FIXED_ENVELOPE)
    assert len(PEPPER) == 32
