"""The bank's text records: what people read and add accounts to; never what recovery trusts (R16 to R18)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from paygate.bank.ledger import AccountOutcome, Ledger, OpenCustomer, OpenMerchant, Posted, Posting, utr_steps_ahead
from paygate.bank.record_lines import (
    MERCHANTS_LAYOUT,
    TRANSACTIONS_LAYOUT,
    USERS_LAYOUT,
    CustomerLine,
    customer_row,
    merchant_row,
    parse_customer,
    parse_merchant,
    transaction_row,
)
from paygate.clock import Now
from paygate.codec.fields import UTR_OR_EMPTY
from paygate.codec.messages import MakeVerifier
from paygate.codec.money import format_amount
from paygate.codec.sealed import PasswordKeyParameters
from paygate.files.durable import replace_file
from paygate.files.sqlite import StoreCorrupt, StoreFull
from paygate.files.text_records import AppendFile, ChangingColumns, FieldProblem, Layout, RawLine, SharedFile

_APPENDED_COUNT: Final = 10_000  # rows gathered for one write while TransactionID.txt is mended


# -- files that people add accounts to -------------------------------------------------------------------

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)


class _Accounts(Protocol[D_co]):
    """What a shared file needs to know of its accounts."""

    layout: Layout

    def parse(self, fields: Sequence[str]) -> D_co:
        """A new account from a line's fields. Raises FieldProblem."""

    def row(self, key: str) -> tuple[str, ...] | None:
        """The row of a known account, by its first field."""

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The rows of all accounts."""


class _CustomerAccounts:
    layout = USERS_LAYOUT

    def __init__(self, ledger: Ledger, currency: str) -> None:
        self._ledger = ledger
        self._currency = currency

    def parse(self, fields: Sequence[str]) -> CustomerLine:
        return parse_customer(fields, self._currency)

    def row(self, key: str) -> tuple[str, ...] | None:
        customer = self._ledger.find_customer(key)
        return customer_row(customer, self._currency) if customer else None

    def rows(self) -> Iterator[tuple[str, ...]]:
        return (customer_row(customer, self._currency) for customer in self._ledger.customers())


class _MerchantAccounts:
    layout = MERCHANTS_LAYOUT

    def __init__(self, ledger: Ledger, currency: str) -> None:
        self._ledger = ledger
        self._currency = currency

    def parse(self, fields: Sequence[str]) -> OpenMerchant:
        return parse_merchant(fields, self._currency)

    def row(self, key: str) -> tuple[str, ...] | None:
        merchant = self._ledger.find_merchant(key)
        return merchant_row(merchant, self._currency) if merchant else None

    def rows(self) -> Iterator[tuple[str, ...]]:
        return (merchant_row(merchant, self._currency) for merchant in self._ledger.merchants())


class _AccountFile(Generic[D]):
    """One shared file, with the lines that wait to be taken in."""

    def __init__(self, directory: Path, accounts: _Accounts[D], log: Callable[[str], None]) -> None:
        self._accounts = accounts
        self._file = SharedFile(directory, accounts.layout)
        self._balance = ChangingColumns(accounts.layout, accounts.layout.columns[-1].name)
        self._log = log
        self.pending: list[tuple[RawLine, D]] = []
        """Good lines of new accounts. Until they are taken in the file is not polled again."""
        self._known: list[RawLine] = []
        self._refused: list[tuple[RawLine, FieldProblem]] = []
        """Told once the file is as people will find it, since a rewrite gives lines other numbers."""
        self._is_starting = False

    def pass_over_known(self) -> None:
        """At start: leave the rows to the first poll that are not as the ledger has them. Raises OSError."""
        self._file.pass_over_known(self._accounts.rows())
        self._is_starting = True

    def poll(self) -> None:
        """Sort out the lines that came since the last poll. Raises OSError."""
        if self.pending:
            return
        news = self._file.poll()
        for problem in news.problems:
            self._log(str(problem))
        stale_count = 0
        for line in news.lines:
            try:
                fields = self._accounts.layout.parse(line.raw)
                row = self._accounts.row(fields[0])
                if row is None:
                    self.pending.append((line, self._accounts.parse(fields)))
                    continue
                self._known.append(line)
                if row != fields:
                    if self._is_starting and row[:-1] == fields[:-1]:
                        stale_count += 1
                    else:
                        self._tell_known(fields[0])
            except FieldProblem as bad:
                self._refused.append((line, bad))
        self._is_starting = False
        if stale_count:  # A kill leaves as many as had changed in the last moments.
            text = f"balances behind the ledger, or edited: {stale_count}; they say again what the ledger says"
            self._log(f"{self._accounts.layout.file_name}: {text}")

    def take_in(self, outcomes: Sequence[AccountOutcome]) -> None:
        """Put rows in the place of the pending lines, by what became of each. Raises OSError."""
        columns = self._accounts.layout.columns
        taken: list[tuple[RawLine, tuple[str, ...] | None]] = [(line, None) for line in self._known]
        for (line, _), outcome in zip(self.pending, outcomes, strict=True):
            key = self._accounts.layout.parse(line.raw)[0]
            if outcome is AccountOutcome.OPENED:
                taken.append((line, self._accounts.row(key)))
            elif outcome is AccountOutcome.KNOWN:
                taken.append((line, None))
                self._tell_known(key)
            elif outcome is AccountOutcome.USER_ID_TAKEN:
                self._refused.append((line, FieldProblem("user ID", "one that no other customer has", "")))
            else:
                expected = "an amount with which the bank's books can still count all its money"
                self._refused.append((line, FieldProblem(columns[-1].name, expected, "more")))
        self.pending, self._known = [], []
        try:
            if not self._file.take_in_all(taken):
                self.rewrite()
        finally:
            for line, bad in self._refused:
                self._log(self._accounts.layout.refusal(self._file.number_of(line), bad))
            self._refused.clear()

    def update(self, balances: Mapping[str, Sequence[str]]) -> None:
        """Change balances in place. Raises OSError."""
        # With lines pending the rewrite waits until they are taken in, since it would part with them.
        if balances and not self._file.update(self._balance, balances) and not (self.pending or self._known):
            self.rewrite()

    def rewrite(self) -> None:
        """Build the file anew from the ledger. Raises OSError."""
        self._file.rewrite(self._accounts.rows())

    def close(self) -> None:
        """Close the file, whatever its disk does: it is no part of the truth, and the next start heals it."""
        try:
            self._file.close()
        except OSError as error:
            self._log(f"lines that were added to {self._accounts.layout.file_name} could not be kept ({error})")

    def _tell_known(self, key: str) -> None:
        bad = FieldProblem(self._accounts.layout.columns[0].name, "a new one", key)
        text = "this account is known and can't be changed here; its line says again what the ledger says"
        self._log(f"{self._accounts.layout.problem(0, bad)}; {text}")


# -- the bank's three files ------------------------------------------------------------------------------


class BankRecords:
    """The three files, kept in step with the ledger."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        bank_id: str,
        currency: str,
        password_key: PasswordKeyParameters,
        log: Callable[[str], None],
    ) -> None:
        """Open or make the files. `log` gets one line for whatever a person should know. Raises OSError."""
        self._ledger = ledger
        self._bank_id = bank_id
        self._currency = currency
        self._password_key = password_key
        self._log = log
        self._customers = _AccountFile(directory, _CustomerAccounts(ledger, currency), log)
        self._merchants = _AccountFile(directory, _MerchantAccounts(ledger, currency), log)
        self._transactions = AppendFile(directory, TRANSACTIONS_LAYOUT)
        self._is_behind = False
        self._forget_new()

    def close(self) -> None:
        """Write what is noted, and close the files."""
        self.write()
        self._customers.close()
        self._merchants.close()
        self._transactions.close()

    def heal(self, now: Now, make_verifiers: Callable[[Sequence[MakeVerifier]], list[bytes]]) -> None:
        """At start: take new lines in, and bring every file to what the ledger says. Raises OSError, StoreError.

        StoreCorrupt if TransactionID.txt tells of payments after the ledger's last; then nothing was changed.
        """
        self._ledger.start_clock(now)
        self._mend_transactions(is_start=True)
        self._customers.pass_over_known()
        self._merchants.pass_over_known()
        self.take_in(now, make_verifiers(self.look()))

    # -- every second ----------------------------------------------------------------------------------

    def look(self) -> list[MakeVerifier]:
        """Look for new lines, and give the plain passwords whose verifiers `take_in` needs. Raises OSError.

        Until `take_in` has been called it gives the same again.
        """
        if self._is_behind:
            self._mend()
        if self._transactions.check():
            self._log(f"{TRANSACTIONS_LAYOUT.file_name} was moved away or cut; it is built anew")
            self._mend_transactions()
        self._customers.poll()
        self._merchants.poll()
        return [
            MakeVerifier(self._bank_id, self._password_key, line.user_id, line.password)
            for _, line in self._customers.pending
            if line.password is not None
        ]

    def take_in(self, now: Now, verifiers: Sequence[bytes]) -> None:
        """Open the accounts that `look` found; `verifiers` are of its passwords, in order.

        With a full disk the lines wait. Raises OSError, StoreError.
        """
        made = iter(verifiers)
        customers = [
            OpenCustomer(line.customer_id, line.user_id, line.verifier or next(made), line.amount_minor)
            for _, line in self._customers.pending
        ]
        merchants = [merchant for _, merchant in self._merchants.pending]
        try:
            outcomes = self._ledger.apply([*customers, *merchants], now) if customers or merchants else []
        except StoreFull as full:
            self._log(f"new accounts wait: {full}")
            return
        account_outcomes = [outcome for outcome in outcomes if isinstance(outcome, AccountOutcome)]
        self._customers.take_in(account_outcomes[: len(customers)])
        self._merchants.take_in(account_outcomes[len(customers) :])

    # -- every tick ------------------------------------------------------------------------------------

    def record(self, moved: Iterable[Posted]) -> None:
        """`note` and `write` at once."""
        self.note(moved)
        self.write()

    def note(self, moved: Iterable[Posted]) -> bool:
        """Remember what a tick's payments change in the files; gives whether anything is to be written.

        A balance that changes again before `write` is written once.
        """
        if not self._is_behind:
            for posted in moved:
                posting = posted.posting
                self._new_postings.append(posting)
                self._new_payers[posting.customer_id] = posted.customer_balance_minor
                self._new_payees[posting.merchant_id] = posted.merchant_balance_minor
        return bool(self._new_payers)

    def write(self) -> None:
        """Bring the files up to date. A failure is logged, and mended a second later."""
        postings, payers, payees = self._new_postings, self._new_payers, self._new_payees
        self._forget_new()
        if self._is_behind:
            return
        try:
            self._transactions.append([transaction_row(posting) for posting in postings])
            self._customers.update(self._balances(payers))
            self._merchants.update(self._balances(payees))
        except OSError as error:
            self._is_behind = True
            self._log(f"the text records could not be written ({error.strerror}); trying again")

    def _forget_new(self) -> None:
        self._new_postings: list[Posting] = []
        self._new_payers: dict[str, int] = {}
        self._new_payees: dict[str, int] = {}

    def _balances(self, minor_of: Mapping[str, int]) -> dict[str, tuple[str]]:
        return {key: (format_amount(minor, self._currency),) for key, minor in minor_of.items()}

    # -- from the ledger -------------------------------------------------------------------------------

    def _mend(self) -> None:
        self._is_behind = True
        self._mend_transactions()
        if not self._customers.pending:
            self._customers.rewrite()
        if not self._merchants.pending:
            self._merchants.rewrite()
        # A file with lines pending is built anew once they are taken in.
        self._is_behind = bool(self._customers.pending or self._merchants.pending)

    def _mend_transactions(self, *, is_start: bool = False) -> None:
        """Add what is missing; if the file says anything else than the ledger, build it anew."""
        self._new_postings.clear()  # The ledger has them.
        missing: list[tuple[str, ...]] = []
        lines = self._transactions.lines()
        for row, expected in TRANSACTIONS_LAYOUT.formatted(map(transaction_row, self._ledger.postings())):
            _, _, line = next(lines, (0, 0, None))
            if line is None:
                missing.append(row)
            elif line != expected[:-1] and not self._says(line, row):
                self._rebuild_transactions(is_start=is_start)
                return
            if len(missing) >= _APPENDED_COUNT:
                self._transactions.append(missing)
                missing.clear()
        if next(lines, None) is not None:
            self._rebuild_transactions(is_start=is_start)
            return
        self._transactions.append(missing)

    def _says(self, line: bytes, row: tuple[str, ...]) -> bool:
        """Whether a line that looks otherwise says the same."""
        try:
            return TRANSACTIONS_LAYOUT.parse(line) == row
        except FieldProblem:
            return False

    def _rebuild_transactions(self, *, is_start: bool) -> None:
        utrs = {posting.utr for posting in self._ledger.postings()}
        unknown = [
            row.fields
            for row in self._transactions.rows(lambda problem: self._log(f"{problem}; the line is left out"))
            if row.fields[0] not in utrs and row.fields[0] and UTR_OR_EMPTY.is_legal(row.fields[0])
        ]
        ahead = {fields[0]: steps for fields in unknown if (steps := self._steps_ahead(fields[0]))}
        if ahead and is_start:
            raise _older_ledger(len(ahead), min(ahead, key=ahead.__getitem__))
        if unknown:
            # A restored bank's, which money moved under; it passed them over. So they are never given out again.
            self._log(
                f"{TRANSACTIONS_LAYOUT.file_name} has {len(unknown)} UTRs that the ledger does not know, the last "
                f"{unknown[-1][0]}: 'reconcile' enters what a gateway can prove. They are kept in the file"
            )
            self._ledger.skip_utrs(self._ledger.utr_sequence + max(ahead.values(), default=0))

        def rows() -> Iterator[tuple[str, ...]]:
            yield from (transaction_row(posting) for posting in self._ledger.postings())
            yield from unknown

        self._transactions.rewrite(rows())

    def _steps_ahead(self, utr: str) -> int:
        return utr_steps_ahead(utr, self._ledger.utr_sequence, self._ledger.bank_time_ms)


def _older_ledger(count: int, first_utr: str) -> StoreCorrupt:
    # T6: a payment is in the ledger before it is in the record. An older copy would post these again, and may miss
    # fences that it can't know of, so it is no matter of some lines: only a restore keeps it from both.
    return StoreCorrupt(
        f"the ledger is older than {TRANSACTIONS_LAYOUT.file_name}, which tells of {count} later payments, from UTR "
        f"{first_utr} on, and would post them again. Put the newer ledger back; if it is lost, make a 'paygate-bank "
        "backup' of this one, 'restore' that into a new directory with --keys and --transactions of this one, and "
        "'reconcile'. Lines that nobody paid under may be taken out"
    )


def export_records(directory: Path, ledger: Ledger, currency: str) -> None:
    """All records as text files in a directory. Raises OSError."""
    files: tuple[tuple[Layout, Iterable[tuple[str, ...]]], ...] = (
        (USERS_LAYOUT, (customer_row(customer, currency) for customer in ledger.customers())),
        (MERCHANTS_LAYOUT, (merchant_row(merchant, currency) for merchant in ledger.merchants())),
        (TRANSACTIONS_LAYOUT, (transaction_row(posting) for posting in ledger.postings())),
    )
    for layout, rows in files:
        replace_file(directory / layout.file_name, _text(layout, rows))


def _text(layout: Layout, rows: Iterable[tuple[str, ...]]) -> Iterator[bytes]:
    yield layout.header
    yield from (line for _, line in layout.formatted(rows))
