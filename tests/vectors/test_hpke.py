"""The generator's HPKE against RFC 9180's own vector and against the library that paygate uses."""

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from specgen.vector_fixtures import HYBRID_KEY, X25519_KEY, build_terms, fixed_bytes
from specgen.vector_hpke import open_hybrid, seal_x25519

from paygate.codec.record_codec import encode_record
from paygate.codec.seal import Credentials, envelope_info, open_envelope, seal_credentials
from paygate.codec.sealed import CredentialsPlaintext

INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
# RFC 9180 appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base setup.
RFC_PUBLIC_KEY = bytes.fromhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
RFC_EPHEMERAL_KEY = bytes.fromhex("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
RFC_STEPS = {
    "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
    "shared_secret": "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
    "key_schedule_context": "00725611c9d98c07c03f60095cd32d400d8347d45ed67097bbad50fc56da742d07"
    "cb6cffde367bb0565ba28bb02c90744a20f5ef37f30523526106f637abb05449",
    "secret": "12fff91991e93b48de37e7daddb52981084bd8aa64289c3788471d9a9712f397",
    "key": "4531685d41d65f03dc48f6b8302c05b0",
    "base_nonce": "56d890e5accaaf011cff4b7d",
}
RFC_PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
RFC_AAD = bytes.fromhex("436f756e742d30")
RFC_CIPHERTEXT = "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"


def test_the_sender_agrees_with_the_rfc() -> None:
    steps = seal_x25519(RFC_PUBLIC_KEY, RFC_EPHEMERAL_KEY, INFO, RFC_PLAINTEXT)
    assert {name: steps[name].hex() for name in RFC_STEPS} == RFC_STEPS
    # The RFC's first message has associated data, which paygate has not.
    assert AESGCM(steps["key"]).encrypt(steps["base_nonce"], RFC_PLAINTEXT, RFC_AAD).hex() == RFC_CIPHERTEXT


def test_the_library_opens_what_the_sender_seals() -> None:
    terms = build_terms()
    suite_key = X25519_KEY.public_suite_key()
    plaintext = CredentialsPlaintext(1, 4, b"asha".ljust(64, b"\0"), b"k" * 32, b"n" * 16, bytes(142))
    info = envelope_info(suite_key.key_id, terms)
    steps = seal_x25519(suite_key.public_key, fixed_bytes("ephemeral"), info, encode_record(plaintext))
    assert open_envelope(X25519_KEY, suite_key.key_id, terms, steps["envelope"]) == Credentials("asha", b"k" * 32)


def test_what_the_library_seals_for_the_hybrid_suite_opens_step_by_step() -> None:
    terms = build_terms()
    suite_key = HYBRID_KEY.public_suite_key()
    envelope = seal_credentials(suite_key, terms, "asha", b"k" * 32, b"n" * 16)
    steps = open_hybrid(HYBRID_KEY.private_bytes(), envelope_info(suite_key.key_id, terms), envelope)
    expected = CredentialsPlaintext(1, 4, b"asha".ljust(64, b"\0"), b"k" * 32, b"n" * 16, bytes(142))
    assert steps["plaintext"] == encode_record(expected)
