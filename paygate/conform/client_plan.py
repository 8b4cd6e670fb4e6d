"""How a run of the client is to be answered: the token, the bank's keys, and what became of the payment.

Who plays a gateway to a client plays the bank behind it too, so receipts are made here, true ones and others.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Message,
    PaymentAck,
    PaymentAnswer,
    StatusAck,
    StatusQuery,
    TokenAck,
    TokenQuery,
)
from paygate.codec.seal import envelope_hash
from paygate.codec.sealed import KeyList, ReceiptStatement, Terms
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import Failed
from paygate.conform.craft import draft
from paygate.conform.trial import Trial
from paygate.conform.wire import Reply
from paygate.conform.world import Use

A = TypeVar("A", bound=PaymentAnswer)
Answer = Callable[[Reply], bytes]
"""The bytes with which a request is answered; perhaps none."""
Verdict = Callable[[type[PaymentAnswer]], Message]
"""What a gateway says of a payment, as PaymentAck and as StatusAck."""


def reply_to(asked: Reply, message: Message) -> bytes:
    """The frame that answers a request with this message."""
    return draft(message, None, asked.correlation_id).encode()


def no_answer(_asked: Reply) -> bytes:
    """Leave a request open."""
    return b""


class Plan:
    """What a run is given. Everything public may be changed before the run begins."""

    def __init__(self, t: Trial, bank: PlayedBankKeys, utr: str, **token: Any) -> None:
        self.t = t
        self.bank = bank
        customer = next(t.world.customers_for(Use.PAYING))
        self.user_id, self.password = customer.user_id, customer.password
        number = t.random_bytes(5).hex()
        self.transaction_id, self.passcode = f"TX-{number}", f"pass-{number}"
        self.key_list: KeyList = self.bank.key_list(t.wall_ms())
        self.signed_keys: bytes | None = None
        """The bytes in BankKeys; by default the key list, rightly signed."""
        usual = TokenAck(
            status=TokenStatus.VALID,
            session_id=t.random_bytes(limits.SESSION_ID_SIZE),
            session_left_ms=limits.SESSION_MS,
            merchant_id=t.world.merchant_ids[0],
            merchant_name="Conformance & Söhne",
            amount_minor=100_000 + int.from_bytes(t.random_bytes(2)),
            currency=t.world.currency,
            gateway_id=t.world.gateway.gateway_id,
            bank_id=t.world.bank_id,
            utr="",
        )
        self.token: TokenAck = replace(usual, **token)
        self.utr = utr
        """Of the payment, if it is posted."""
        self.sent: EncryptedCredentials | None = None
        """The payment, once it has come."""
        self.on: dict[type[Message], Answer] = {
            BankKeysQuery: self._tell_keys,
            TokenQuery: lambda asked: reply_to(asked, self.token),
        }
        """How each request is answered."""
        self.decide(self.paid)

    def answer_to(self, asked: Reply) -> bytes:
        """The planned answer to a request."""
        answer = self.on.get(type(asked.message))
        if answer is None:
            raise Failed("a request that a client may send on an open link", asked)
        return answer(asked)

    def decide(self, verdict: Verdict) -> None:
        """Answer the payment, and every question about it, so."""
        self.answer_payment(verdict)
        self.on[StatusQuery] = lambda asked: reply_to(asked, verdict(StatusAck))

    def answer_payment(self, verdict: Verdict) -> None:
        """Answer the payment so, and questions about it as before."""
        self.on[EncryptedCredentials] = lambda asked: reply_to(asked, verdict(PaymentAck))

    def paid(self, cls: type[A]) -> A:
        """The bank's true answer: posted."""
        return self.proven(cls, self.statement())

    def declined(self, reason: Reason) -> Verdict:
        """The bank's true answer: declined, or fenced."""
        outcome = TransferOutcome.FENCED if reason is Reason.FENCED else TransferOutcome.DECLINED
        return lambda cls: self.proven(cls, self.statement(outcome, reason))

    def said(self, status: PaymentStatus, reason: Reason = Reason.NONE, utr: str = "") -> Verdict:
        """The gateway's word, without proof."""
        return lambda cls: cls(self.payment.payment_id, status, reason, utr, b"")

    def statement(
        self, outcome: TransferOutcome = TransferOutcome.POSTED, reason: Reason = Reason.NONE, **changes: Any
    ) -> ReceiptStatement:
        """What a receipt of this payment states, with changes."""
        utr = self.utr if outcome is TransferOutcome.POSTED else ""
        made = self.bank.statement(
            self.terms, envelope_hash(self.payment.envelope), outcome, self.t.wall_ms(), reason=reason, utr=utr
        )
        stated: ReceiptStatement = replace(made, **changes)
        return stated

    def proven(self, cls: type[A], statement: ReceiptStatement, receipt: bytes | None = None, **changes: Any) -> A:
        """An answer that agrees with a statement, with its receipt or another one, with changes."""
        is_posted = statement.outcome is TransferOutcome.POSTED
        answer = cls(
            payment_id=self.payment.payment_id,
            status=PaymentStatus.PAID if is_posted else PaymentStatus.DECLINED,
            reason=statement.reason,
            utr=statement.utr,
            receipt=self.bank.receipts(statement)[0] if receipt is None else receipt,
        )
        return replace(answer, **changes)

    @property
    def payment(self) -> EncryptedCredentials:
        """The payment that has come."""
        assert self.sent is not None
        return self.sent

    @property
    def terms(self) -> Terms:
        """The terms of the payment that has come (PG-TRM-2)."""
        return Terms(
            bank_id=self.token.bank_id,
            gateway_id=self.token.gateway_id,
            merchant_id=self.token.merchant_id,
            transaction_id=self.transaction_id,
            payment_id=self.payment.payment_id,
            session_id=self.token.session_id,
            amount_minor=self.token.amount_minor,
            currency=self.token.currency,
            authorised_at_ms=self.payment.authorised_at_ms,
        )

    def _tell_keys(self, asked: Reply) -> bytes:
        assert isinstance(asked.message, BankKeysQuery)
        if asked.message.bank_id != self.t.world.bank_id:
            return reply_to(asked, BankKeys(KeysStatus.UNKNOWN_BANK, b""))
        signed = self.bank.sign(self.key_list) if self.signed_keys is None else self.signed_keys
        return reply_to(asked, BankKeys(KeysStatus.AVAILABLE, signed))
