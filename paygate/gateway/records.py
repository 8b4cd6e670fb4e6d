"""The gateway's text records: what people read and merchants add to; never what recovery trusts (R13 to R15)."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from paygate.clock import Now, utc_text
from paygate.codec import limits
from paygate.effects import Effect
from paygate.files.sqlite import StoreFull
from paygate.files.text_records import ROW_SIZE_MAX, AppendFile, ChangingColumns, FieldProblem, RawLine, SharedFile
from paygate.gateway.effects import ConnectionRecord, RefusalRecord
from paygate.gateway.record_lines import (
    CONNECTIONS_LAYOUT,
    PAYMENTS_LAYOUT,
    REFUSED,
    TOKENS_LAYOUT,
    connection_row,
    outcome_fields,
    parse_token,
    payment_row,
    refusal_row,
    token_row,
)
from paygate.gateway.tokens import CancelToken, IssueToken, Payment, Token, TokenState, TokenStore, TokenTaken

_TOKEN_STATE: Final = ChangingColumns(TOKENS_LAYOUT, "paid/unpaid", "UTR")
_OUTCOME: Final = ChangingColumns(PAYMENTS_LAYOUT, "outcome", "reason", "UTR", "ended")
_OUTCOME_INDEX: Final = [column.name for column in PAYMENTS_LAYOUT.columns].index("outcome")
_ORPHAN_REASON: Final = "the gateway ended without closing it"
UNWRITTEN_COUNT_MAX: Final = 100_000
"""Connections and refusals that wait in memory for room on the disk; of more, the oldest are given up."""


class GatewayRecords:
    """The three files, kept in step with the store."""

    def __init__(self, directory: Path, store: TokenStore, log: Callable[[str], None]) -> None:
        """Open or make the files. `log` gets one line for whatever a person should know."""
        self._store = store
        self._log = log
        self._tokens = SharedFile(directory, TOKENS_LAYOUT)
        self._payments = AppendFile(directory, PAYMENTS_LAYOUT)
        self._connections = AppendFile(directory, CONNECTIONS_LAYOUT)
        self._waiting: list[tuple[RawLine, Token]] = []  # good lines that the store has not taken yet
        self._has_room = True
        self._in_flight: dict[bytes, tuple[int, str]] = {}  # payment ID to its row's offset and first field
        # What is to be written, and stays here while it can't be: connects and disconnects balance (T22, T30).
        self._new_connections: list[tuple[str, ...]] = []
        self._new_payments: dict[bytes, Payment] = {}
        self._new_refusals: list[RefusalRecord] = []
        self._new_tokens: dict[str, Token] = {}
        self._trouble = ""

    def close(self) -> None:
        """Write what is noted, and close the files."""
        try:
            self.write()
        finally:
            try:
                self._tokens.close()
            except OSError as error:
                self._log(f"lines that were added to {TOKENS_LAYOUT.file_name} could not be kept ({error})")
            self._payments.close()
            self._connections.close()

    # -- at start --------------------------------------------------------------------------------------

    def heal(self, now: Now) -> None:
        """At start: take new lines in, and bring every file to what the store says, whatever a crash left."""
        self._tokens.pass_over_known(map(token_row, self._store.tokens()))
        self.take_in_tokens(now)
        self._heal_payments()
        self._heal_connections(now)

    def _heal_payments(self) -> None:
        """Payments as the store has them, oldest first; refusals, which are in the file only, stay where they are."""
        refusals, line_count = self._refusals()
        in_flight: list[tuple[int, Payment]] = []

        def rows() -> Iterator[tuple[str, ...]]:
            before = refusals.pop("", [])
            yield from before
            count, payment_count = len(before), 0
            for payment in self._store.payments():
                payment_count += 1
                if payment.outcome is None:
                    in_flight.append((count, payment))
                row = payment_row(payment)
                behind = refusals.pop(row[1], []) if refusals else []
                yield row
                yield from behind
                count += 1 + len(behind)
            # Of payments that only the file knew.
            for rest in refusals.values():
                yield from rest
            if line_count > payment_count:
                yield from self._unknown_payments()

        offsets = self._payments.rewrite(rows())
        self._in_flight = {p.payment_id: (offsets[index], utc_text(p.begun_ms)) for index, p in in_flight}

    def _unknown_payments(self) -> list[tuple[str, ...]]:
        """Lines of payments that the store does not know: they stay, since nothing else here tells of them."""
        known = {payment.payment_id.hex() for payment in self._store.payments()}
        lines = {row.fields[1]: row.fields for row in self._payments.rows() if row.fields[_OUTCOME_INDEX] != REFUSED}
        unknown = [fields for payment_id, fields in lines.items() if _is_id(payment_id) and payment_id not in known]
        if unknown:
            self._log(
                f"{PAYMENTS_LAYOUT.file_name} has {len(unknown)} payments that the store does not know, the last "
                f"{unknown[-1][1]}: was an older copy of it restored? They are kept in the file; 'reconcile' with the "
                "bank's export brings them back"
            )
        return unknown

    def _refusals(self) -> tuple[dict[str, list[tuple[str, ...]]], int]:
        """The refusals in the file, by the payment ID of the payment's line before them; "" for none.

        With them, how many lines are payments'.
        """
        found: dict[str, list[tuple[str, ...]]] = {}
        payment_count = 0
        bar_count, mark = len(PAYMENTS_LAYOUT.columns) - 1, REFUSED.encode()
        before = b""
        for number, _, line in self._payments.lines():
            # Lines that are certainly a payment's are not read: the store knows all of it.
            if line.isascii() and line.count(b"|") == bar_count and len(line) < ROW_SIZE_MAX and mark not in line:
                before = line
                payment_count += 1
                continue
            try:
                fields = PAYMENTS_LAYOUT.parse(line)
            except FieldProblem as bad:
                self._log(f"{PAYMENTS_LAYOUT.problem(number, bad)}; the line is left out")
                continue
            if fields[_OUTCOME_INDEX] == REFUSED:
                found.setdefault(_payment_id_in(before), []).append(fields)
            else:
                before = line
                payment_count += 1
        return found, payment_count

    def _heal_connections(self, now: Now) -> None:
        # T22: connects = disconnects + live. Nothing is live at start, so what is open was orphaned by a crash.
        is_open: dict[str, tuple[str, ...]] = {}
        for row in self._connections.rows(lambda problem: self._log(str(problem))):
            if row.fields[1] == "connected":
                is_open[row.fields[2]] = row.fields
            elif row.fields[1] == "disconnected":
                is_open.pop(row.fields[2], None)
        time = utc_text(now.wall_ms)
        self._connections.append((time, "disconnected", *fields[2:5], _ORPHAN_REASON) for fields in is_open.values())

    # -- every second ----------------------------------------------------------------------------------

    def poll(self, now: Now) -> None:
        """Look for lines that merchants added and for files that were moved away. Raises StoreError."""
        if self._try(lambda: self._look(now)) and self._trouble:
            self._trouble = ""
            self._log("the text records are read and written again")

    def _look(self, now: Now) -> None:
        self.take_in_tokens(now)
        self._check_files()
        self._write()

    def take_in_tokens(self, now: Now) -> None:
        """R13: take in what merchants added since the last call. Raises StoreError, OSError."""
        news = self._tokens.poll()
        for problem in news.problems:
            self._log(str(problem))
        refused: list[tuple[RawLine, FieldProblem]] = []
        for line in news.lines:
            try:
                self._waiting.append((line, parse_token(TOKENS_LAYOUT.parse(line.raw))))
            except FieldProblem as bad:
                refused.append((line, bad))
        taken: list[tuple[RawLine, tuple[str, ...] | None]] = []
        cancelled: list[Token] = []
        outcomes = self._apply_waiting(now)
        if outcomes is not None:
            good, self._waiting = self._waiting, []
            for (line, token), outcome in zip(good, outcomes, strict=True):
                conflict = _conflict(token, outcome, is_own_file=news.replaced)
                if conflict is not None:
                    refused.append((line, conflict))
                    continue
                is_new = outcome.is_changed and token.state is not TokenState.CANCELLED
                taken.append((line, token_row(outcome.token) if is_new and outcome.token else None))
                if outcome.is_changed and outcome.token is not None and token.state is TokenState.CANCELLED:
                    cancelled.append(outcome.token)
        try:
            if not self._tokens.take_in_all(taken):
                self._rewrite_tokens()
            self._update_tokens(cancelled)
        finally:
            # Last, since only now the lines have the numbers that people will find them by.
            for line, field_problem in sorted(refused, key=lambda item: self._tokens.number_of(item[0])):
                self._log(TOKENS_LAYOUT.refusal(self._tokens.number_of(line), field_problem))

    def _apply_waiting(self, now: Now) -> list[TokenTaken] | None:
        """What became of each waiting line; None if the disk is full, and they wait on (T30). Raises StoreError."""
        good = self._waiting
        operations = [CancelToken(t) if t.state is TokenState.CANCELLED else IssueToken(_as_issued(t)) for _, t in good]
        try:
            outcomes = self._store.apply(operations, now) if operations else []
        except StoreFull as error:
            if self._has_room:  # Once, not every second.
                self._has_room = False
                self._log(f"{error}; new lines of {TOKENS_LAYOUT.file_name} wait until there is room")
            return None
        if operations and not self._has_room:
            self._has_room = True
            self._log(
                f"there is room on the disk again; the lines of {TOKENS_LAYOUT.file_name} that waited are taken in"
            )
        return [outcome for outcome in outcomes if isinstance(outcome, TokenTaken)]

    def _check_files(self) -> None:
        if self._payments.check():
            self._in_flight.clear()
            self._log(f"{PAYMENTS_LAYOUT.file_name} was moved away or cut; a new one is begun")
        if self._connections.check():
            self._log(f"{CONNECTIONS_LAYOUT.file_name} was moved away or cut; a new one is begun")

    # -- every tick ------------------------------------------------------------------------------------

    def record(self, effects: Iterable[Effect]) -> None:
        """`note` and `write` at once."""
        self.note(effects)
        self.write()

    def note(self, effects: Iterable[Effect]) -> bool:
        """Remember what a tick's committed effects change in the files; gives whether anything is left to be written.

        A row that changes again before `write` is written once. Connections and refusals stand nowhere but in the
        files, so they are written at once (R15).
        """
        for effect in effects:
            kind = type(effect)
            if kind is Payment:
                self._new_payments[effect.terms.payment_id] = effect  # its last state
            elif kind is Token:
                self._new_tokens[effect.transaction_id] = effect
            elif kind is RefusalRecord:
                self._new_refusals.append(effect)
            elif kind is ConnectionRecord:
                self._new_connections.append(connection_row(effect))
        if (self._new_connections or self._new_refusals) and not self._trouble:
            self._try(self._write_what_stands_nowhere_else)
        return bool(self._new_payments or self._new_tokens or self._new_refusals or self._new_connections)

    def write(self) -> None:
        """Bring the files up to date: what is new in one write a file, what changed in place.

        What can't be written now is written later (T30): the store has it, and nobody waits for the files.
        """
        self._try(self._write)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except OSError as error:
            del self._new_connections[:-UNWRITTEN_COUNT_MAX]
            del self._new_refusals[:-UNWRITTEN_COUNT_MAX]
            if self._trouble != error.strerror:  # Once, not every second.
                self._trouble = error.strerror or str(error)
                self._log(f"the text records could not be read or written ({error}); trying again every second")
            return False
        return True

    def _write_what_stands_nowhere_else(self) -> None:
        self._connections.append(self._new_connections)
        self._new_connections.clear()
        self._payments.append(map(refusal_row, self._new_refusals))
        self._new_refusals.clear()

    def _write(self) -> None:
        self._connections.append(self._new_connections)
        self._new_connections.clear()
        self._fill_in_outcomes()
        payments = list(self._new_payments.values())
        rows = [payment_row(p) for p in payments]
        offsets = self._payments.append([*rows, *map(refusal_row, self._new_refusals)])
        for payment, row, offset in zip(payments, rows, offsets, strict=False):  # refusals never change
            if payment.outcome is None:
                self._in_flight[payment.payment_id] = (offset, row[0])
        self._new_payments.clear()
        self._new_refusals.clear()
        self._update_tokens(self._new_tokens.values())
        self._new_tokens.clear()

    def _fill_in_outcomes(self) -> None:
        """Payments that have a line get their outcome there; all others are still new after this."""
        there = {
            self._in_flight[payment_id][0]: payment
            for payment_id, payment in self._new_payments.items()
            if payment.outcome is not None and payment_id in self._in_flight
        }
        if not there:
            return
        missing = self._payments.update(
            _OUTCOME,
            [(at, self._in_flight[p.payment_id][1], outcome_fields(p)) for at, p in there.items()],
        )
        # What is written in place now is not written again if the rest fails.
        for offset, payment in there.items():
            del self._in_flight[payment.payment_id]
            if offset not in missing:
                del self._new_payments[payment.payment_id]

    def _update_tokens(self, tokens: Iterable[Token]) -> None:
        changes = {t.transaction_id: (t.state.value, t.utr) for t in tokens}
        if changes and not self._tokens.update(_TOKEN_STATE, changes):
            self._rewrite_tokens()

    def _rewrite_tokens(self) -> None:
        self._tokens.rewrite(token_row(token) for token in self._store.tokens())


def _as_issued(token: Token) -> Token:
    # A line that a crash or a restored file left as in-flight has no payment here: the bank refuses a second one.
    return replace(token, state=TokenState.UNPAID) if token.state is TokenState.IN_FLIGHT else token


def _conflict(token: Token, outcome: TokenTaken, *, is_own_file: bool) -> FieldProblem | None:
    """What keeps a line from being taken in, if anything."""
    known = outcome.token
    if known is None:
        return FieldProblem("transaction ID", "one that the gateway knows, to cancel it", token.transaction_id)
    if not known.is_issued_as(token):
        text = "a new one: this token is known with other contents, and is not changed"
        return FieldProblem("transaction ID", text, token.transaction_id)
    is_refused_cancel = token.state is TokenState.CANCELLED and known.state is not TokenState.CANCELLED
    if is_refused_cancel and not is_own_file:
        return FieldProblem(
            "paid/unpaid", f"nothing: the token is {known.state.value} and can't be cancelled", "cancelled"
        )
    return None


def _payment_id_in(line: bytes) -> str:
    """The payment ID in a line of payments; "" if there is none, or a power cut left no whole line there."""
    try:
        return PAYMENTS_LAYOUT.parse(line)[1]
    except FieldProblem:
        return ""


def _is_id(text: str) -> bool:
    """Whether a column has a payment ID in it, and not what an editor put there."""
    with contextlib.suppress(ValueError):
        return len(bytes.fromhex(text)) == limits.PAYMENT_ID_SIZE
    return False
