"""The payments that this client has sent, one readable file each, and the key list serials that it has seen.

A payment is on disk before its credentials leave, so that whatever happens to the client afterwards, somebody can
still ask what became of the money. User ID and password are in here only as the gateway gets them, in the envelope that
nobody but the bank opens (R4), and only until the session is over in which it may be sent again; the token's passcode
is, since a status query needs it, so the files are private (T29).

    payments/PAYMENT_ID.json    serials/BANK_ID-KEY.txt    receipts/UTR.json or receipts/PAYMENT_ID.json
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from paygate.cli import ExitCode, PaygateExit
from paygate.client.payment import Payment, PaymentState
from paygate.client.root import BadRoot, BankRoot, parse_root
from paygate.clock import parse_utc, utc_text
from paygate.codec import limits
from paygate.codec.codes import Reason
from paygate.codec.fields import (
    HASH,
    KEY_ID,
    MERCHANT_NAME_OR_EMPTY,
    PASSCODE,
    RECEIPT_OR_EMPTY,
    UTR_OR_EMPTY,
    Blob,
    Field,
)
from paygate.codec.jsonform import BadJson, from_json, to_json
from paygate.codec.seal import envelope_hash, key_id_of
from paygate.codec.sealed import Terms
from paygate.files.state_dir import StateDir, StateError, check_private
from paygate.net.addresses import AddressError, parse_host_port

FORMAT: Final = "paygate payment 2"
_FORMAT_BEFORE: Final = "paygate payment 1"
"""Knew nothing of sending again; read, and never written any more."""
_SIGNED_KEY_LIST: Final = Blob(1, limits.BODY_SIZE_MAX)
_ENVELOPE_OR_EMPTY: Final = Blob(0, limits.ENVELOPE_SIZE_MAX)
_NO_ENVELOPE: Final = b'"envelope": ""'
"""Stands in the file of each payment that has none, as `json_text` writes it."""
_MOVE_AWAY: Final = "move it away, and the others are told; its name is the payment's ID, which gateway and bank know"
_FIELD_NAMES: Final = (
    "format",
    "state",
    "terms",
    "merchant_name",
    "envelope_hash",
    "passcode",
    "gateway",
    "bank_root",
    "signed_key_list",
    "reason",
    "utr",
    "receipt",
    "ended",
    "key_id",
    "envelope",
)
_FIELD_COUNT_BEFORE: Final = len(_FIELD_NAMES) - 2


class PendingStore:
    """The client's state directory. Several clients may use one at the same time."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet: what asks needs a directory that is there, and only `create` makes one."""
        self.path = path
        self._payments = StateDir(path / "payments")
        self._serials = StateDir(path / "serials")
        self._receipts = StateDir(path / "receipts")

    def create(self) -> None:
        """Make the directories where they are missing (mode 0700). Raises StateError, also for a loose mode.

        For paying only. A mistyped directory that was made for a question would answer that nothing is open.
        """
        StateDir(self.path).create()
        self._check_private()
        for directory in (self._payments, self._serials, self._receipts):
            directory.create()

    def check(self) -> None:
        """Raises StateError if the directory is not there, or holds no client's state, or has a loose mode."""
        with _used(self.path):
            is_there, is_clients = self.path.is_dir(), self._payments.path.is_dir()
        if not is_there:
            raise StateError(f"there is no state directory {self.path}; give the one that was paid with")
        if not is_clients:
            raise StateError(f"{self.path} is no client's state directory; give the one that was paid with")
        self._check_private()

    def save(self, payment: Payment) -> None:
        """Write a payment down; it is on disk when this returns. Raises StateError.

        A payment that is settled on disk stays as it is: another client may have got its receipt meanwhile (T8).
        """
        name = _name_of(payment.payment_id)
        with self._locked(self._payments):
            if (self._payments.path / name).exists() and self._load(name).is_settled:
                return
            self._payments.write_atomic(name, payment_to_json(payment))

    def load(self, payment_id: bytes) -> Payment:
        """One payment. Raises StateError if its file was changed by hand or the directory is not there.

        Raises PaygateExit(USAGE) if there is no such payment, ValueError for what is no payment ID.
        """
        _check_payment_id(payment_id)
        self.check()
        name = _name_of(payment_id)
        with _used(self._payments.path):
            is_there = (self._payments.path / name).exists()
        if not is_there:
            raise PaygateExit(f"there is no payment {payment_id.hex()} in {self.path}", ExitCode.USAGE)
        return self._load(name)

    def load_all(self) -> list[Payment]:
        """All payments, oldest first. Raises StateError at the first file that is not right, or as `check`."""
        return self._load_those(lambda _: True)

    def load_of_token(self, transaction_id: str) -> list[Payment]:
        """The payments of this transaction ID, oldest first; no other record is looked into. Raises as `load_all`."""
        word = json.dumps(transaction_id).encode()
        return [p for p in self._load_those(lambda data: word in data) if p.terms.transaction_id == transaction_id]

    def _load_those(self, is_meant: Callable[[bytes], bool]) -> list[Payment]:
        """Payments by what stands in their files, since most of the time goes to understanding it."""
        self.check()
        with _used(self._payments.path):
            names = sorted(p.name for p in self._payments.path.glob("*.json") if not p.name.startswith("."))
        meant = (self._load(name) for name in names if is_meant(self._payments.read_secret(name)))
        return sorted(meant, key=lambda p: (p.terms.authorised_at_ms, p.payment_id))

    def forget_envelopes(self, now_wall_ms: int) -> None:
        """Take out of the records the envelopes that a crash left and whose session is over. Raises StateError."""
        for payment in self._load_those(lambda data: _NO_ENVELOPE not in data):
            if payment.envelope and payment.credentials(now_wall_ms) is None:
                name = _name_of(payment.payment_id)
                with self._locked(self._payments):
                    # Another client may have got its outcome meanwhile.
                    self._payments.write_atomic(name, payment_to_json(self._load(name).without_envelope()))

    def serial_min(self, root: BankRoot) -> int:
        """The highest key list serial seen under this root key; 0 at first (T10). Raises StateError."""
        name = _serial_name(root)
        with _used(self._serials.path):
            if not (self._serials.path / name).exists():
                return 0
        text = self._serials.read_secret(name).decode("ascii", "replace").strip()
        if not (text.isascii() and text.isdigit()):
            raise StateError(f"{self._serials.path / name} does not hold a serial number; restore it from a backup")
        return int(text)

    def keep_serial(self, root: BankRoot, serial: int) -> None:
        """Never accept an older key list from now on. Raises StateError."""
        with self._locked(self._serials):
            if serial > self.serial_min(root):
                self._serials.write_atomic(_serial_name(root), f"{serial}\n".encode())

    def receipt_path(self, payment: Payment) -> Path:
        """Where a payment's receipt is kept: under its UTR, or under its payment ID where nothing was posted."""
        return self._receipts.path / f"{payment.utr or payment.payment_id.hex()}.json"

    def save_receipt(self, payment: Payment, data: bytes) -> Path:
        """Keep a payment's receipt file and give its path. Raises StateError."""
        path = self.receipt_path(payment)
        with self._locked(self._receipts):
            self._receipts.write_atomic(path.name, data)
        return path

    def _load(self, name: str) -> Payment:
        data = self._payments.read_secret(name)
        try:
            payment = payment_from_json(data)
        except BadJson as error:
            raise StateError(f"{self._payments.path / name} was changed or damaged: {error}; {_MOVE_AWAY}") from None
        if _name_of(payment.payment_id) != name:
            raise StateError(f"{self._payments.path / name} holds another payment than its name says; {_MOVE_AWAY}")
        return payment

    def _check_private(self) -> None:
        with _used(self.path):
            status = self.path.stat()
        check_private(self.path, status, 0o700)

    @contextlib.contextmanager
    def _locked(self, directory: StateDir) -> Iterator[None]:
        # Of the directory itself, so no lock file is left. Held for one small write.
        with _used(directory.path):
            fd = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)


@contextlib.contextmanager
def _used(directory: Path) -> Iterator[None]:
    """Raises StateError for what the system says of a directory of the client's state, or of what is in it."""
    try:
        yield
    except OSError as error:
        raise StateError(f"could not use the state directory {directory}: {error.strerror}") from None


def payment_to_json(payment: Payment) -> bytes:
    """The text of a payment's file."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "state": payment.state.value,
        "terms": to_json(payment.terms),
        "merchant_name": payment.merchant_name,
        "envelope_hash": payment.envelope_hash.hex(),
        "passcode": payment.passcode,
        "gateway": payment.gateway,
        "bank_root": str(payment.root),
        "signed_key_list": payment.signed_key_list.hex(),
        "reason": payment.reason.name,
        "utr": payment.utr,
        "receipt": payment.receipt.hex(),
        "ended": utc_text(payment.ended_ms) if payment.ended_ms else "",
        "key_id": payment.key_id.hex(),
        "envelope": payment.envelope.hex(),
    }
    assert tuple(fields) == _FIELD_NAMES
    return json_text(fields)


def payment_from_json(data: bytes) -> Payment:
    """Read a payment's file. Raises BadJson naming the field."""
    fields = _read_fields(data)
    reason = Reason.__members__.get(_text(fields, "reason"))
    if reason is None:
        raise BadJson("reason", f"one of {', '.join(Reason.__members__)}")
    try:
        state = PaymentState(_text(fields, "state"))
    except ValueError:
        raise BadJson("state", f"one of {', '.join(s.value for s in PaymentState)}") from None
    payment = Payment(
        terms=terms_in(fields),
        envelope_hash=bytes_in(fields, "envelope_hash", HASH),
        passcode=text_in(fields, "passcode", PASSCODE),
        merchant_name=text_in(fields, "merchant_name", MERCHANT_NAME_OR_EMPTY),
        gateway=_gateway(_text(fields, "gateway")),
        root=_root(_text(fields, "bank_root")),
        signed_key_list=bytes_in(fields, "signed_key_list", _SIGNED_KEY_LIST),
        state=state,
        reason=reason,
        utr=text_in(fields, "utr", UTR_OR_EMPTY),
        receipt=bytes_in(fields, "receipt", RECEIPT_OR_EMPTY),
        key_id=bytes_in(fields, "key_id", KEY_ID),
        envelope=bytes_in(fields, "envelope", _ENVELOPE_OR_EMPTY),
    )
    if payment.envelope and (
        state is not PaymentState.PENDING or envelope_hash(payment.envelope) != payment.envelope_hash
    ):
        raise BadJson("envelope", "the one whose hash the record has while it is pending, and none otherwise")
    if bool(payment.receipt) is not (state in (PaymentState.PAID, PaymentState.DECLINED)):
        raise BadJson("receipt", "a receipt with paid and declined and none otherwise")
    ended = _text(fields, "ended")
    try:
        return replace(payment, ended_ms=parse_utc(ended) if ended else 0)
    except ValueError:
        raise BadJson("ended", "a UTC time such as 2026-12-31T23:59:59Z, or nothing") from None


def _read_fields(data: bytes) -> dict[str, Any]:
    try:
        return read_json(data, FORMAT, _FIELD_NAMES)
    except BadJson as error:
        if error.path != "format":
            raise
        try:
            fields = read_json(data, _FORMAT_BEFORE, _FIELD_NAMES[:_FIELD_COUNT_BEFORE])
        except BadJson as error_before:
            raise (error if error_before.path == "format" else error_before) from None
    return {**fields, "key_id": bytes(limits.KEY_ID_SIZE).hex(), "envelope": ""}


# -- reading and writing fields, shared with the receipt file ---------------------------------------------


def json_text(fields: dict[str, Any]) -> bytes:
    """A file for people: one field a line, everything as it is in UTF-8."""
    return f"{json.dumps(fields, indent=2, ensure_ascii=False)}\n".encode()


def read_json(data: bytes, file_format: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of such a file: exactly these names. Raises BadJson."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise BadJson("", "JSON") from None
    if not isinstance(fields, dict) or fields.get("format") != file_format:
        raise BadJson("format", f'"{file_format}"')
    for name in names:
        if name not in fields:
            raise BadJson(name, "a value")
    if len(fields) != len(names):
        raise BadJson("", f"no fields but {', '.join(names)}")
    return fields


def terms_in(fields: dict[str, Any]) -> Terms:
    """The field `terms`. Raises BadJson with the whole path."""
    try:
        return from_json(Terms, fields["terms"])
    except BadJson as error:
        raise BadJson(f"terms.{error.path}" if error.path else "terms", error.expected) from None


def text_in(fields: dict[str, Any], name: str, field: Field) -> str:
    """A text that is legal for this field type. Raises BadJson."""
    text = _text(fields, name)
    if not field.is_legal(text):
        raise BadJson(name, field.expected)
    return text


def bytes_in(fields: dict[str, Any], name: str, field: Field) -> bytes:
    """Bytes in hexadecimal that are legal for this field type. Raises BadJson."""
    expected = f"{field.expected}, in hexadecimal"
    try:
        data = bytes.fromhex(_text(fields, name))
    except ValueError:
        raise BadJson(name, expected) from None
    if not field.is_legal(data):
        raise BadJson(name, expected)
    return data


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise BadJson(name, "a text")
    return value


def _gateway(text: str) -> str:
    try:
        parse_host_port(text)
    except AddressError:
        raise BadJson("gateway", "host:port") from None
    return text


def _root(text: str) -> BankRoot:
    try:
        return parse_root(text)
    except BadRoot as error:
        raise BadJson("bank_root", str(error)) from None


def _check_payment_id(payment_id: object) -> None:
    if not isinstance(payment_id, bytes) or len(payment_id) != limits.PAYMENT_ID_SIZE:
        raise ValueError(f"payment ID: expected {limits.PAYMENT_ID_SIZE} bytes")


def _name_of(payment_id: bytes) -> str:
    return f"{payment_id.hex()}.json"


def _serial_name(root: BankRoot) -> str:
    # By key, since a bank that really changes its root key begins its serials anew.
    return f"{root.bank_id}-{key_id_of(root.public_key).hex()}.txt"
