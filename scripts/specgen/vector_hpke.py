"""HPKE base mode (RFC 9180) step by step, so that the vectors can show every value between key and ciphertext.

The library that paygate uses neither takes a fixed ephemeral key nor shows what lies between. What is made here is
opened with it (tests), so the two can't differ.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paygate.codec.codes import AeadId, KdfId, KemId

Steps = dict[str, bytes]
"""Values by the names of RFC 9180, in the order in which they are computed."""

_VERSION: Final = b"HPKE-v1"
_BASE_MODE: Final = b"\0"
_KEY_SIZES: Final = {AeadId.AES_128_GCM: 16, AeadId.AES_256_GCM: 32}
_NONCE_SIZE: Final = 12
_HASH_SIZE: Final = 32
_MLKEM_SEED_SIZE: Final = 64
_MLKEM_CIPHERTEXT_SIZE: Final = 1_088
_HYBRID_ENC_SIZE: Final = 1_120
_XWING_LABEL: Final = b"\\.//^\\"


def seal_x25519(public_key: bytes, ephemeral_key: bytes, info: bytes, plaintext: bytes) -> Steps:
    """Seal with X25519, HKDF-SHA256 and AES-128-GCM, with an ephemeral key that is given; `envelope` comes last."""
    ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_key)
    enc = ephemeral.public_key().public_bytes_raw()
    steps: Steps = {"ephemeral_private_key": ephemeral_key, "enc": enc}
    steps["dh"] = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    steps["kem_context"] = enc + public_key
    suite_id = b"KEM" + KemId.X25519.to_bytes(2)
    steps["eae_prk"] = _labeled_extract(suite_id, b"", b"eae_prk", steps["dh"])
    steps["shared_secret"] = _labeled_expand(
        suite_id, steps["eae_prk"], b"shared_secret", steps["kem_context"], _HASH_SIZE
    )
    steps |= key_schedule(KemId.X25519, AeadId.AES_128_GCM, steps["shared_secret"], info)
    steps["ciphertext"] = AESGCM(steps["key"]).encrypt(steps["base_nonce"], plaintext, b"")
    steps["envelope"] = enc + steps["ciphertext"]
    return steps


def open_hybrid(private_key: bytes, info: bytes, envelope: bytes) -> Steps:
    """What opening an envelope of MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM computes; `plaintext` comes last.

    Raises ValueError or InvalidTag if it does not open.
    """
    mlkem = MLKEM768PrivateKey.from_seed_bytes(private_key[:_MLKEM_SEED_SIZE])
    x25519 = X25519PrivateKey.from_private_bytes(private_key[_MLKEM_SEED_SIZE:])
    steps: Steps = {"enc": envelope[:_HYBRID_ENC_SIZE], "ciphertext": envelope[_HYBRID_ENC_SIZE:]}
    steps["ml_kem_ciphertext"] = envelope[:_MLKEM_CIPHERTEXT_SIZE]
    steps["x25519_ephemeral_public_key"] = envelope[_MLKEM_CIPHERTEXT_SIZE:_HYBRID_ENC_SIZE]
    steps["ml_kem_shared_secret"] = mlkem.decapsulate(steps["ml_kem_ciphertext"])
    peer = X25519PublicKey.from_public_bytes(steps["x25519_ephemeral_public_key"])
    steps["x25519_shared_secret"] = x25519.exchange(peer)
    # The combiner of X-Wing: both secrets, then X25519's ciphertext and public key, then its label.
    steps["combiner_input"] = (
        steps["ml_kem_shared_secret"]
        + steps["x25519_shared_secret"]
        + steps["x25519_ephemeral_public_key"]
        + x25519.public_key().public_bytes_raw()
        + _XWING_LABEL
    )
    steps["shared_secret"] = hashlib.sha3_256(steps["combiner_input"]).digest()
    steps |= key_schedule(KemId.MLKEM768_X25519, AeadId.AES_256_GCM, steps["shared_secret"], info)
    steps["plaintext"] = AESGCM(steps["key"]).decrypt(steps["base_nonce"], steps["ciphertext"], b"")
    return steps


def key_schedule(kem_id: KemId, aead_id: AeadId, shared_secret: bytes, info: bytes) -> Steps:
    """RFC 9180 section 5.1 in base mode: from the shared secret to key and base nonce."""
    suite_id = b"HPKE" + kem_id.to_bytes(2) + KdfId.HKDF_SHA256.to_bytes(2) + aead_id.to_bytes(2)
    steps: Steps = {"suite_id": suite_id}
    steps["psk_id_hash"] = _labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    steps["info_hash"] = _labeled_extract(suite_id, b"", b"info_hash", info)
    steps["key_schedule_context"] = context = _BASE_MODE + steps["psk_id_hash"] + steps["info_hash"]
    steps["secret"] = _labeled_extract(suite_id, shared_secret, b"secret", b"")
    steps["key"] = _labeled_expand(suite_id, steps["secret"], b"key", context, _KEY_SIZES[aead_id])
    steps["base_nonce"] = _labeled_expand(suite_id, steps["secret"], b"base_nonce", context, _NONCE_SIZE)
    return steps


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, _VERSION + suite_id + label + ikm, hashlib.sha256)


def _labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    # One block of HKDF-Expand (RFC 5869) is enough: nothing here is longer than a hash.
    labeled = size.to_bytes(2) + _VERSION + suite_id + label + info
    return hmac.digest(prk, labeled + b"\1", hashlib.sha256)[:size]
