"""How the gateway's text records look, line by line, and what a merchant's line says (R13 to R15)."""

from typing import Final

from paygate.clock import parse_utc, utc_text
from paygate.codec.codes import TransferOutcome
from paygate.codec.fields import CURRENCY, IDENTIFIER, MERCHANT_NAME_OR_EMPTY, PASSCODE, UTR_OR_EMPTY, Text
from paygate.codec.money import BadAmount, format_amount, parse_amount
from paygate.files.text_records import Column, FieldProblem, Layout
from paygate.gateway.effects import ConnectionRecord, RefusalRecord
from paygate.gateway.tokens import Payment, Token, TokenState

TOKENS_LAYOUT: Final = Layout(
    "PaymentTokensData.txt",
    "Payment tokens (R13). Merchants share a token by adding a line; a running gateway takes it in within a second.",
    (
        Column("transaction ID", 16, "the merchant's order: letters, digits, '.', '_', '-'; at most 32"),
        Column("passcode", 10, "what the shopper types: printable ASCII without blanks and '|'", secret=True),
        Column("paid/unpaid", 11, "unpaid in a new line; the gateway says paid, in-flight, cancelled or expired"),
        Column("amount", 18, "decimal, greater than 0", align="right"),
        Column("merchant", 12, "the merchant's ID at the bank"),
        Column("currency", 8, "ISO 4217 code, such as INR"),
        Column("UTR", 22, "filled in by the gateway when paid"),
        Column("expiry", 24, "UTC, such as 2026-12-31T23:59:59Z; empty or '-' for never"),
        Column("merchant name", 20, "for the shopper's eyes; may be empty"),
    ),
    required_count=6,
)
PAYMENTS_LAYOUT: Final = Layout(
    "GatewayTransaction.txt",
    "Payment attempts and their outcomes (R14), one line each.",
    (
        Column("begun", 24, "when the attempt reached the gateway, UTC"),
        Column("payment ID", 32, "the client's, hexadecimal"),
        Column("transaction ID", 16, "the token"),
        Column("amount", 18, "decimal", align="right"),
        Column("currency", 8, "ISO 4217 code"),
        Column("merchant", 12, "the merchant's ID"),
        Column("outcome", 9, "in-flight, paid, declined (by the bank), refused (by the gateway)"),
        Column("reason", 18, "why it was declined or refused"),
        Column("UTR", 22, "with paid"),
        Column("ended", 24, "when the outcome was known, UTC"),
    ),
    required_count=10,
)
CONNECTIONS_LAYOUT: Final = Layout(
    "LogFiles.txt",
    "Clients' connections (R15): a line when one connects, a line when it is gone.",
    (
        Column("time", 24, "UTC"),
        Column("event", 12, "connected, disconnected, or refused"),
        Column("link", 6, "number of the connection since the gateway's start", align="right"),
        Column("IP address", 15, "the client's"),
        Column("port", 5, "the client's", align="right"),
        Column("reason", 24, "why it is gone"),
    ),
    required_count=6,
)
REFUSED: Final = "refused"
"""The outcome of an attempt that the bank never saw."""
_NEVER: Final = "-"


def token_row(token: Token) -> tuple[str, ...]:
    """A token's line in PaymentTokensData.txt."""
    return (
        token.transaction_id,
        token.passcode,
        token.state.value,
        format_amount(token.amount_minor, token.currency),
        token.merchant_id,
        token.currency,
        token.utr,
        _NEVER if token.expires_ms is None else utc_text(token.expires_ms),
        token.merchant_name,
    )


def parse_token(fields: tuple[str, ...]) -> Token:
    """A token from a line's fields. Raises FieldProblem."""
    transaction_id, passcode, state_text, amount_text, merchant_id, currency, utr, expiry, merchant_name = fields
    _require(IDENTIFIER, "transaction ID", transaction_id)
    _require(PASSCODE, "passcode", passcode)
    _require(IDENTIFIER, "merchant", merchant_id)
    _require(CURRENCY, "currency", currency)
    _require(UTR_OR_EMPTY, "UTR", utr)
    _require(MERCHANT_NAME_OR_EMPTY, "merchant name", merchant_name)
    try:
        state = TokenState(state_text)
    except ValueError:
        raise FieldProblem("paid/unpaid", "unpaid, or what the gateway wrote there", state_text) from None
    if (state is TokenState.PAID) is not bool(utr):
        raise FieldProblem("UTR", "a UTR with paid, and nothing otherwise", utr)
    try:
        amount_minor = parse_amount(amount_text, currency)
    except BadAmount as bad:
        raise FieldProblem("amount", str(bad), amount_text) from None
    try:
        expires_ms = None if expiry in ("", _NEVER) else parse_utc(expiry)
    except ValueError as bad:
        raise FieldProblem("expiry", str(bad).removeprefix("expected "), expiry) from None
    return Token(
        transaction_id, passcode, merchant_id, merchant_name, amount_minor, currency, expires_ms, state, utr=utr
    )


def _require(field: Text, column: str, text: str) -> None:
    if not field.is_legal(text):
        raise FieldProblem(column, field.expected, text)


def payment_row(payment: Payment) -> tuple[str, ...]:
    """A payment's line in GatewayTransaction.txt."""
    terms = payment.terms
    return (
        utc_text(payment.begun_ms),
        terms.payment_id.hex(),
        terms.transaction_id,
        format_amount(terms.amount_minor, terms.currency),
        terms.currency,
        terms.merchant_id,
        *outcome_fields(payment),
    )


def outcome_fields(payment: Payment) -> tuple[str, str, str, str]:
    """The columns of a payment's line from its outcome on."""
    if payment.outcome is None or payment.ended_ms is None:
        return "in-flight", "", "", ""
    ended = utc_text(payment.ended_ms)
    if payment.outcome is TransferOutcome.POSTED:
        return "paid", "", payment.utr, ended
    reason = "payment mismatch" if payment.outcome is TransferOutcome.MISMATCH else _words(payment.reason.name)
    return "declined", reason, "", ended


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def connection_row(effect: ConnectionRecord) -> tuple[str, ...]:
    """A line of LogFiles.txt."""
    host, port = effect.address
    link = str(effect.link_id) if effect.link_id else ""
    return utc_text(effect.at_ms), effect.event, link, host, str(port), effect.reason


def refusal_row(refusal: RefusalRecord) -> tuple[str, ...]:
    """A refused attempt's line in GatewayTransaction.txt."""
    terms = refusal.terms
    at = utc_text(refusal.at_ms)
    amount = format_amount(terms.amount_minor, terms.currency)
    return (
        at,
        terms.payment_id.hex(),
        terms.transaction_id,
        amount,
        terms.currency,
        terms.merchant_id,
        REFUSED,
        _words(refusal.reason.name),
        "",
        at,
    )
