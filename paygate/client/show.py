"""What the customer is shown: texts and JSON. Whatever a peer said is escaped (T21); no secret gets in here."""

import json
import os
from typing import Any, Final

from paygate.client.client import TokenAnswer
from paygate.client.payment import Payment, PaymentResult
from paygate.clock import utc_text
from paygate.codec.codes import TransferOutcome
from paygate.codec.money import format_amount
from paygate.codec.sealed import ReceiptStatement
from paygate.escape import escape_line
from paygate.files.durable import write_all

_STDOUT, _STDERR = 1, 2
RESULT_KEYS: Final = (
    "outcome",
    "exit_code",
    "text",
    "money_may_have_moved",
    "payment_id",
    "transaction_id",
    "merchant_id",
    "merchant_name",
    "amount_minor",
    "amount",
    "currency",
    "token_status",
    "reason",
    "utr",
    "receipt",
    "receipt_file",
)
"""The keys of every result's JSON object, always all of them; null where there is nothing to say."""


def put(text: str) -> None:
    """Write lines to stdout, unbuffered: what a signal could take away isn't shown yet."""
    write_all(_STDOUT, f"{text}\n".encode("utf-8", "backslashreplace"))


def complain(program: str, text: str) -> None:
    """Write one line to stderr: why what was asked for did not come about."""
    write_all(_STDERR, f"{program}: {escape_line(text)}\n".encode("utf-8", "backslashreplace"))


def put_json(value: object) -> None:
    """Write one JSON object on one line."""
    put(json.dumps(value))


def token_text(token: TokenAnswer) -> str:
    """What is to be paid and to whom, before anybody types a password (R3)."""
    merchant = f"{token.merchant_name} ({token.merchant_id})" if token.merchant_name else token.merchant_id
    return "\n".join(
        (
            f"Pay to   {escape_line(merchant)}",
            f"Amount   {format_amount(token.amount_minor, token.currency)} {token.currency}",
            f"Order    {escape_line(token.transaction_id)}",
            f"Through  gateway {escape_line(token.gateway_id)}, bank {escape_line(token.bank_id)}",
        )
    )


def result_fields(
    result: PaymentResult,
    *,
    token: TokenAnswer | None = None,
    payment: Payment | None = None,
    receipt_file: "os.PathLike[str] | None" = None,
) -> dict[str, Any]:
    """The JSON object of a result: exactly RESULT_KEYS."""
    fields: dict[str, Any] = dict.fromkeys(RESULT_KEYS)
    fields.update(
        outcome=result.outcome.value,
        exit_code=int(result.outcome.exit_code),
        text=escape_line(result.text),
        money_may_have_moved=result.money_may_have_moved,
        payment_id=result.payment_id.hex() or None,
        reason=result.reason.name if result.reason else None,
        utr=result.utr or None,
        receipt=result.receipt.hex() or None,
        receipt_file=os.fspath(receipt_file) if receipt_file else None,
    )
    if payment is not None:
        terms = payment.terms
        _add_order(fields, terms.transaction_id, terms.merchant_id, terms.amount_minor, terms.currency)
        fields["merchant_name"] = payment.merchant_name or None
    elif token is not None:
        _add_order(fields, token.transaction_id, token.merchant_id, token.amount_minor, token.currency)
        fields["merchant_name"] = token.merchant_name or None
    if token is not None:
        fields["token_status"] = token.status.name
    return fields


def _add_order(fields: dict[str, Any], transaction_id: str, merchant_id: str, amount_minor: int, currency: str) -> None:
    fields["transaction_id"] = transaction_id
    fields["merchant_id"] = merchant_id or None
    if currency:
        fields.update(amount_minor=amount_minor, amount=format_amount(amount_minor, currency), currency=currency)


def payment_fields(payment: Payment) -> dict[str, Any]:
    """The JSON object of a payment on disk, without its passcode."""
    terms = payment.terms
    return {
        "payment_id": payment.payment_id.hex(),
        "state": payment.state.value,
        "authorised_at": utc_text(terms.authorised_at_ms),
        "transaction_id": terms.transaction_id,
        "merchant_id": terms.merchant_id,
        "merchant_name": payment.merchant_name or None,
        "amount_minor": terms.amount_minor,
        "amount": format_amount(terms.amount_minor, terms.currency),
        "currency": terms.currency,
        "gateway": payment.gateway,
        "money_may_have_moved": payment.money_may_have_moved,
        "reason": payment.reason.name if payment.reason else None,
        "utr": payment.utr or None,
    }


def payment_text(payment: Payment) -> str:
    """One line of the list."""
    when = utc_text(payment.terms.authorised_at_ms)
    line = (
        f"{payment.payment_id.hex()}  {when}  {payment.state.value:<13}  {payment.amount_text:>18}  "
        f"{payment.terms.transaction_id}  {payment.merchant_text}  {payment.utr}"
    )
    return escape_line(line.rstrip())


def receipt_fields(payment: Payment, path: "os.PathLike[str]") -> dict[str, Any]:
    """The JSON object of a payment that has a receipt, and where that is."""
    return {**payment_fields(payment), "receipt_file": os.fspath(path)}


def receipt_text(payment: Payment, path: "os.PathLike[str]") -> str:
    """One line of the receipts."""
    return f"{payment_text(payment)}  {escape_line(os.fspath(path))}"


def refusal_text(payment: Payment, now_wall_ms: int) -> str:
    """One quiet line for a refusal that was told before: an honest one stays unproven for ever."""
    reason = payment.reason.name if payment.reason else "not known to it"
    until = utc_text(payment.asked_until_ms)
    taken = utc_text(payment.bank_takes_until_ms)
    is_over = now_wall_ms >= payment.bank_takes_until_ms
    bank = f"the bank {'takes it no more since' if is_over else 'would take it until'} {taken}"
    word = f"still refused, by the gateway's word ({reason}), without the bank's proof"
    return f"{word}; {bank}; `all` asks until {until}"


def earlier_text(payment: Payment, status_command: str) -> str:
    """One line for an earlier payment of the token that is to be paid now, which has no receipt yet."""
    payment_id = payment.payment_id.hex()
    when = utc_text(payment.terms.authorised_at_ms)
    return (
        f"an earlier payment of this token is {payment.state.value}: {payment_id}, {payment.amount_text}, of {when}; "
        "paying again can't pay it twice (the bank posts one payment of a token at most); "
        f"what became of it says: {status_command} {payment_id}"
    )


def statement_fields(statement: ReceiptStatement) -> dict[str, Any]:
    """The JSON object of a receipt that has been verified."""
    terms = statement.terms
    return {
        "outcome": statement.outcome.name,
        "reason": statement.reason.name if statement.reason else None,
        "utr": statement.utr or None,
        "bank_time": utc_text(statement.bank_time_ms),
        "bank_id": terms.bank_id,
        "gateway_id": terms.gateway_id,
        "merchant_id": terms.merchant_id,
        "transaction_id": terms.transaction_id,
        "payment_id": terms.payment_id.hex(),
        "amount_minor": terms.amount_minor,
        "amount": format_amount(terms.amount_minor, terms.currency),
        "currency": terms.currency,
    }


def statement_text(statement: ReceiptStatement) -> str:
    """What the bank states in a receipt that has been verified."""
    terms = statement.terms
    is_paid = statement.outcome is TransferOutcome.POSTED
    outcome = f"paid, UTR {statement.utr}" if is_paid else f"not paid: {statement.reason.meaning}"
    return "\n".join(
        (
            f"Bank {terms.bank_id} states: {outcome}",
            f"Amount   {format_amount(terms.amount_minor, terms.currency)} {terms.currency}",
            f"To       merchant {terms.merchant_id}, by gateway {terms.gateway_id}",
            f"Order    {terms.transaction_id}",
            f"When     {utc_text(statement.bank_time_ms)}, by the bank's clock",
            f"Payment  {terms.payment_id.hex()}",
        )
    )
