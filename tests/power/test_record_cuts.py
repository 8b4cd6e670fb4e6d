"""The servers' text records under power cuts: whatever is left, the next start makes them say what the store says.

They are not synced, and need not be: they are never what recovery trusts. But what a cut makes of them, torn lines
with zeros and garbage in them, must neither keep a server from starting nor make up an account, a token or a payment.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from bank_books import ENVELOPE_HASH, IDENTITY, VERIFIER, build_transfer, payment_id
from builders import BANK_ID, CHEAP_PASSWORD_KEY, NOW_MS, PASSCODE, build_terms
from disk_model import Files, Image
from gateway.world import ADDRESS
from memory_disk import MemoryDisk
from power.bank_story import BankStory
from power.os_trace import OsTrace, image_of, write_out
from power.token_story import TokenStory

from paygate.bank.ledger import PaymentOutcome
from paygate.bank.record_lines import (
    MERCHANTS_LAYOUT,
    TRANSACTIONS_LAYOUT,
    USERS_LAYOUT,
    customer_row,
    merchant_row,
    transaction_row,
)
from paygate.bank.records import BankRecords
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.messages import MakeVerifier
from paygate.files.layout import FieldProblem, Layout
from paygate.gateway.effects import ConnectionRecord, RefusalRecord
from paygate.gateway.record_lines import PAYMENTS_LAYOUT, REFUSED, TOKENS_LAYOUT, parse_token, payment_row, token_row
from paygate.gateway.records import GatewayRecords
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import BeginPayment, PaymentBegun, PaymentSettled, SettlePayment

NOW = Now(1_000_000, NOW_MS)
TEARING_COUNT = 1


def cuts_of(
    directory: Path, disk: MemoryDisk, story: Callable[[Path], None]
) -> Iterator[tuple[dict[str, bytes], Image]]:
    """The files and the store's disk after cuts before each operation on the files."""
    root = directory / "records"
    root.mkdir(mode=0o700)
    before = image_of(root)
    trace = OsTrace(root)
    stores = [disk.image()]
    trace.on_operation = lambda: stores.append(disk.image())
    with trace.recording():
        story(root)
    trace.check(before)
    files = Files(before)
    for point, store in enumerate(stores):
        for tearing in range(TEARING_COUNT):
            randomness = Random(f"{point} {tearing}")
            yield Files(files.after_cut(randomness)[0]).contents(), Files(store).after_cut(randomness)[0]
        if point < len(trace.operations):
            files.do(trace.operations[point])


def add_lines(path: Path, *lines: str) -> None:
    """As somebody does who sees to it that they are on disk."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, "".join(f"{line}\n" for line in lines).encode())
    os.fsync(fd)
    os.close(fd)


def rows_in(path: Path, layout: Layout) -> list[tuple[str, ...]]:
    """What the lines say that have the form of a row."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(FieldProblem):
            if line.strip() and not line.startswith(b"#"):
                rows.append(layout.parse(line))
    return rows


# -- the bank ----------------------------------------------------------------------------------------------------

CUSTOMERS = {f"C-{n}": f"C-{n} | user-{n} | verifier:{VERIFIER.hex()} | {1_000 + n}.00" for n in range(1, 30)}
MERCHANTS = {f"M-{n}": f"M-{n} | Shop number {n} | {n}.50" for n in range(1, 60)}
OPENED_MINOR = {name: 100_000 + 100 * int(name[2:]) for name in CUSTOMERS} | {
    name: 50 + 100 * int(name[2:]) for name in MERCHANTS
}


def fake_verifiers(requests: Sequence[MakeVerifier]) -> list[bytes]:
    return [hashlib.sha256(request.password.encode()).digest() for request in requests]


def open_bank(directory: Path, ledger: SqliteLedger) -> BankRecords:
    records = BankRecords(directory, ledger, BANK_ID, IDENTITY.currency, CHEAP_PASSWORD_KEY, lambda _: None)
    records.heal(NOW, fake_verifiers)
    return records


def test_the_banks_records_say_what_the_ledger_says_after_any_cut(tmp_path: Path) -> None:
    disk = MemoryDisk("ledger before")
    opener = BankStory(0)

    def day(directory: Path) -> None:
        ledger = opener.open(disk.name)
        records = open_bank(directory, ledger)
        add_lines(directory / USERS_LAYOUT.file_name, *CUSTOMERS.values())
        add_lines(directory / MERCHANTS_LAYOUT.file_name, *MERCHANTS.values())
        records.take_in(NOW, fake_verifiers(records.look()))
        for number in range(24):
            transfer = build_transfer(
                user_id=f"user-{1 + number % 7}",
                payment_id=payment_id(number),
                transaction_id=f"TX-{number}",
                merchant_id=f"M-{1 + number % 5}",
                amount_minor=100 + number,
            )
            (outcome,) = ledger.apply([transfer], NOW)
            assert isinstance(outcome, PaymentOutcome)
            assert outcome.posted is not None
            records.record([outcome.posted])
            if number == 12:
                records.close()
                ledger.close()
                ledger = opener.open(disk.name)
                (directory / TRANSACTIONS_LAYOUT.file_name).unlink()  # so that it is built anew
                records = open_bank(directory, ledger)
        records.close()
        ledger.close()

    other, after = tmp_path / "after", MemoryDisk("ledger after")
    for contents, store in cuts_of(tmp_path, disk, day):
        write_out(contents, other)
        after.restore(store)
        ledger = opener.open(after.name)
        records = open_bank(other, ledger)
        check_bank(other, ledger)
        records.close()
        ledger.close()
        shutil.rmtree(other)


def check_bank(directory: Path, ledger: SqliteLedger) -> None:
    customers, merchants, postings = list(ledger.customers()), list(ledger.merchants()), list(ledger.postings())
    names = [c.customer_id for c in customers] + [m.merchant_id for m in merchants]
    assert set(names) <= set(OPENED_MINOR), "an account was made up"
    held_minor = sum(c.balance_minor for c in customers) + sum(m.balance_minor for m in merchants)
    assert held_minor == sum(OPENED_MINOR[name] for name in names), "money was made up"
    expected = {
        USERS_LAYOUT: [customer_row(c, IDENTITY.currency) for c in customers],
        MERCHANTS_LAYOUT: [merchant_row(m, IDENTITY.currency) for m in merchants],
        TRANSACTIONS_LAYOUT: [transaction_row(p) for p in postings],
    }
    for layout, rows in expected.items():
        found = rows_in(directory / layout.file_name, layout)
        if layout is TRANSACTIONS_LAYOUT:
            assert found == rows
        else:
            # Lines that a cut made of others are not an account's, and are left for people to look at.
            assert sorted(row for row in found if row[0] in names) == sorted(rows)


# -- the gateway -------------------------------------------------------------------------------------------------

TOKENS = {f"TX-{n}": f"TX-{n} | {PASSCODE} | unpaid | {1_000 + n}.00 | M-100 | INR" for n in range(1, 60)}


def connected(number: int) -> ConnectionRecord:
    return ConnectionRecord(NOW_MS, "connected", number, ADDRESS)


def refused(number: int) -> RefusalRecord:
    terms = build_terms(payment_id=payment_id(1_000 + number), transaction_id=f"TX-{number}")
    return RefusalRecord(NOW_MS, terms, Reason.TOKEN_IN_FLIGHT)


def is_token(row: tuple[str, ...]) -> bool:
    """Whether the gateway would take it for one. What a cut made of others is told, and left for people to look at."""
    with suppress(FieldProblem):
        parse_token(row)
        return True
    return False


def open_gateway(directory: Path, store: SqliteTokens) -> GatewayRecords:
    records = GatewayRecords(directory, store, lambda _: None)
    records.heal(NOW)
    return records


def test_the_gateways_records_say_what_the_store_says_after_any_cut(tmp_path: Path) -> None:
    disk = MemoryDisk("tokens before")
    opener = TokenStory(0)

    def day(directory: Path) -> None:
        store = opener.open(disk.name)
        records = open_gateway(directory, store)
        add_lines(directory / TOKENS_LAYOUT.file_name, *TOKENS.values())
        records.poll(NOW)
        for number in range(1, 20):
            terms = build_terms(payment_id=payment_id(number), transaction_id=f"TX-{number}")
            (begun,) = store.apply([BeginPayment(terms, ENVELOPE_HASH)], NOW)
            assert isinstance(begun, PaymentBegun)
            assert begun.payment is not None
            assert begun.token is not None
            records.record([begun.payment, begun.token, connected(number), refused(number)])
            utr = f"PGBKP120260102{number:08d}" if number % 3 else ""
            outcome = TransferOutcome.POSTED if utr else TransferOutcome.DECLINED
            reason = Reason.NONE if utr else Reason.FUNDS
            (settled,) = store.apply([SettlePayment(terms.payment_id, outcome, reason, utr, b"receipt")], NOW)
            assert isinstance(settled, PaymentSettled)
            assert settled.payment is not None
            assert settled.token is not None
            records.record([settled.payment, settled.token, replace(connected(number), event="disconnected")])
            if number == 9:
                records.close()
                store.close()
                store = opener.open(disk.name)
                records = open_gateway(directory, store)
        records.close()
        store.close()

    other, after = tmp_path / "after", MemoryDisk("tokens after")
    for contents, image in cuts_of(tmp_path, disk, day):
        write_out(contents, other)
        after.restore(image)
        store = opener.open(after.name)
        records = open_gateway(other, store)
        tokens, payments = list(store.tokens()), list(store.payments())
        assert {t.transaction_id for t in tokens} <= set(TOKENS), "a token was made up"
        assert all(t.amount_minor == 100_000 + 100 * int(t.transaction_id[3:]) for t in tokens)
        found = filter(is_token, rows_in(other / TOKENS_LAYOUT.file_name, TOKENS_LAYOUT))
        assert sorted(found) == sorted(map(token_row, tokens))
        attempts = rows_in(other / PAYMENTS_LAYOUT.file_name, PAYMENTS_LAYOUT)
        assert [row for row in attempts if row[6] != REFUSED] == [payment_row(payment) for payment in payments]
        records.close()
        store.close()
        shutil.rmtree(other)
