"""A receipt that stands alone: whoever has the bank's root key can check it, offline and years later (R7)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.client.input_file import read_input_file
from paygate.client.json_file import bytes_in, json_text, read_json, terms_in, text_in
from paygate.client.payment import Payment
from paygate.client.root import BankRoot
from paygate.codec import limits
from paygate.codec.fields import HASH, RECEIPT_OR_EMPTY, UTR_OR_EMPTY, Blob
from paygate.codec.jsonform import BadJson, to_json
from paygate.codec.seal import BadReceipt, SealError, match_receipt, verify_key_list, verify_receipt
from paygate.codec.sealed import ReceiptStatement, Terms
from paygate.files.durable import fsync_directory, write_all

FORMAT: Final = "paygate receipt 1"
FILE_SIZE_MAX: Final = 262_144
"""Bytes; a key list of the largest size in hexadecimal takes a fifth of it."""
_FIELD_NAMES: Final = ("format", "bank_id", "utr", "terms", "envelope_hash", "signed_key_list", "receipt")


class ReceiptFileError(PaygateExit):
    """The file proves nothing; the text says why."""

    code = ExitCode.UNTRUSTED


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """What is in the file; nothing of it is proven before `verify`."""

    utr: str
    terms: Terms
    envelope_hash: bytes
    signed_key_list: bytes
    receipt: bytes

    def verify(self, root: BankRoot) -> ReceiptStatement:
        """What the bank states, once root signature and receipt hold and fit the rest of the file.

        The key list was accepted in its time; being out of date today says nothing about then.
        Raises ReceiptFileError.
        """
        try:
            key_list = verify_key_list(self.signed_key_list, root.public_key, root.bank_id, None)
            statement = verify_receipt(self.receipt, key_list)
            match_receipt(statement, self.terms, self.envelope_hash)
            if statement.utr != self.utr:
                raise BadReceipt("the receipt holds another UTR than the file says")
        except SealError as error:
            raise ReceiptFileError(str(error)) from None
        return statement


def receipt_file_text(payment: Payment) -> bytes:
    """The file for a payment that has a receipt. Raises PaygateExit(USAGE) for one that has none."""
    if not payment.receipt:
        raise PaygateExit(
            f"payment {payment.payment_id.hex()} has no receipt: it is {payment.state.value}", ExitCode.USAGE
        )
    fields = {
        "format": FORMAT,
        "bank_id": payment.root.bank_id,
        "utr": payment.utr,
        "terms": to_json(payment.terms),
        "envelope_hash": payment.envelope_hash.hex(),
        "signed_key_list": payment.signed_key_list.hex(),
        "receipt": payment.receipt.hex(),
    }
    assert tuple(fields) == _FIELD_NAMES
    return json_text(fields)


def write_new_file(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, for its owner only; all of it is on disk, or OSError and no file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
        fsync_directory(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def check_can_be_written(path: Path) -> None:
    """Find out whether `write_new_file` can make this file, by making it and taking it away. Raises OSError."""
    # Asking for permissions instead would miss a name that is too long or a file system that is read-only.
    write_new_file(path, b"")
    path.unlink()


def parse_receipt_file(data: bytes) -> ReceiptFile:
    """Read the file's text. Raises BadJson naming the field."""
    fields = read_json(data, FORMAT, _FIELD_NAMES)
    terms = terms_in(fields)
    if fields["bank_id"] != terms.bank_id:
        raise BadJson("bank_id", "the bank that the terms name")
    return ReceiptFile(
        utr=text_in(fields, "utr", UTR_OR_EMPTY),
        terms=terms,
        envelope_hash=bytes_in(fields, "envelope_hash", HASH),
        signed_key_list=bytes_in(fields, "signed_key_list", Blob(1, limits.BODY_SIZE_MAX)),
        receipt=bytes_in(fields, "receipt", RECEIPT_OR_EMPTY),
    )


def verify_receipt_file(path: Path, root: BankRoot) -> ReceiptStatement:
    """Check a receipt file against a bank's root key, offline.

    Raises ReceiptFileError if anything does not hold; PaygateExit(USAGE) if the file can't be read.
    """
    try:
        data = read_input_file(path, FILE_SIZE_MAX + 1)
    except OSError as error:
        raise PaygateExit(f"could not read {path}: {error.strerror}", ExitCode.USAGE) from None
    if len(data) > FILE_SIZE_MAX:
        raise ReceiptFileError(f"{path} is no receipt file: it has over {FILE_SIZE_MAX} bytes")
    try:
        return parse_receipt_file(data).verify(root)
    except BadJson as error:
        raise ReceiptFileError(f"{path} was changed or is no receipt file: {error}") from None
    except ReceiptFileError as error:
        raise ReceiptFileError(f"{path} proves nothing: {error}") from None
