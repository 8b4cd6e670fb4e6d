"""What must be so after a round, found out from files: stores, text records, the clients' records and their output.

The expectations are kept here, from what was put in and what the programs have told; they ask nothing of the programs.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import apsw
from crash.system import GATEWAY_ID, Violation

from paygate.bank.ledger import FREE_FAILURE_COUNT
from paygate.bank.server import open_ledger
from paygate.codec.codes import TransferOutcome
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import Terms
from paygate.gateway.settings import STORE_NAME
from paygate.gateway.sqlite_tokens import SqliteTokens

DEFINITE: Final = frozenset({"paid", "declined", "refused", "not-forwarded", "not-posted"})
"""States of a client's record that answer its question."""
POSTED: Final = int(TransferOutcome.POSTED)


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of the bank, with canaries for a user ID and a password."""

    customer_id: str
    user_id: str
    password: str
    opening_minor: int


@dataclass(frozen=True, slots=True)
class Token:
    """A payment token that was put in."""

    transaction_id: str
    passcode: str
    amount_minor: int
    merchant_id: str


@dataclass(frozen=True, slots=True)
class Paid:
    """A row of the ledger."""

    payment_id: str
    transaction_id: str
    outcome: int
    utr: str
    receipt: str
    amount_minor: int
    merchant_id: str


@dataclass(slots=True)
class Books:
    """What was put in, and what was told; `check` holds a stopped system against it."""

    customers: dict[str, Customer]
    merchants: dict[str, int]
    """Opening balances."""
    tokens: dict[str, Token]
    cancelled: set[str] = field(default_factory=set)
    """Tokens that were certainly withdrawn."""
    may_be_missing: set[str] = field(default_factory=set)
    """What was put in by a command that was killed: accounts, tokens. It is there whole, or not at all."""
    passwords: list[str] = field(default_factory=list)
    """Of accounts that nobody pays with, which so are among the merchants here."""
    told: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """By payment ID: outcome, UTR and receipt that a program told a customer."""
    wrong_count: Counter[str] = field(default_factory=Counter)
    """By customer: declines of a wrong password that were told."""

    def note_output(self, output: str) -> list[dict[str, Any]]:
        """Take down what a client told; gives its results."""
        results = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for result in results:
            if result["payment_id"] and result["receipt"]:
                told = (result["outcome"], result["utr"] or "", result["receipt"])
                before = self.told.setdefault(result["payment_id"], told)
                _hold(before == told, "I3", f"payment {result['payment_id']}: told {before[:2]} and then {told[:2]}")
        return results

    def check(self, root: Path) -> None:
        """Hold a system whose servers have ended against the books. Raises Violation."""
        records = {
            customer_id: client_records(root / "clients" / customer_id)
            for customer_id in self.customers
            if (root / "clients" / customer_id / "payments").is_dir()
        }
        with _copy(root) as copy:
            ledger = _Ledger(copy / "bank")
            with closing(SqliteTokens(copy / "gateway" / STORE_NAME)) as store:
                gateway_tokens, gateway_payments = list(store.tokens()), list(store.payments())
        payer_of = {r["terms"]["payment_id"]: customer_id for customer_id, rs in records.items() for r in rs}
        self._check_clients(records, ledger)
        self._check_money(payer_of, ledger)
        self._check_gateway(gateway_tokens, gateway_payments, ledger)
        self._check_bank_files(root / "bank", payer_of, ledger)
        self._check_gateway_files(root / "gateway", gateway_tokens, gateway_payments)
        self._check_secrets(root)

    # -- the invariants --------------------------------------------------------------------------------

    def _check_clients(self, records: dict[str, list[dict[str, Any]]], ledger: "_Ledger") -> None:
        known = {}
        paid = {row.transaction_id for row in ledger.payments.values() if row.outcome == POSTED}
        for customer_id, of_customer in records.items():
            for record in of_customer:
                payment_id = record["terms"]["payment_id"]
                known[payment_id] = record
                state, row = record["state"], ledger.payments.get(payment_id)
                where = f"payment {payment_id} of {customer_id}"
                _hold(state in DEFINITE, "I9", f"{where}: no definite answer after everything runs again ({state})")
                if state in ("paid", "declined"):
                    _hold(row is not None, "I3", f"{where}: {state} by a receipt, and not in the ledger")
                    assert row is not None
                    _hold((row.outcome == POSTED) is (state == "paid"), "I6", f"{where}: {state}, ledger {row.outcome}")
                    _hold((row.utr, row.receipt) == (record["utr"], record["receipt"]), "I6", f"{where}: other receipt")
                else:
                    _hold(row is None or row.outcome != POSTED, "I6", f"{where}: {state}, and money has moved")
                if state == "not-posted":
                    _hold(record["terms"]["transaction_id"] in paid, "I6", f"{where}: no other one has paid its token")
        for payment_id, (outcome, utr, receipt) in self.told.items():
            row = ledger.payments.get(payment_id)
            _hold(row is not None, "I3", f"payment {payment_id}: the customer was told {outcome}; not in the ledger")
            assert row is not None
            is_same = ((row.outcome == POSTED), row.utr, row.receipt) == (outcome == "paid", utr, receipt)
            _hold(is_same, "I3", f"payment {payment_id}: told {outcome} {utr}, the ledger says {row.outcome} {row.utr}")
        unknown = sorted(ledger.payments.keys() - known.keys())
        _hold(not unknown, "I6", f"payments in the ledger without a record at a client: {unknown}")

    def _check_money(self, payer_of: dict[str, str], ledger: "_Ledger") -> None:
        posted = [row for row in ledger.payments.values() if row.outcome == POSTED]
        twice = [name for name, count in Counter(row.transaction_id for row in posted).items() if count > 1]
        _hold(not twice, "I2", f"tokens debited more than once: {twice}")
        same = [utr for utr, count in Counter(row.utr for row in posted).items() if count > 1]
        _hold(not same, "I5", f"UTRs given out more than once: {same}")
        expected = {c.customer_id: c.opening_minor for c in self.customers.values()}
        expected |= self.merchants
        for row in posted:
            token = self.tokens[row.transaction_id]
            _hold(
                (row.amount_minor, row.merchant_id) == (token.amount_minor, token.merchant_id), "I1", f"terms of {row}"
            )
            expected[payer_of[row.payment_id]] -= row.amount_minor
            expected[row.merchant_id] += row.amount_minor
        for name, minor in expected.items():
            if name in ledger.balances or name not in self.may_be_missing:
                _hold(ledger.balances.get(name) == minor, "I1", f"{name} has {ledger.balances.get(name)}, not {minor}")
        _hold(ledger.balances.keys() <= expected.keys(), "I1", "accounts that nobody opened")
        _hold(min(ledger.balances.values()) >= 0, "I1", "a balance is negative")
        for customer_id, told_count in self.wrong_count.items():
            found = ledger.failure_counts[customer_id]
            # The next one after those locks the account, and while it is locked none is looked at.
            count = min(told_count, FREE_FAILURE_COUNT + 1)
            _hold(found >= count, "T15", f"{customer_id}: {count} wrong passwords were told, {found} are counted")

    def _check_gateway(self, tokens: list[Any], payments: list[Any], ledger: "_Ledger") -> None:
        utr_of = {row.transaction_id: row.utr for row in ledger.payments.values() if row.outcome == POSTED}
        found = {token.transaction_id: token for token in tokens}
        missing = self.tokens.keys() - found.keys() - self.may_be_missing
        _hold(not missing, "I3", f"tokens that were issued and are not there: {sorted(missing)}")
        for name, token in found.items():
            state = token.state.value
            _hold(state != "in-flight", "I9", f"token {name} is in flight when everything has ended")
            _hold((state == "paid") is (name in utr_of), "I4", f"token {name} is {state}, UTR {utr_of.get(name)}")
            _hold(token.utr == utr_of.get(name, ""), "I4", f"token {name}: UTR {token.utr}, not {utr_of.get(name)}")
            if name in self.cancelled:
                _hold(state == "cancelled", "I3", f"token {name} was withdrawn and is {state}")
        for payment in payments:
            row = ledger.payments.get(payment.terms.payment_id.hex())
            _hold(row is not None, "I4", f"the gateway's payment {payment.terms.payment_id.hex()} is not at the bank")
            assert row is not None
            is_same = (int(payment.outcome or 0), payment.utr, payment.receipt.hex()) == (
                row.outcome,
                row.utr,
                row.receipt,
            )
            _hold(is_same, "I4", f"payment {row.payment_id}: gateway {payment.outcome}, bank {row.outcome}")

    def _check_bank_files(self, directory: Path, payer_of: dict[str, str], ledger: "_Ledger") -> None:
        for name, key, balance in (("NetbankingUsers.txt", 0, 3), ("Merchant.txt", 0, 2)):
            rows = text_rows(directory / name)
            _hold(len({row[key] for row in rows}) == len(rows), "I8", f"{name} has an account twice")
            for row in rows:
                minor = _minor(row[balance])
                _hold(ledger.balances.get(row[key]) == minor, "I8", f"{name}: {row[key]} has {minor}")
            is_customers = name.startswith("Net")
            accounts = (
                ledger.failure_counts.keys() if is_customers else ledger.balances.keys() - ledger.failure_counts.keys()
            )
            _hold({row[key] for row in rows} == set(accounts), "I8", f"{name} has not the ledger's accounts")
        rows = text_rows(directory / "TransactionID.txt")
        # Who paid stands in no receipt: after a restore this file alone tells who is to be debited again.
        told = sorted((*row[:3], _minor(row[3]), row[5]) for row in rows)
        posted = [row for row in ledger.payments.values() if row.outcome == POSTED]
        expected = sorted(
            (row.utr, payer_of[row.payment_id], row.merchant_id, row.amount_minor, row.transaction_id) for row in posted
        )
        _hold(
            told == expected, "I8", f"TransactionID.txt has {len(told)} rows that are not the ledger's {len(expected)}"
        )

    def _check_gateway_files(self, directory: Path, tokens: list[Any], payments: list[Any]) -> None:
        rows = text_rows(directory / "PaymentTokensData.txt")
        told = sorted((row[0], row[2], row[6]) for row in rows)
        expected = sorted((t.transaction_id, t.state.value, t.utr) for t in tokens)
        differ = sorted(set(told) ^ set(expected))
        _hold(told == expected, "I8", f"PaymentTokensData.txt is not what the store says: {differ[:6]}")
        rows = [row for row in text_rows(directory / "GatewayTransaction.txt") if row[6] != "refused"]
        told = sorted((row[1], row[6], row[8]) for row in rows)
        words = {True: "paid", False: "declined"}
        expected = sorted((p.terms.payment_id.hex(), words[int(p.outcome) == POSTED], p.utr) for p in payments)
        _hold(told == expected, "I8", f"GatewayTransaction.txt is not what the store says: {set(told) ^ set(expected)}")
        events = Counter((row[1], *row[2:5]) for row in text_rows(directory / "LogFiles.txt"))
        for (event, *which), count in events.items():
            if event in ("connected", "disconnected"):
                other = events["disconnected" if event == "connected" else "connected", *which]
                _hold(
                    count == other, "I8", f"LogFiles.txt: link {which} {event} {count} times, the other {other} (T22)"
                )

    def _check_secrets(self, root: Path) -> None:
        passwords = [text.encode() for text in (*(c.password for c in self.customers.values()), *self.passwords)]
        user_ids = [c.user_id.encode() for c in self.customers.values()]
        for path in sorted(root.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                # The bank knows its customers' user IDs; nobody keeps a password.
                needles = passwords if path.is_relative_to(root / "bank") else passwords + user_ids
                for needle in needles:
                    _hold(needle not in data, "I7", f"a canary ({needle.decode()}) is in {path}")


def _hold(holds: bool, invariant: str, text: str) -> None:
    if not holds:
        raise Violation(f"{invariant}: {text}")


# -- reading ---------------------------------------------------------------------------------------------


class _Ledger:
    """A ledger's rows, once it has verified itself."""

    def __init__(self, directory: Path) -> None:
        with closing(open_ledger(directory)) as ledger:
            customers = list(ledger.customers())
            self.balances = {c.customer_id: c.balance_minor for c in customers}
            self.balances |= {m.merchant_id: m.balance_minor for m in ledger.merchants()}
            self.failure_counts = {c.customer_id: c.failure_count for c in customers}
        with closing(apsw.Connection(str(directory / "ledger.sqlite"))) as connection:
            rows: list[Any] = connection.execute(
                "SELECT gateway_id, payment_id, outcome, utr, receipt, terms FROM payment"
            ).fetchall()
        self.payments: dict[str, Paid] = {}
        for gateway_id, payment_id, outcome, utr, receipt, encoded in rows:
            _hold(gateway_id == GATEWAY_ID, "I1", f"a payment of gateway {gateway_id}")
            terms = decode_record(Terms, encoded)
            row = (terms.transaction_id, outcome, utr or "", receipt.hex(), terms.amount_minor, terms.merchant_id)
            self.payments[payment_id.hex()] = Paid(payment_id.hex(), *row)


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    """A copy of the two stores, since looking into one may change its files."""
    copy = root.with_name(f"{root.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("bank", "gateway"):
        (copy / name).mkdir(parents=True, mode=0o700)
        for path in (root / name).iterdir():
            if path.is_file() and path.suffix in (".json", ".key", ".sqlite", ".sqlite-wal"):
                shutil.copy(path, copy / name / path.name)
    yield copy
    shutil.rmtree(copy)


def client_records(directory: Path) -> list[dict[str, Any]]:
    """The payments that a client has written down."""
    paths = [path for path in (directory / "payments").glob("*.json") if not path.name.startswith(".")]
    return [json.loads(path.read_bytes()) for path in sorted(paths)]


def text_rows(path: Path) -> list[list[str]]:
    """The rows of a text record, comments left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[f.strip() for f in line.split("|")] for line in lines if line.strip() and not line.startswith("#")]


def _minor(text: str) -> int:
    return int(Decimal(text) * 100)
