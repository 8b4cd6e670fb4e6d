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
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.client.payment import Payment
from paygate.client.payment_file import UnknownVersion, payment_from_json, payment_to_json
from paygate.client.root import BankRoot
from paygate.codec import limits
from paygate.codec.jsonform import BadJson
from paygate.codec.seal import key_id_of
from paygate.files.state_dir import StateDir, StateError, check_private

_NO_ENVELOPE: Final = b'"envelope": ""'
"""Stands in the file of each payment that has none, as `json_text` writes it."""
_SERIAL: Final = re.compile("[0-9]{1,20}")  # of 64 bits
_MEND: Final = (
    "restore it from a backup. No money is lost by it: gateway and bank know the payment by its ID, the file's name, "
    "so merchant or bank can say what became of it, and paying its token again is safe (the bank posts one payment of "
    "a token at most). Moved out of its directory, it is told no more"
)
"""What to do about a record that can't be read. The program changes and deletes none: what is in it may still help."""

OnDamaged = Callable[[StateError], None]
"""Is told of each record that can't be used, what is wrong with it and what mends it."""


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
            try:
                (self._payments.path / name).lstat()  # A broken link is no proof that nothing was sent.
            except FileNotFoundError:
                text = f"there is no payment {payment_id.hex()} in {self.path}; `list` shows those that are there"
                text += ", and what was never written down was never sent"
                raise PaygateExit(text, ExitCode.USAGE) from None
        return self._load(name)

    def load_all(self, on_damaged: OnDamaged | None = None) -> list[Payment]:
        """All payments, oldest first. Raises StateError as `check`.

        A record that can't be used is told to `on_damaged` and left out; without that the first one raises StateError.
        """
        return self._load_those(lambda _: True, on_damaged)

    def load_of_token(self, transaction_id: str, on_damaged: OnDamaged | None = None) -> list[Payment]:
        """The payments of this transaction ID, oldest first; no other record is looked into. Raises as `load_all`."""
        word = json.dumps(transaction_id).encode()
        payments = self._load_those(lambda data: word in data, on_damaged)
        return [payment for payment in payments if payment.terms.transaction_id == transaction_id]

    def _load_those(self, is_meant: Callable[[bytes], bool], on_damaged: OnDamaged | None) -> list[Payment]:
        """Payments by what stands in their files, since most of the time goes to understanding it."""
        self.check()
        with _used(self._payments.path):
            names = sorted(p.name for p in self._payments.path.glob("*.json") if not p.name.startswith("."))
        payments = []
        for name in names:
            try:
                if is_meant(self._read(name)):
                    payments.append(self._load(name))
            except StateError as error:
                if on_damaged is None:
                    raise
                on_damaged(error)
        return sorted(payments, key=lambda p: (p.terms.authorised_at_ms, p.payment_id))

    def forget_envelopes(self, now_wall_ms: int) -> None:
        """Take out of the records the envelopes that a crash left and whose session is over. Raises StateError.

        A record that can't be read stays as it is: it is told when it is asked for.
        """
        for payment in self._load_those(lambda data: _NO_ENVELOPE not in data, on_damaged=lambda _: None):
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
        text = self._serials.read_secret(name, "record").decode("ascii", "replace").strip()
        if not _SERIAL.fullmatch(text):
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
        path = self._payments.path / name
        try:
            payment = payment_from_json(self._read(name))
        except UnknownVersion as error:
            raise StateError(f"{path} is of another version: {error}; ask with the paygate that wrote it") from None
        except BadJson as error:
            raise StateError(f"{path} was changed or damaged: {error}; {_MEND}") from None
        if (right := _name_of(payment.payment_id)) != name:
            mend = f"name it {right} if there is none, or move it away"
            raise StateError(f"{path} holds another payment than its name says; {mend}")
        return payment

    def _read(self, name: str) -> bytes:
        return self._payments.read_secret(name, "record")

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


def _check_payment_id(payment_id: object) -> None:
    if not isinstance(payment_id, bytes) or len(payment_id) != limits.PAYMENT_ID_SIZE:
        raise ValueError(f"payment ID: expected {limits.PAYMENT_ID_SIZE} bytes")


def _name_of(payment_id: bytes) -> str:
    return f"{payment_id.hex()}.json"


def _serial_name(root: BankRoot) -> str:
    # By key, since a bank that really changes its root key begins its serials anew.
    return f"{root.bank_id}-{key_id_of(root.public_key).hex()}.txt"
