"""Opens envelopes for a bank's own engineers (`--decode-key`), and says what of their insides may be shown.

A key file is what `paygate-bank` keeps in `decoder/KEYID.SUITE.key` of its state directory: the private key in
hexadecimal. Its size tells the suite, and the key ID follows from the key. An envelope opens under the terms that it
was sealed for and no others (spec 8.2), so what does not open with the key that it names is a finding.
"""

import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import KemId, Kind
from paygate.codec.fields import Sensitivity, fields_of, utf8_text
from paygate.codec.messages import MESSAGES, EncryptedCredentials, TokenAck
from paygate.codec.seal import NotOpened, SealingKey, open_plaintext
from paygate.codec.sealed import CredentialsPlaintext, Terms
from paygate.dump.findings import OwnFinding
from paygate.dump.model import Finding, SeenFrame
from paygate.escape import escape_line

KEY_FILE_SIZE_MAX: Final = 1_024
"""Bytes: the hybrid's key takes 193 in hexadecimal, so a wrong file is refused before it is read whole."""
OTHER_KEY_COUNT_MAX: Final = 8
"""Key IDs that DECODE_KEY_UNUSED lists: as many as a key list can hold."""

ENVELOPE_KINDS: Final = frozenset(
    kind for kind, cls in MESSAGES.items() if {"key_id", "envelope"} <= {f.name for f in fields_of(cls)}
)
"""Kinds that carry an envelope and say which key it was sealed for."""

_SUITE_OF_SIZE: Final = {32: KemId.X25519, 96: KemId.MLKEM768_X25519}
_KEY_ID_IN_NAME: Final = re.compile(r"([0-9a-f]{16})\..*key")
_OTHERS_MAY_READ: Final = 0o077
_LEFT_OUT: Final = frozenset({"user_id_size", "padding"})
"""Of an opened envelope: the size stands in the text already, and padding says nothing."""


def load_decode_key(path: Path) -> SealingKey:
    """The private sealing key in a file of a bank's `decoder` directory.

    Raises PaygateExit: the file can't be read, others may read it, or it is no such key.
    """
    try:
        with path.open("rb") as file:
            status = path.stat()
            data = file.read(KEY_FILE_SIZE_MAX + 1)
    except OSError as error:
        raise _unusable(path, f"could not be read: {error.strerror}") from None
    if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS_MAY_READ:
        raise _unusable(path, f"others may read it (mode {stat.S_IMODE(status.st_mode):04o}); chmod 600 it first")
    try:
        secret = bytes.fromhex(data.decode("ascii"))
        key = SealingKey.from_private_bytes(_SUITE_OF_SIZE[len(secret)], secret)
    except (ValueError, KeyError):  # a UnicodeDecodeError is a ValueError, and holds the bytes
        expected = " or ".join(f"{2 * size} for {kem_id.name}" for size, kem_id in _SUITE_OF_SIZE.items())
        raise _unusable(
            path, f"expected a private sealing key, hexadecimal digits ({expected}), as in decoder/KEYID.SUITE.key"
        ) from None
    named = _KEY_ID_IN_NAME.fullmatch(path.name)
    key_id = key.public_suite_key().key_id.hex()
    if named is not None and named[1] != key_id:
        raise _unusable(path, f"it holds the key {key_id}, not the one that its name says")
    return key


def _unusable(path: Path, why: str) -> PaygateExit:
    return PaygateExit(f"--decode-key {path}: {why}", ExitCode.BAD_STATE)


class EnvelopeOpener:
    """Opens envelopes that were sealed for the keys it has; about 0.1 ms each, and nothing for others."""

    def __init__(self, keys: Iterable[SealingKey]) -> None:
        self._keys = {key.public_suite_key().key_id: key for key in keys}
        self._was_used = False
        self._other_key_ids: dict[bytes, None] = {}  # in the order in which they came

    def open(self, frame: SeenFrame, terms: Terms | None, other_terms: Terms | None = None) -> Finding | None:
        """Set `frame.opened`, if the key is here and the terms are known; the finding if it does not open.

        terms: those that it should open under. other_terms: what the other link says of the same payment, if known;
        a finding names the fields in which they differ. The frame's kind must be one of ENVELOPE_KINDS.
        """
        message = frame.message
        key_id: bytes = getattr(message, "key_id", b"")
        key = self._keys.get(key_id)
        if key is None:
            if len(self._other_key_ids) < OTHER_KEY_COUNT_MAX:
                self._other_key_ids[key_id] = None
            return None
        self._was_used = True
        if terms is None:
            return None
        try:
            frame.opened = open_plaintext(key, key_id, terms, getattr(message, "envelope", b""))
        except NotOpened:
            return _not_opened(frame, key_id, terms, other_terms)
        return None

    def finish(self) -> Finding | None:
        """The finding that none of the keys was of use, though there were envelopes."""
        if self._was_used or not self._other_key_ids:
            return None
        return Finding(
            name=OwnFinding.DECODE_KEY_UNUSED.name,
            expected=f"an envelope for {_listed(self._keys)}, the keys given with --decode-key",
            got=f"envelopes for {_listed(self._other_key_ids)}",
            section="8.2",
            number=0,
            time_ns=None,
        )


def _listed(key_ids: Iterable[bytes]) -> str:
    return ", ".join(key_id.hex() for key_id in key_ids)


def _not_opened(frame: SeenFrame, key_id: bytes, terms: Terms, other_terms: Terms | None) -> Finding:
    differing = [f.name for f in fields_of(Terms) if getattr(terms, f.name) != getattr(other_terms, f.name, None)]
    if other_terms is not None and differing:
        cause = f"the two links' terms differ in {', '.join(differing)}"
    else:
        cause = "it was sealed under other terms or for another key, or its bytes were changed on the way"
    return Finding(
        name=OwnFinding.ENVELOPE_NOT_OPENED.name,
        expected=f"an envelope that key {key_id.hex()} opens under this payment's terms",
        got=f"one that does not open: {cause}",
        section="8.2",
        number=frame.number,
        time_ns=frame.time_ns,
        flow=frame.flow,
        side=frame.side,
        offset=frame.offset,
        path="envelope",
        frame_offset=frame.offset,
    )


def terms_of_session(ack: TokenAck, transaction_id: str, credentials: EncryptedCredentials) -> Terms | None:
    """The terms that a client seals its credentials under (spec 8.1); None after an ack that opens no session."""
    if not any(ack.session_id):
        return None
    return Terms(
        bank_id=ack.bank_id,
        gateway_id=ack.gateway_id,
        merchant_id=ack.merchant_id,
        transaction_id=transaction_id,
        payment_id=credentials.payment_id,
        session_id=credentials.session_id,
        amount_minor=ack.amount_minor,
        currency=ack.currency,
        authorised_at_ms=credentials.authorised_at_ms,
    )


def opened_fields(opened: CredentialsPlaintext, *, show_secrets: bool) -> list[tuple[str, str]]:
    """(name, text) of what may be shown of an opened envelope: of its secrets the user ID, and that only if asked."""
    return [
        (f.name, _shown(opened, f.name, is_secret=f.sensitivity is not Sensitivity.PUBLIC, show_secrets=show_secrets))
        for f in fields_of(CredentialsPlaintext)
        if f.name not in _LEFT_OUT
    ]


def _shown(opened: CredentialsPlaintext, name: str, *, is_secret: bool, show_secrets: bool) -> str:
    if not is_secret:
        return str(getattr(opened, name))
    # Whoever has the password key can pay as the customer, so not even --show-secrets shows it.
    if not show_secrets or name != "user_id":
        return "<secret>"
    user_id = user_id_of(opened)
    return user_id.hex() if isinstance(user_id, bytes) else escape_line(user_id)


def user_id_of(opened: CredentialsPlaintext) -> str | bytes:
    """Who pays, a secret; bytes where it is no text, since a stranger sealed it."""
    user_id = opened.user_id[: opened.user_id_size]
    text = utf8_text(user_id)
    return user_id if text is None else text


assert Kind.TRANSFER_REQUEST in ENVELOPE_KINDS
assert Kind.ENCRYPTED_CREDENTIALS in ENVELOPE_KINDS
