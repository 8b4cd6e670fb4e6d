"""The bank's text records: intake of lines, passwords, balances in place, healing from the ledger."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bank_books import ASHA_MINOR, IDENTITY, VERIFIER, Books
from builders import BANK_ID, CHEAP_PASSWORD_KEY, MERCHANT_ID

from paygate.bank.backup import UTR_JUMP
from paygate.bank.record_lines import MERCHANTS_LAYOUT, TRANSACTIONS_LAYOUT, USERS_LAYOUT
from paygate.bank.records import BankRecords, export_records
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.messages import MakeVerifier
from paygate.files.sqlite import StoreCorrupt, StoreFull
from paygate.files.text_records import Layout, SharedFile

CANARY = "correct-horse-battery-staple"


def fake_verifiers(requests: Sequence[MakeVerifier]) -> list[bytes]:
    return [hashlib.sha256(f"{r.user_id} {r.password}".encode()).digest() for r in requests]


class Office:
    """The records of some books, and the directory in which people edit them."""

    def __init__(self, books: Books, directory: Path) -> None:
        self.books = books
        self.directory = directory
        self.log: list[str] = []
        directory.mkdir(exist_ok=True)
        self.records = self.open()

    def open(self) -> BankRecords:
        records = BankRecords(
            self.directory, self.books.ledger, BANK_ID, IDENTITY.currency, CHEAP_PASSWORD_KEY, self.log.append
        )
        records.heal(self.books.now, fake_verifiers)
        return records

    def restart(self) -> None:
        self.records.close()
        self.records = self.open()

    def add(self, layout: Layout, *lines: str) -> None:
        """Somebody appends lines; within a second they are looked at."""
        with (self.directory / layout.file_name).open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.look()

    def look(self) -> None:
        requests = self.records.look()
        self.records.take_in(self.books.now, fake_verifiers(requests))

    def pay(self, *args: Any, **changes: Any) -> str:
        outcome = self.books.pay(*args, **changes)
        assert outcome.posted is not None
        self.records.record([outcome.posted])
        return outcome.utr

    def text(self, layout: Layout) -> str:
        return (self.directory / layout.file_name).read_text()

    def rows(self, layout: Layout) -> list[tuple[str, ...]]:
        lines = self.text(layout).splitlines()
        return [layout.parse(line.encode()) for line in lines if line.strip() and not line.startswith("#")]

    def told(self, text: str) -> bool:
        return any(text in line for line in self.log)


@pytest.fixture
def office(books: Books, tmp_path: Path) -> Iterator[Office]:
    office = Office(books, tmp_path / "records")
    yield office
    office.records.close()


def test_the_files_say_what_the_ledger_says(office: Office) -> None:
    users = office.rows(USERS_LAYOUT)
    assert users[0] == ("C-1", "asha", f"verifier:{VERIFIER.hex()}", "50000.00")
    assert [row[0] for row in users] == ["C-1", "C-2"]
    assert office.rows(MERCHANTS_LAYOUT) == [(MERCHANT_ID, "Books", "0.00"), ("M-200", "Tea", "1500.00")]
    assert office.rows(TRANSACTIONS_LAYOUT) == []
    assert office.log == []


# -- intake ----------------------------------------------------------------------------------------------


def test_a_new_customers_password_is_gone_once_taken_in(office: Office) -> None:
    office.add(USERS_LAYOUT, f"C-3 | meera | {CANARY} | 125.50")
    customer = office.books.ledger.find_customer("C-3")
    assert customer is not None
    assert (customer.user_id, customer.balance_minor) == ("meera", 12_550)
    assert customer.verifier == hashlib.sha256(f"meera {CANARY}".encode()).digest()
    assert CANARY not in office.text(USERS_LAYOUT)
    assert office.rows(USERS_LAYOUT)[-1] == ("C-3", "meera", f"verifier:{customer.verifier.hex()}", "125.50")
    for path in office.directory.parent.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_a_line_with_a_verifier_is_taken_as_it_is(office: Office) -> None:
    office.add(USERS_LAYOUT, f"C-3|meera|verifier:{'ab' * 32}|0")
    customer = office.books.ledger.find_customer("C-3")
    assert customer is not None
    assert customer.verifier == b"\xab" * 32


def test_a_new_merchant_is_taken_in(office: Office) -> None:
    office.add(MERCHANTS_LAYOUT, "M-9 | Nine & Sons | 9.90")
    assert office.rows(MERCHANTS_LAYOUT)[-1] == ("M-9", "Nine & Sons", "9.90")
    assert office.books.ledger.find_merchant("M-9") is not None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("C-3 | meera | secret-pw", "line: expected 4 columns with | between them, got 3"),
        ("C 3 | meera | secret-pw | 1.00", "customer ID: expected 1 to 32 bytes of letters"),
        ("C-3 |  | secret-pw | 1.00", "user ID: expected 1 to 64 bytes of printable text"),
        ("C-3 | meera |  | 1.00", "password: expected 1 to 255 bytes of printable text"),
        ("C-3 | meera | verifier:12 | 1.00", "password: expected a password, or verifier: and 64 hexadecimal digits"),
        ("C-3 | meera | secret-pw | -1.00", "amount available: expected a decimal amount in INR without sign"),
        ("C-3 | meera | secret-pw | 1.005", "amount available: expected at most 2 decimals"),
        ("C-3 | meera | secret-pw | 10000000000000.00", "amount available: expected at most 9999999999999.99"),
        ("C-3 | asha | secret-pw | 1.00", "user ID: expected one that no other customer has"),
    ],
)
def test_a_bad_line_is_told_by_number_and_field_and_left_for_its_writer(office: Office, line: str, told: str) -> None:
    number = office.text(USERS_LAYOUT).count("\n") + 1
    office.add(USERS_LAYOUT, line, "C-4 | good | pw | 1.00")
    assert [text for text in office.log if f"NetbankingUsers.txt line {number}, {told}" in text]
    assert not office.told("secret-pw")
    assert line in office.text(USERS_LAYOUT).splitlines()
    assert office.books.ledger.find_customer("C-3") is None
    assert office.books.ledger.find_customer("C-4") is not None
    # Told once, and again only when the bank is started again.
    office.log.clear()
    office.look()
    assert office.log == []
    office.restart()
    assert office.told(told)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("M 9 | Nine | 1.00", "merchant ID: expected"),
        ("M-9 | Ni\u202ene | 1.00", "name: expected 0 to 64 bytes of printable text"),
        ("M-9 | Nine | one", "account balance: expected a decimal amount"),
    ],
)
def test_a_bad_merchant_line_is_told_and_left(office: Office, line: str, told: str) -> None:
    office.add(MERCHANTS_LAYOUT, line)
    assert office.told(f"Merchant.txt line {office.text(MERCHANTS_LAYOUT).count(chr(10))}, {told}")
    assert line in office.text(MERCHANTS_LAYOUT)


def test_a_mended_line_is_taken_in(office: Office) -> None:
    office.add(USERS_LAYOUT, "C-3 | meera | pw | 1.005")
    path = office.directory / USERS_LAYOUT.file_name
    path.write_text(path.read_text().replace("1.005", "1.00"))
    office.look()
    assert office.books.ledger.find_customer("C-3") is not None


def test_a_changed_line_of_a_known_customer_is_put_back_and_told(office: Office) -> None:
    path = office.directory / USERS_LAYOUT.file_name
    before = office.rows(USERS_LAYOUT)
    path.write_text(path.read_text().replace("50000.00", "99999.00"))
    office.look()
    assert office.told('customer ID: expected a new one, got "C-1"; this account is known')
    assert office.rows(USERS_LAYOUT) == before
    assert office.books.balance("C-1") == ASHA_MINOR


def test_balances_that_a_kill_left_behind_are_put_right_and_told_in_one_line(office: Office) -> None:
    for number, user_id in ((1, "asha"), (2, "ravi")):
        outcome = office.books.pay(number, user_id=user_id, amount_minor=5)
        assert outcome.posted is not None
        office.records.note([outcome.posted])  # and is not written any more
    office.log.clear()
    office.records = office.open()
    assert office.log == [
        "NetbankingUsers.txt: balances behind the ledger, or edited: 2; they say again what the ledger says",
        "Merchant.txt: balances behind the ledger, or edited: 1; they say again what the ledger says",
    ]
    assert [row[-1] for row in office.rows(USERS_LAYOUT)] == ["49999.95", "899.95"]


def test_a_second_line_for_a_known_customer_is_removed_with_its_password(office: Office) -> None:
    office.add(USERS_LAYOUT, f"C-1 | asha | {CANARY} | 1.00", f"C-3 | m1 | {CANARY} | 1.00", f"C-3 | m2 | {CANARY} | 1")
    assert CANARY not in office.text(USERS_LAYOUT)
    assert [row[:2] for row in office.rows(USERS_LAYOUT)] == [("C-1", "asha"), ("C-2", "ravi"), ("C-3", "m1")]
    assert office.books.balance("C-1") == ASHA_MINOR


def test_other_forms_of_the_same_letters_are_one_user_id(office: Office) -> None:
    office.add(USERS_LAYOUT, "C-3 | Jose\u0301 | pw | 1.00")
    customer = office.books.ledger.find_customer("C-3")
    assert customer is not None
    assert customer.user_id == "Jos\u00e9"


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_is_set_between_a_start_and_the_first_payment_moves_no_lock(office: Office, step_ms: int) -> None:
    books = office.books
    for number in range(3):
        books.pay(number, verifier=b"\1" * 32)  # the third locks for 30 s
    books.reopen()
    office.records.close()
    office.records = office.open()
    books.now = Now(books.now.mono_ms, books.now.wall_ms + step_ms)
    books.advance(29_000)
    assert books.pay(3).reason is Reason.CREDENTIALS
    books.advance(1_000)
    assert books.pay(4).outcome is TransferOutcome.POSTED


def test_lines_wait_while_the_disk_is_full(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(office.books.ledger, "apply", full)
        office.add(USERS_LAYOUT, f"C-3 | meera | {CANARY} | 1.00")
        assert office.told("new accounts wait: no room")
        assert CANARY in office.text(USERS_LAYOUT)
    office.look()
    assert CANARY not in office.text(USERS_LAYOUT)
    assert office.books.balance("C-3") == 100


def test_payments_go_on_while_passwords_are_with_the_decoder(office: Office) -> None:
    with (office.directory / USERS_LAYOUT.file_name).open("a") as file:
        file.write(f"C-3 | meera | {CANARY} | 1.00\n")
    requests = office.records.look()
    utr = office.pay(1)
    office.records.take_in(office.books.now, fake_verifiers(requests))
    users = {row[0]: row[3] for row in office.rows(USERS_LAYOUT)}
    assert users == {"C-1": "48750.00", "C-2": "900.00", "C-3": "1.00"}
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [utr]


# -- payments --------------------------------------------------------------------------------------------


def test_each_payment_is_in_the_files_at_once(office: Office) -> None:
    utrs = [office.pay(n, amount_minor=100_000) for n in range(3)]
    assert [row[3] for row in office.rows(USERS_LAYOUT)] == ["47000.00", "900.00"]
    assert [row[2] for row in office.rows(MERCHANTS_LAYOUT)] == ["3000.00", "1500.00"]
    assert office.rows(TRANSACTIONS_LAYOUT) == [
        (utr, "C-1", MERCHANT_ID, "1000.00", "INR", f"TX-{n}", "2026-01-02T00:00:00.000Z") for n, utr in enumerate(utrs)
    ]


def test_balances_that_change_twice_before_they_are_written_are_written_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        writes.append(len(data))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not office.records.note([])
    utrs = []
    for n in range(3):
        outcome = office.books.pay(n, amount_minor=100_000)
        assert outcome.posted is not None
        assert office.records.note([outcome.posted])
        utrs.append(outcome.utr)
    assert office.rows(TRANSACTIONS_LAYOUT) == []
    office.records.write()
    assert len(writes) == 2  # the payer's balance and the payee's
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == utrs
    assert office.rows(USERS_LAYOUT)[0][3] == "47000.00"
    assert office.rows(MERCHANTS_LAYOUT)[0][2] == "3000.00"


@pytest.mark.parametrize("is_moved", [True, False])
def test_what_is_noted_when_a_file_is_built_anew_is_in_it_once(office: Office, is_moved: bool) -> None:
    first = office.pay(1)
    outcome = office.books.pay(2)
    assert outcome.posted is not None
    office.records.note([outcome.posted])
    if is_moved:
        (office.directory / TRANSACTIONS_LAYOUT.file_name).unlink()
        office.look()
        office.records.write()
    else:
        office.restart()  # which closes the files, and so writes what is noted
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [first, outcome.utr]
    assert office.rows(USERS_LAYOUT)[0][3] == "47500.00"
    assert office.rows(MERCHANTS_LAYOUT)[0][2] == "2500.00"
    assert office.told("is built anew") is is_moved


def test_a_transaction_record_that_only_looks_otherwise_is_left_as_it_is(office: Office) -> None:
    office.pay(1)
    path = office.directory / TRANSACTIONS_LAYOUT.file_name
    path.write_text(path.read_text().replace("   ", " "))
    before = path.read_text()
    office.restart()
    assert path.read_text() == before
    office.pay(2)
    path.write_text(f"{path.read_text()}no record\n")
    office.restart()
    assert len(office.rows(TRANSACTIONS_LAYOUT)) == 2
    assert office.told("the line is left out")


def test_a_crash_between_ledger_and_files_heals_at_start(office: Office) -> None:
    recorded = office.pay(1)
    lost = office.books.pay(2).utr
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [recorded]
    office.restart()
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [recorded, lost]
    assert office.rows(USERS_LAYOUT)[0][3] == "47500.00"
    assert office.rows(MERCHANTS_LAYOUT)[0][2] == "2500.00"


def test_files_that_are_gone_are_built_anew(office: Office) -> None:
    utr = office.pay(1)
    for layout in (USERS_LAYOUT, MERCHANTS_LAYOUT, TRANSACTIONS_LAYOUT):
        (office.directory / layout.file_name).unlink()
    for _ in range(3):
        office.look()
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [utr]
    assert [row[0] for row in office.rows(USERS_LAYOUT)] == ["C-1", "C-2"]
    assert [row[0] for row in office.rows(MERCHANTS_LAYOUT)] == [MERCHANT_ID, "M-200"]


def test_an_edited_transaction_record_is_built_anew(office: Office) -> None:
    office.pay(1)
    office.pay(2)
    before = office.rows(TRANSACTIONS_LAYOUT)
    path = office.directory / TRANSACTIONS_LAYOUT.file_name
    path.write_text(path.read_text().replace("1250.00", "9250.00", 1))
    office.restart()
    assert office.rows(TRANSACTIONS_LAYOUT) == before


def test_a_ledger_that_is_older_than_the_record_is_refused_and_nothing_is_changed(office: Office) -> None:
    office.pay(1)
    office.books.ledger.close()
    older = office.books.path.read_bytes()
    office.books.reopen()
    office.restart()
    lost = [office.pay(n) for n in (2, 3)]
    office.records.close()
    office.books.ledger.close()
    office.books.path.write_bytes(older)
    office.books.reopen()
    before = office.text(TRANSACTIONS_LAYOUT)
    with pytest.raises(StoreCorrupt, match=rf"tells of 2 later payments, from UTR {lost[0]} on.*'paygate-bank backup'"):
        office.open()
    assert office.text(TRANSACTIONS_LAYOUT) == before
    # Told that nobody paid under them, it is served.
    lines = before.splitlines(keepends=True)
    (office.directory / TRANSACTIONS_LAYOUT.file_name).write_text("".join(lines[:-2]))
    office.records = office.open()
    assert office.pay(4) == lost[0]


@pytest.mark.pg("PG-TRF-6")
def test_utrs_that_a_restored_ledger_does_not_know_are_kept_and_never_given_again(office: Office) -> None:
    known = office.pay(1)
    lost = [f"{known[:-8]}{int(known[-8:]) + steps:08}" for steps in (1, 2)]
    office.books.ledger.skip_utrs(office.books.ledger.utr_sequence + UTR_JUMP)
    with (office.directory / TRANSACTIONS_LAYOUT.file_name).open("ab") as file:
        rows = [(utr, "C-1", MERCHANT_ID, "1.00", "INR", "TX", "2026-01-02T00:00:00.000Z") for utr in lost]
        file.writelines(TRANSACTIONS_LAYOUT.format_all(rows))
    office.restart()
    assert office.told("has 2 UTRs that the ledger does not know")
    new = office.pay(4)
    assert new > max(lost)
    office.restart()
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [known, new, *lost]


def test_a_record_with_unknown_utrs_that_is_put_there_meanwhile_lets_none_be_given_again(office: Office) -> None:
    known = office.pay(1)
    path = office.directory / TRANSACTIONS_LAYOUT.file_name
    strange = f"{known[:-8]}{int(known[-8:]) + 7:08}"
    other = path.with_suffix(".new")
    other.write_text(path.read_text() + path.read_text().splitlines()[-1].replace(known, strange) + "\n")
    other.rename(path)
    office.look()
    assert office.told("has 1 UTRs that the ledger does not know")
    assert int(office.pay(2)[-8:]) == int(strange[-8:]) + 1


def test_a_failed_write_is_made_up_for_a_second_later(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paygate.files.append_file.AppendFile.append", failing)
        first = office.pay(1)
    assert office.told("No space left on device")
    second = office.pay(2)
    office.look()
    assert [row[0] for row in office.rows(TRANSACTIONS_LAYOUT)] == [first, second]
    assert office.rows(USERS_LAYOUT)[0][3] == "47500.00"


def test_export_writes_all_records(office: Office, tmp_path: Path) -> None:
    office.pay(1)
    target = tmp_path / "export"
    target.mkdir()
    export_records(target, office.books.ledger, IDENTITY.currency)
    for layout in (USERS_LAYOUT, MERCHANTS_LAYOUT, TRANSACTIONS_LAYOUT):
        assert (target / layout.file_name).read_text() == office.text(layout)
        assert (target / layout.file_name).stat().st_mode & 0o077 == 0


def test_a_file_that_fails_when_it_is_closed_ends_nothing_and_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: SharedFile) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))

    with monkeypatch.context() as patch:
        patch.setattr(SharedFile, "_save_untaken", failing)
        office.records.close()
    assert office.told("lines that were added to Merchant.txt could not be kept ([Errno 5] Input/output error:")
    assert office.told("lines that were added to NetbankingUsers.txt could not be kept")
    office.records = office.open()
