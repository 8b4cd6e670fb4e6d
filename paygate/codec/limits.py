"""Every limit of the wire format, with its reason. Sizes are bytes, counts are things, times milliseconds."""

from typing import Final

PROTOCOL_VERSION: Final = 1
"""The one version spoken today; Hello negotiates it (spec 5.1)."""

HEADER_SIZE: Final = 20
"""Two words of flags and sizes, a correlation ID that never runs out, a checksum."""
MAC_SIZE: Final = 16
"""HMAC-SHA-256 cut to 128 bits: as long as the key's security needs, short enough for every frame."""
BODY_SIZE_MAX: Final = 0xFFFF
"""`body_size` has 16 bits, so no length on the wire can ask for more than 64 KiB (T24)."""
FRAME_SIZE_MAX: Final = HEADER_SIZE + BODY_SIZE_MAX + MAC_SIZE
"""What HelloAck tells; the kinds' own maxima are far below it."""

IDENTIFIER_SIZE_MAX: Final = 32
"""Party, merchant and transaction IDs: what people still read aloud, and what fits a column of a text file."""
PASSCODE_SIZE_MAX: Final = 32
"""A passcode is typed; merchants that make long ones make random ones."""
MERCHANT_NAME_SIZE_MAX: Final = 64
"""What a customer is shown in one line: 16 characters of four bytes, or more."""
USER_ID_SIZE_MAX: Final = 64
"""What the envelope's fixed plaintext has room for; an e-mail address mostly fits."""
PASSWORD_SIZE_MAX: Final = 255
"""A pass-phrase of many words fits; Argon2id's input stays bounded."""
ERROR_TEXT_SIZE_MAX: Final = 120
"""One line of a log."""
UTR_SIZE: Final = 22
"""The shape of an RTGS UTR: bank code 4, `P`, channel 1, date 8, sequence 8."""
CURRENCY_SIZE: Final = 3
"""ISO 4217."""

PAYMENT_ID_SIZE: Final = 16
"""A UUID: no two clients ever make the same."""
SESSION_ID_SIZE: Final = 16
"""128 random bits: nobody guesses one."""
KEY_ID_SIZE: Final = 8
"""A hint that finds a key among a few, never a proof: keys are signed."""
HASH_SIZE: Final = 32
"""SHA-256."""
ED25519_PUBLIC_KEY_SIZE: Final = 32
"""RFC 8032."""
SIGNATURE_SIZE: Final = 64
"""Ed25519 (RFC 8032)."""
ECHO_DATA_SIZE: Final = 8
"""Room for a time stamp."""

AMOUNT_MINOR_MAX: Final = 999_999_999_999_999
"""15 digits: 9,000 payments of the largest amount still sum below 2**63, what a store's integer holds (T34)."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: later ones have no four-digit year for the text records."""

UINT64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF
"""What 64 bits hold: correlation IDs and serials have no lower maximum."""

VERSION_COUNT_MAX: Final = 8
"""More versions than any end will speak at once."""
ENVELOPE_SIZE_MAX: Final = 2_048
"""256 bytes of plaintext and the larger suite's overhead of 1,136, with room for a later suite."""
PUBLIC_KEY_SIZE_MAX: Final = 2_048
"""1,216 bytes are the hybrid's, with room for a later suite."""
SUITE_KEY_COUNT_MAX: Final = 8
"""Two suites with two keys each are what rotation needs (T12); eight leave room."""
RECEIPT_KEY_COUNT_MAX: Final = 8
"""Rotation needs two; old receipts may need more."""
KEY_LIST_SIZE_MAX: Final = 24_576
"""Eight of the largest suite keys and eight receipt keys take 16,900; the rest is room for larger ones."""
SIGNED_KEY_LIST_SIZE_MAX: Final = 2 + KEY_LIST_SIZE_MAX + SIGNATURE_SIZE
"""The largest key list, its length and its signature."""
RECEIPT_PATH_COUNT_MAX: Final = 16
"""A Merkle path of 16 hashes serves 65,536 receipts signed at once; a server's tick holds far fewer."""
RECEIPT_SIZE_MAX: Final = 1_024
"""A statement of the longest identifiers with a path of 16 hashes takes 842; the rest is room."""

ENVELOPE_PLAINTEXT_SIZE: Final = 256
"""Always this long, so that lengths tell nothing (design: Envelope)."""
PASSWORD_KEY_SIZE: Final = 32
"""256 bits of Argon2id output."""
ENVELOPE_NONCE_SIZE: Final = 16
"""Makes two envelopes of one customer differ inside too."""
VERIFIER_SIZE: Final = 32
"""HMAC-SHA-256, whole."""

ARGON2_MEMORY_KIB_MAX: Final = 262_144
"""A key list, even a signed one, can't ask a client for more than 256 MiB."""
ARGON2_ITERATION_COUNT_MAX: Final = 16
"""Nor for more than some seconds of work."""
ARGON2_LANE_COUNT_MAX: Final = 8
"""Nor for more threads than a customer's machine has."""

SESSION_MS: Final = 30_000
"""R10: the client's session lasts 30 seconds from the acknowledgement."""
AUTHORISED_AT_SKEW_MS_MAX: Final = 300_000
"""An authorisation more than five minutes from the bank's clock is refused (T6)."""
