"""A receipt file proves a payment offline, years later, and nothing once it was altered (R7, T8)."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import BANK_ID, UTR, build_receipt, build_signed_key_list, build_statement, build_terms
from client_world import ROOT, World
from scripted_gateway import proven

from paygate.cli import ExitCode, PaygateExit
from paygate.client.client import PaygateClient
from paygate.client.receipt_file import (
    ReceiptFileError,
    check_can_be_written,
    receipt_file_text,
    verify_receipt_file,
    write_new_file,
)
from paygate.client.root import BankRoot
from paygate.codec.sealed import ReceiptKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    world = World().send()
    world.reply(proven(world.payment))
    path = tmp_path / "receipt.json"
    path.write_bytes(receipt_file_text(world.payment))
    return path


def test_it_verifies_with_nothing_but_the_root_key(path: Path) -> None:
    # The key list is out of date by now; it was accepted in its time.
    statement = PaygateClient.verify(path, str(ROOT))
    assert statement.utr == UTR
    assert statement.terms == build_terms()


def test_another_root_key_proves_nothing(path: Path) -> None:
    with pytest.raises(ReceiptFileError, match="not signed by the pinned root key") as error:
        verify_receipt_file(path, BankRoot(BANK_ID, b"o" * 32))
    assert error.value.code is ExitCode.UNTRUSTED
    with pytest.raises(ReceiptFileError, match="not of BANK2"):
        verify_receipt_file(path, replace(ROOT, bank_id="BANK2"))


def _other_receipt(fields: dict[str, object]) -> None:
    fields["receipt"] = build_receipt(build_statement(terms=build_terms(payment_id=b"o" * 16))).hex()


CHANGES: list[tuple[str, Callable[[dict[str, object]], object]]] = [
    ("its amount_minor differs", lambda f: f["terms"].update(amount_minor=1)),  # type: ignore[attr-defined]
    ("another UTR", lambda f: f.update(utr=UTR[:-1] + "9")),
    ("another envelope", lambda f: f.update(envelope_hash="00" * 32)),
    ("malformed", lambda f: f.update(receipt="00")),
    ("its payment_id differs", _other_receipt),
    (
        "a key that the bank's key list does not hold",
        lambda f: f.update(
            signed_key_list=build_signed_key_list(receipt_keys=(ReceiptKey(b"o" * 8, b"o" * 32),)).hex()
        ),
    ),
    ("bank_id", lambda f: f.update(bank_id="BANK2")),
    ("signed_key_list", lambda f: f.update(signed_key_list="zz")),
    ("envelope_hash", lambda f: f.pop("envelope_hash")),
]


@pytest.mark.parametrize(("word", "change"), CHANGES)
def test_an_altered_file_proves_nothing_and_says_where(
    path: Path, word: str, change: Callable[[dict[str, object]], object]
) -> None:
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ReceiptFileError, match=word) as error:
        verify_receipt_file(path, ROOT)
    assert str(path) in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PaygateExit, match="could not read") as error:
        verify_receipt_file(tmp_path / "none", ROOT)
    assert error.value.code is ExitCode.USAGE
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PaygateExit, match=r"pipe: it is no regular file") as error:
        verify_receipt_file(tmp_path / "pipe", ROOT)
    assert error.value.code is ExitCode.USAGE
    large = tmp_path / "large"
    large.write_bytes(b" " * 300_000)
    with pytest.raises(ReceiptFileError, match="no receipt file"):
        verify_receipt_file(large, ROOT)


def test_a_payment_without_a_receipt_makes_no_file() -> None:
    with pytest.raises(PaygateExit, match="has no receipt: it is pending") as error:
        receipt_file_text(World().send().payment)
    assert error.value.code is ExitCode.USAGE


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.json"
    check_can_be_written(path)
    assert list(tmp_path.iterdir()) == []
    write_new_file(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        check_can_be_written(path)
    assert path.read_bytes() == b"whole"

    def failing_fsync(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(OSError, match="No space left"):
        write_new_file(tmp_path / "half.json", b"half")
    assert list(tmp_path.iterdir()) == [path]
