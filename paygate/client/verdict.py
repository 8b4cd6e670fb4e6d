"""What an answer of the gateway is worth: only the bank's proof makes a payment paid or declined (T8, T9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from paygate.client.payment import Outcome, Payment, PaymentResult, PaymentState
from paygate.clock import utc_text
from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import PaymentAnswer, StatusAck, TokenAck
from paygate.codec.seal import BadReceipt, SealError, match_receipt, verify_receipt
from paygate.codec.sealed import KeyList, ReceiptStatement

IN_FLIGHT_MS_MAX: Final = 10_000
"""After a session's end a gateway that never saw the payment will not see it any more: no frame takes longer."""
_PAY_ANEW: Final = "Pay the token anew if it is still to be paid."
NOTHING_SENT: Final = "Nothing was sent to the bank; no money has moved."
"""Told only while the credentials have not left this machine: from then on nobody but the bank can prove it (T8)."""

# As answers to a status query these refuse the question, and say nothing of the payment.
_QUESTION_REFUSED: Final = frozenset({Reason.PASSCODE, Reason.TOKEN_LOCKED, Reason.STORE_UNAVAILABLE})
_PROVEN_AS: Final = {
    PaymentStatus.PAID: {TransferOutcome.POSTED},
    PaymentStatus.DECLINED: {TransferOutcome.DECLINED, TransferOutcome.FENCED},
}


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """A signed key list and what it holds, once it has been verified."""

    signed: bytes
    key_list: KeyList


AGAIN_IS_SAFE: Final = (
    "Asking, `retry` and paying this token again are safe: the bank posts a payment once, and one of a token at most."
)
"""T1, T5, PG-CLI-4: what a customer in doubt may do, told wherever there is doubt."""


def unknown_text(payment: Payment, why: str, status_command: str) -> str:
    """The words for a payment that was sent and whose outcome is not known."""
    return f"{why} Money may have moved. Ask with: {_question(payment, status_command)}. {AGAIN_IS_SAFE}"


def changed_record(payment: Payment, why: str) -> PaymentResult:
    """What is told when the record itself does not hold: asking again would only find the same."""
    text = (
        f"The record of this payment was changed: {why}. Money may have moved. Restore the record from a backup, or "
        f"ask the merchant or the bank what became of payment {payment.payment_id.hex()}. {AGAIN_IS_SAFE}"
    )
    return PaymentResult(Outcome.UNTRUSTED, text, money_may_have_moved=True, payment_id=payment.payment_id)


def _question(payment: Payment, status_command: str) -> str:
    return f"{status_command} {payment.payment_id.hex()}"


def settled(payment: Payment) -> PaymentResult:
    """What the record of a settled payment says, without anybody's word: the receipt in it is checked again."""
    assert payment.is_settled
    if payment.state is PaymentState.NOT_FORWARDED:
        text = f"This payment was written down and never sent; no money has moved by it. {_PAY_ANEW}"
        return PaymentResult(Outcome.NOT_FORWARDED, text, payment_id=payment.payment_id)
    if payment.state is PaymentState.NOT_POSTED:
        return _not_posted(payment)
    status = PaymentStatus.PAID if payment.state is PaymentState.PAID else PaymentStatus.DECLINED
    answer = StatusAck(payment.payment_id, status, payment.reason, payment.utr, payment.receipt)
    try:
        used = _prove(answer, payment, [TrustedKeys(payment.signed_key_list, payment.key_list())])
    except SealError as error:
        return changed_record(payment, str(error))
    return _proven(answer, payment, used)


def settled_by(payment: Payment, others: Sequence[Payment]) -> PaymentResult | None:
    """What a receipt for another payment of the same token proves of this one: that it was not posted (T5)."""
    for other in others:
        is_another = other.is_same_token(payment) and other.payment_id != payment.payment_id
        is_paid = is_another and other.state is PaymentState.PAID
        if is_paid and settled(other).outcome is Outcome.PAID:
            return _not_posted(payment)
    return None


def _not_posted(payment: Payment) -> PaymentResult:
    text = (
        "This payment was not made; no money has moved by it, nor will it: another payment of this token is paid, by "
        "the bank's receipt, and the bank posts one payment of a token at most."
    )
    return PaymentResult(Outcome.NOT_POSTED, text, payment_id=payment.payment_id)


def judge(
    answer: PaymentAnswer, payment: Payment, keys: Sequence[TrustedKeys], now_wall_ms: int, status_command: str
) -> PaymentResult:
    """What an answer means for this payment.

    PAID and DECLINED need a receipt that verifies under one of `keys` and matches; without it the result is
    UNTRUSTED. REFUSED is the gateway's own word, told as that, and leaves it open whether money has moved (T8).
    """

    def unknown(outcome: Outcome, why: str) -> PaymentResult:
        text = unknown_text(payment, why, status_command)
        return PaymentResult(outcome, text, money_may_have_moved=True, payment_id=payment.payment_id)

    if answer.payment_id != payment.payment_id:
        return unknown(Outcome.UNTRUSTED, "The gateway answered for another payment.")
    if answer.status in _PROVEN_AS:
        try:
            used = _prove(answer, payment, keys)
        except BadReceipt as error:
            claim = answer.status.name.lower()
            return unknown(Outcome.UNTRUSTED, f"The gateway claims {claim}, without the bank's proof: {error}.")
        return _proven(answer, payment, used)
    if answer.status is PaymentStatus.REFUSED:
        if isinstance(answer, StatusAck) and answer.reason in _QUESTION_REFUSED:
            return unknown(Outcome.UNKNOWN, f"The gateway did not answer the question: {answer.reason.meaning}.")
        return _refused(_why_refused(answer), answer, payment, now_wall_ms, status_command)
    if answer.status is PaymentStatus.PENDING:
        return unknown(Outcome.UNKNOWN, "The payment was sent; the bank has not answered the gateway yet.")
    # A gateway keeps no record of what it refused; a payment that it has refused is on its way no more.
    # One that lies in the future was dated by a clock that was set back since: nobody is to wait for that time, and
    # the gateway's word is told for what it is.
    was_set_back = now_wall_ms < payment.terms.authorised_at_ms
    is_over = was_set_back or now_wall_ms >= payment.session_end_ms + IN_FLIGHT_MS_MAX
    if is_over or payment.state is PaymentState.REFUSED:
        return _refused("it does not know the payment", answer, payment, now_wall_ms, status_command)
    over = utc_text(payment.session_end_ms + IN_FLIGHT_MS_MAX)
    why = f"The gateway does not know the payment yet; it may still be on its way until {over}."
    return unknown(Outcome.UNKNOWN, why)


def _prove(answer: PaymentAnswer, payment: Payment, keys: Sequence[TrustedKeys]) -> TrustedKeys:
    """The keys under which the answer's receipt proves what the answer says. Raises BadReceipt."""
    failure = BadReceipt("there is no key list to check it with")
    for trusted in keys:
        try:
            statement = verify_receipt(answer.receipt, trusted.key_list)
        except BadReceipt as error:
            failure = error
            continue
        match_receipt(statement, payment.terms, payment.envelope_hash)
        _check_agreement(answer, statement)
        return trusted
    raise failure


def _check_agreement(answer: PaymentAnswer, statement: ReceiptStatement) -> None:
    if statement.outcome not in _PROVEN_AS[answer.status]:
        raise BadReceipt(f"the receipt says {statement.outcome.name.lower()}")
    if statement.reason is not answer.reason:
        raise BadReceipt(f"the receipt gives another reason, {statement.reason.name.lower()}")
    if statement.utr != answer.utr:
        raise BadReceipt("the receipt holds another UTR")


def _proven(answer: PaymentAnswer, payment: Payment, used: TrustedKeys) -> PaymentResult:
    is_paid = answer.status is PaymentStatus.PAID
    if is_paid:
        text = f"Paid {payment.amount_text} to {payment.merchant_text}, proven by the bank's receipt. UTR {answer.utr}"
    else:
        text = f"The bank declined the payment: {answer.reason.meaning}. No money has moved."
    return PaymentResult(
        Outcome.PAID if is_paid else Outcome.DECLINED,
        text,
        money_may_have_moved=is_paid,
        reason=answer.reason,
        utr=answer.utr,
        receipt=answer.receipt,
        signed_key_list=used.signed,
        payment_id=payment.payment_id,
    )


def _why_refused(answer: PaymentAnswer) -> str:
    # T5: of two payments of one token the other one was first; the reason's own words would mislead here.
    why = {
        Reason.TOKEN_PAID: "another payment has paid this token; do not pay again",
        Reason.TOKEN_IN_FLIGHT: "another payment of this token is under way; ask for its status later",
    }.get(answer.reason, answer.reason.meaning)
    return f"{why} (UTR {answer.utr})" if answer.utr else why


def _refused(why: str, answer: PaymentAnswer, payment: Payment, now_wall_ms: int, status_command: str) -> PaymentResult:
    # T8: the credentials have left, so a gateway that lies may have forwarded them and hide the bank's answer.
    text = (
        f"The gateway says that it did not forward this payment: {why}. "
        "That is its word, without the bank's proof that no money has moved. "
    )
    until = utc_text(payment.bank_takes_until_ms)
    if now_wall_ms >= payment.bank_takes_until_ms:
        # PG-CLI-5: as definite as it gets without a signature, and so is what to do.
        text += f"Since {until} the bank takes it no more, so by that word it is not paid and will not be. "
    else:
        text += f"The bank takes it until {until} at the latest. Ask again with: {_question(payment, status_command)}. "
    # The reason's own words tell whoever must not pay again.
    text += AGAIN_IS_SAFE if answer.reason is not Reason.TOKEN_PAID else ""
    return PaymentResult(
        Outcome.REFUSED,
        text.rstrip(),
        money_may_have_moved=True,
        reason=answer.reason,
        utr=answer.utr,
        payment_id=payment.payment_id,
    )


def token_result(token: TokenAck) -> PaymentResult:
    """R2: why a token that is not VALID can't be paid now; all of it is the gateway's word."""
    assert token.status is not TokenStatus.VALID
    if token.status is TokenStatus.PAID:
        text = f"This token is paid already, the gateway says, under UTR {token.utr}. Do not pay again."
        return PaymentResult(Outcome.ALREADY_PAID, text, utr=token.utr)
    text = {
        TokenStatus.INVALID: f"Transaction ID or passcode is not right. {NOTHING_SENT}",
        TokenStatus.EXPIRED: f"This token has expired or was withdrawn; ask the merchant. {NOTHING_SENT}",
        TokenStatus.LOCKED: f"Too many wrong passcodes: this token is locked for a time. {NOTHING_SENT}",
        # Whose payment it is isn't known here, so nothing is said of the money.
        TokenStatus.IN_FLIGHT: "This token is being paid right now; wait for that payment's outcome. Nothing was sent.",
    }[token.status]
    return PaymentResult(Outcome.TOKEN_REFUSED, text)
