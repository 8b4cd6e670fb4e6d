"""The bugs of the mutation gate: each is a patch of the real code in one place, as narrow as the bug it stands for.

Where two guards keep the same promise, such as an index and the check that reads it, both are taken out, since either
alone holds it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import memory_disk
import pytest
from builders import RECEIPT_KEY

from paygate.bank import ledger_batch, ledger_rows, sqlite_ledger
from paygate.bank.ledger import FREE_FAILURE_COUNT, PaymentOutcome, Resolve, Transfer, decide
from paygate.bank.ledger_tables import SCHEMA
from paygate.client.core import Core
from paygate.client.states import State
from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.messages import ResolveRequest
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import BadReceipt, match_receipt, sign_receipts, verify_receipt
from paygate.codec.sealed import Receipt, ReceiptStatement, Terms
from paygate.effects import Commit
from paygate.files import sqlite
from paygate.gateway import client_side, token_tables
from paygate.gateway.client_side import ClientSide
from paygate.gateway.core import GatewayCore
from paygate.gateway.payment import TOKEN_TRANSITIONS, TokenEvent, check_passcode, decide_begin, decide_check
from paygate.gateway.tokens import SettlePayment, TokenState
from paygate.tick import Tick

Patch = pytest.MonkeyPatch
"""Puts a bug in, and takes it out again."""


# -- the disk --------------------------------------------------------------------------------------------


def synchronous_normal(patch: Patch) -> None:
    prepare = sqlite._prepare

    def mutant(connection: apsw.Connection, *rest: Any) -> None:
        prepare(connection, *rest)
        connection.pragma("synchronous", "NORMAL")

    patch.setattr(sqlite, "_prepare", mutant)


def reply_before_commit(patch: Patch) -> None:
    """A tick's transactions stay open until its replies have left; the stores see what they wrote all the same."""
    open_in_tick: list[apsw.Connection] = []
    is_in_tick: list[bool] = []

    def end() -> None:
        while open_in_tick:
            open_in_tick.pop().execute("COMMIT")

    @contextmanager
    def transaction(connection: apsw.Connection) -> Iterator[None]:
        end()
        if not is_in_tick:
            with sqlite.transaction(connection):
                yield
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, apsw.Error):
                raise sqlite._named(error, Path(connection.filename), connection) from None
            raise
        open_in_tick.append(connection)

    handle = Tick._handle

    def mutant(self: Tick[Any]) -> None:
        is_in_tick.append(True)
        try:
            handle(self)
            end()
        except apsw.Error as error:
            raise sqlite._named(error, Path("a store")) from None
        finally:
            # A process that died meanwhile has no transaction any more.
            open_in_tick.clear()
            is_in_tick.clear()

    patch.setattr(Tick, "_handle", mutant)
    patch.setattr(sqlite_ledger, "transaction", transaction)
    patch.setattr(token_tables, "transaction", transaction)


def fsync_retried(patch: Patch) -> None:
    """Below SQLite: whoever gets an error from fsync asks again, and is told that all is well (T31)."""
    sync = memory_disk._Handle.xSync

    def mutant(self: Any, flags: int) -> None:
        try:
            sync(self, flags)
        except apsw.IOError:
            self.disk.fsync_fails = False  # the disk is well again, and Linux has forgotten what it owes
            sync(self, flags)

    patch.setattr(memory_disk._Handle, "xSync", mutant)


def log_taken_as_it_is(patch: Patch) -> None:
    """A start trusts the log that it finds, whether a former process could sync it or not."""
    patch.setattr(sqlite, "_write_log_anew", lambda connection: None)


# -- the ledger ------------------------------------------------------------------------------------------


def _without(patch: Patch, *texts: str) -> None:
    """The ledger's tables, made without some constraints."""
    schema: tuple[str, ...] = SCHEMA
    for text, instead in [pair.split(" -> ") for pair in texts]:
        assert any(text in script for script in schema), text
        schema = tuple(script.replace(text, instead) for script in schema)
    patch.setattr("paygate.bank.sqlite_ledger.SCHEMA", schema)


def token_not_unique(patch: Patch) -> None:
    _without(patch, "CREATE UNIQUE INDEX posted_token -> CREATE INDEX posted_token")
    patch.setattr(ledger_batch.Batch, "_token_is_paid", lambda self, terms: False)


def payment_id_not_unique(patch: Patch) -> None:
    _without(patch, "UNIQUE (gateway_id, payment_id) -> CHECK (payment_number > 0)")
    known_of = ledger_batch.Batch._known

    def mutant(self: Any, operation: Any) -> Any:
        return None if isinstance(operation, Transfer) else known_of(self, operation)

    patch.setattr(ledger_batch.Batch, "_known", mutant)


def hash_not_in_receipt(patch: Patch) -> None:
    hash_not_matched(patch)

    def mutant(key: Any, statements: Sequence[ReceiptStatement]) -> list[bytes]:
        return sign_receipts(key, [replace(statement, envelope_hash=bytes(32)) for statement in statements])

    patch.setattr("paygate.bank.sqlite_ledger.sign_receipts", mutant)


def hash_not_matched(patch: Patch) -> None:
    def mutant(statement: ReceiptStatement, terms: Terms, sent_envelope_hash: bytes) -> None:
        match_receipt(statement, terms, statement.envelope_hash)

    patch.setattr("paygate.client.verdict.match_receipt", mutant)


def fence_not_durable(patch: Patch) -> None:
    """A fence is answered, signed and all, and kept nowhere."""
    resolve = ledger_batch.Batch._resolve

    def mutant(self: Any, operation: Resolve) -> Any:
        known = self._known(operation)
        if known is not None:
            return known
        place = resolve(self, operation)[0]  # type: ignore[index]
        statement = self.statements.pop(place)
        key = (operation.terms.gateway_id, operation.terms.payment_id)
        del self._payments[key]
        self._absent.add(key)
        receipt = sign_receipts(RECEIPT_KEY, [statement])[0]
        return PaymentOutcome(TransferOutcome.FENCED, Reason.FENCED, "", receipt)

    patch.setattr(ledger_batch.Batch, "_resolve", mutant)
    patch.setitem(ledger_batch._TAKES, Resolve, mutant)


def attempts_counted_later(patch: Patch) -> None:
    """A wrong password is answered first, and counted with the next batch (T15)."""
    write = ledger_batch.Batch.write
    late: list[tuple[int, int, int]] = []

    def mutant(self: Any, receipts: Sequence[bytes]) -> None:
        now, self.changes.attempts[:] = list(self.changes.attempts), late
        late[:] = now
        write(self, receipts)

    patch.setattr(ledger_batch.Batch, "write", mutant)


def utrs_begin_anew(patch: Patch) -> None:
    """The last UTR is not read at a start."""
    _without(patch, "utr TEXT UNIQUE -> utr TEXT")
    init = sqlite_ledger.SqliteLedger.__init__

    def mutant(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self._head = self._head._replace(utr_sequence=0)

    patch.setattr(sqlite_ledger.SqliteLedger, "__init__", mutant)


def balance_not_checked(patch: Patch) -> None:
    """Whoever has too little pays all the same, and another account is debited for it."""

    def mutant(operation: Transfer, situation: Any, now_mono_ms: int) -> Any:
        reason, customer = decide(operation, situation, now_mono_ms)
        if reason is Reason.FUNDS and customer is not None:
            return Reason.NONE, replace(customer, balance_minor=operation.terms.amount_minor)
        return reason, customer

    patch.setattr("paygate.bank.ledger_batch.decide", mutant)


def lock_not_asked(patch: Patch) -> None:
    """T15: a locked account takes the right password."""

    def mutant(operation: Transfer, situation: Any, now_mono_ms: int) -> Any:
        customer = situation.customer
        if customer is not None and customer.failure_count > FREE_FAILURE_COUNT:
            situation = replace(situation, customer=replace(customer, locked_until_ms=0))
        return decide(operation, situation, now_mono_ms)

    patch.setattr("paygate.bank.ledger_batch.decide", mutant)


def window_not_checked(patch: Patch) -> None:
    """T6: an envelope counts however long ago it was sealed."""

    def mutant(operation: Transfer, situation: Any, now_mono_ms: int) -> Any:
        return decide(operation, replace(situation, wall_time_ms=operation.terms.authorised_at_ms), now_mono_ms)

    patch.setattr("paygate.bank.ledger_batch.decide", mutant)


def balances_left_unwritten(patch: Patch) -> None:
    """When the changed balances are written, those of the batch itself are left out, and forgotten."""
    write = ledger_rows.write

    def mutant(
        connection: Any, head: Any, counters: Any, statements: Any, receipts: Any, changes: Any, balances: Any
    ) -> Any:
        if not changes.opened and len(balances) >= ledger_rows.BALANCE_COUNT_MAX:
            changes.balances.clear()
        return write(connection, head, counters, statements, receipts, changes, balances)

    patch.setattr(ledger_rows, "write", mutant)


def read_ahead_finds_nothing(patch: Patch) -> None:
    """Payments that were read together are all taken for new."""
    _without(patch, "UNIQUE (gateway_id, payment_id) -> CHECK (payment_number > 0)")
    patch.setattr(ledger_batch, "known_payments", lambda *_: set())


# -- the gateway -----------------------------------------------------------------------------------------


def released_without_resolving(patch: Patch) -> None:
    """When the bank's time is over the token is given free, and the bank is not asked."""
    receive_timer = GatewayCore.receive_timer

    def mutant(self: GatewayCore, now: Any) -> list[Any]:
        ask = self.bank.ask
        given_up: list[ResolveRequest] = []

        def ask_or_give_up(message: Any) -> None:
            if isinstance(message, ResolveRequest):
                given_up.append(message)
            else:
                ask(message)

        self.bank.ask = ask_or_give_up  # type: ignore[method-assign]
        try:
            effects = receive_timer(self, now)
        finally:
            del self.bank.ask
        for message in given_up:
            self._clients._awaited.append((self._clients._payment_settled, None))
            payment_id = message.terms.payment_id
            effects.append(Commit(SettlePayment(payment_id, TransferOutcome.MISMATCH, Reason.NONE, "", b"")))
        return effects

    patch.setattr(GatewayCore, "receive_timer", mutant)


def matched_by_socket(patch: Patch) -> None:
    """A result belongs to whatever waits longest on the link, whatever payment it names."""
    settle = ClientSide.settle

    def mutant(self: ClientSide, message: Any, now: Any, effects: list[Any]) -> None:
        waiting = next(iter(self._flights._flights), message.payment_id)
        settle(self, replace(message, payment_id=waiting), now, effects)

    patch.setattr(ClientSide, "settle", mutant)


def flights_forgotten(patch: Patch) -> None:
    patch.setattr(GatewayCore, "resume", lambda self, payments, now: [])


def expiry_not_kept(patch: Patch) -> None:
    """T7: a token that was seen to be over is valid again when the clock goes back."""

    def mutant(token: Any, operation: Any, now_wall_ms: int) -> Any:
        outcome, kept = decide_check(token, operation, now_wall_ms)
        return outcome, replace(kept, state=token.state) if kept.state is not token.state else kept

    patch.setattr("paygate.gateway.sqlite_tokens.decide_check", mutant)


def passcode_tries_not_kept(patch: Patch) -> None:
    """T16."""

    def mutant(token: Any, passcode: str, now_wall_ms: int) -> Any:
        denied, counted = check_passcode(token, passcode, now_wall_ms)
        return denied, token if denied is not None else counted

    patch.setattr("paygate.gateway.payment.check_passcode", mutant)
    patch.setattr("paygate.gateway.sqlite_tokens.check_passcode", mutant)


def passcode_lock_not_asked(patch: Patch) -> None:
    """T16: a locked token takes the right passcode."""

    def mutant(token: Any, passcode: str, now_wall_ms: int) -> Any:
        return check_passcode(token, passcode, 2**62 if passcode == token.passcode else now_wall_ms)

    patch.setattr("paygate.gateway.payment.check_passcode", mutant)
    patch.setattr("paygate.gateway.sqlite_tokens.check_passcode", mutant)


def withdrawn_token_begun(patch: Patch) -> None:
    """A session that was opened before the merchant withdrew the token pays it."""
    patch.setitem(TOKEN_TRANSITIONS[TokenState.CANCELLED], TokenEvent.BEGIN, TokenState.IN_FLIGHT)


def expiry_not_asked(patch: Patch) -> None:
    """A session that was opened before the token's time was over pays it."""

    def mutant(token: Any, known: Any, operation: Any, now_wall_ms: int) -> Any:
        outcome, kept = decide_begin(token and replace(token, expires_ms=None), known, operation, now_wall_ms)
        return outcome, kept and replace(kept, expires_ms=token.expires_ms)

    patch.setattr("paygate.gateway.sqlite_tokens.decide_begin", mutant)


def other_merchants_name(patch: Patch) -> None:
    """The customer is shown who was asked for last."""
    make_ack = client_side._make_ack
    shown = ["Somebody"]

    def mutant(status: Any, session_id: Any, left_ms: Any, merchant_id: Any, name: str, *others: Any) -> Any:
        shown.append(name)
        return make_ack(status, session_id, left_ms, merchant_id, shown.pop(0), *others)

    patch.setattr(client_side, "_make_ack", mutant)


# -- the client ------------------------------------------------------------------------------------------


def key_list_goes_back(patch: Patch) -> None:
    """T10: a key list older than one that was seen is taken."""
    init = Core.__init__

    def mutant(self: Core, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "serial_min": 0})

    patch.setattr(Core, "__init__", mutant)


def receipt_of_other_terms(patch: Patch) -> None:
    def mutant(statement: ReceiptStatement, terms: Terms, sent_envelope_hash: bytes) -> None:
        match_receipt(statement, statement.terms, sent_envelope_hash)

    patch.setattr("paygate.client.verdict.match_receipt", mutant)


def receipt_not_verified(patch: Patch) -> None:
    """T8: whatever says the right things is believed, whoever signed it."""

    def mutant(receipt: bytes, key_list: Any) -> ReceiptStatement:
        try:
            return verify_receipt(receipt, key_list)
        except BadReceipt:
            return decode_record(Receipt, receipt).statement

    patch.setattr("paygate.client.verdict.verify_receipt", mutant)


def saved_after_sending(patch: Patch) -> None:
    """The credentials leave before the payment is written down."""
    sealed, saved = Core.sealed, Core.saved

    def mutant(self: Core, envelope: bytes, now: Any) -> list[Any]:
        saves = sealed(self, envelope, now)
        return [*saved(self, now), *saves] if saves else saves

    def saved_already(self: Core, now: Any) -> list[Any]:
        return [] if self.state is State.SENT else saved(self, now)

    patch.setattr(Core, "sealed", mutant)
    patch.setattr(Core, "saved", saved_already)
