"""Every limit of the wire format, with its reason. Sizes are bytes, counts are things, times milliseconds."""

from typing import Final

PROTOCOL_VERSION: Final = 1
"""The one version spoken today; Hello negotiates it (spec 5.1)."""

HEADER_SIZE: Final = 20
MAC_SIZE: Final = 16
"""HMAC-SHA-256 cut to 128 bits: as long as the key's security needs, short enough for every frame."""
BODY_SIZE_MAX: Final = 0xFFFF
"""`body_size` has 16 bits, so no length on the wire can ask for more than 64 KiB (T24)."""
FRAME_SIZE_MAX: Final = HEADER_SIZE + BODY_SIZE_MAX + MAC_SIZE

IDENTIFIER_SIZE_MAX: Final = 32
"""Party, merchant and transaction IDs: what people still read aloud, and what fits a column of a text file."""
PASSCODE_SIZE_MAX: Final = 32
MERCHANT_NAME_SIZE_MAX: Final = 64
USER_ID_SIZE_MAX: Final = 64
PASSWORD_SIZE_MAX: Final = 255
"""A pass-phrase of many words fits; Argon2id's input stays bounded."""
ERROR_TEXT_SIZE_MAX: Final = 120
UTR_SIZE: Final = 22
"""The shape of an RTGS UTR: bank code 4, `P`, channel 1, date 8, sequence 8."""
CURRENCY_SIZE: Final = 3

PAYMENT_ID_SIZE: Final = 16
SESSION_ID_SIZE: Final = 16
KEY_ID_SIZE: Final = 8
HASH_SIZE: Final = 32
ED25519_PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
ECHO_DATA_SIZE: Final = 8

AMOUNT_MINOR_MAX: Final = 999_999_999_999_999
"""15 digits: 9,000 payments of the largest amount still sum below 2**63, what a store's integer holds (T34)."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: later ones have no four-digit year for the text records."""
UINT64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF

VERSION_COUNT_MAX: Final = 8
ENVELOPE_SIZE_MAX: Final = 2_048
"""256 bytes of plaintext and the larger suite's overhead of 1,136, with room for a later suite."""
PUBLIC_KEY_SIZE_MAX: Final = 2_048
SUITE_KEY_COUNT_MAX: Final = 8
"""Two suites with two keys each are what rotation needs (T12); eight leave room."""
RECEIPT_KEY_COUNT_MAX: Final = 8
KEY_LIST_SIZE_MAX: Final = 24_576
RECEIPT_PATH_COUNT_MAX: Final = 16
"""A Merkle path of 16 hashes serves 65,536 receipts signed at once; a server's tick holds far fewer."""
RECEIPT_SIZE_MAX: Final = 1_024

ENVELOPE_PLAINTEXT_SIZE: Final = 256
"""Always this long, so that lengths tell nothing (design: Envelope)."""
PASSWORD_KEY_SIZE: Final = 32
ENVELOPE_NONCE_SIZE: Final = 16
VERIFIER_SIZE: Final = 32

ARGON2_MEMORY_KIB_MAX: Final = 262_144
"""A key list, even a signed one, can't ask a client for more than 256 MiB."""
ARGON2_ITERATION_COUNT_MAX: Final = 16
ARGON2_LANE_COUNT_MAX: Final = 8

SESSION_MS: Final = 30_000
"""R10: the client's session lasts 30 seconds from the acknowledgement."""
AUTHORISED_AT_SKEW_MS_MAX: Final = 300_000
"""An authorisation more than five minutes from the bank's clock is refused (T6)."""
