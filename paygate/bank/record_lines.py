"""How the bank's text records look, line by line, and what a line says that people wrote (R16 to R18)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from paygate.bank.ledger import Customer, Merchant, OpenMerchant, Posting
from paygate.clock import utc_text
from paygate.codec.fields import IDENTIFIER, MERCHANT_NAME_OR_EMPTY, PASSWORD, USER_ID, Text
from paygate.codec.money import BadAmount, format_amount, parse_amount
from paygate.files.text_records import Column, FieldProblem, Layout

_AMOUNT_WIDTH: Final = 22  # the largest balance, with its point and a sign
_VERIFIER_MARK: Final = "verifier:"
_VERIFIER: Final = re.compile(rf"{_VERIFIER_MARK}([0-9a-f]{{64}})")

USERS_LAYOUT: Final = Layout(
    "NetbankingUsers.txt",
    "Net-banking customers (R16). Add one by adding a line; a running bank takes it in within a second.",
    (
        Column("customer ID", 16, "letters, digits, '.', '_', '-'; at most 32"),
        Column("user ID", 20, "what the customer types", secret=True),
        Column("password", 73, "plain in a new line; the bank puts its verifier in its place", secret=True),
        Column("amount available", _AMOUNT_WIDTH, "decimal; the opening balance in a new line", align="right"),
    ),
    required_count=4,
)
MERCHANTS_LAYOUT: Final = Layout(
    "Merchant.txt",
    "Merchants (R17). Add one by adding a line; a running bank takes it in within a second.",
    (
        Column("merchant ID", 16, "letters, digits, '.', '_', '-'; at most 32"),
        Column("name", 32, "for people; may be empty"),
        Column("account balance", _AMOUNT_WIDTH, "decimal; the opening balance in a new line", align="right"),
    ),
    required_count=3,
)
TRANSACTIONS_LAYOUT: Final = Layout(
    "TransactionID.txt",
    "Payments that moved money (R18), one line for each Unique Transaction Reference. Written by the bank only.",
    (
        Column("UTR", 22, "bank code, P, channel digit, date, sequence number"),
        Column("customer ID", 16, "who paid"),
        Column("merchant ID", 16, "who was paid"),
        Column("amount", 18, "decimal", align="right"),
        Column("currency", 8, "ISO 4217 code"),
        Column("transaction ID", 16, "the merchant's order"),
        Column("time", 24, "when, by the bank's clock, UTC"),
    ),
    required_count=7,
)


@dataclass(frozen=True, slots=True)
class CustomerLine:
    """A new customer as a line says it: with a plain password or with its verifier."""

    customer_id: str
    user_id: str = field(repr=False)
    password: str | None = field(repr=False)
    verifier: bytes = field(repr=False)
    """Empty with a plain password."""
    amount_minor: int


def parse_customer(fields: Sequence[str], currency: str) -> CustomerLine:
    """A customer from a line's fields. Raises FieldProblem."""
    customer_id, user_id, password, amount_text = fields
    # Other programs may write the same letters in another form; the wire knows form C only.
    user_id, password = (unicodedata.normalize("NFC", text) for text in (user_id, password))
    _require(IDENTIFIER, "customer ID", customer_id)
    _require(USER_ID, "user ID", user_id)
    amount_minor = _parse_balance("amount available", amount_text, currency)
    if not password.startswith(_VERIFIER_MARK):
        _require(PASSWORD, "password", password)
        return CustomerLine(customer_id, user_id, password, b"", amount_minor)
    match = _VERIFIER.fullmatch(password)
    if match is None:
        raise FieldProblem("password", f"a password, or {_VERIFIER_MARK} and 64 hexadecimal digits", "")
    return CustomerLine(customer_id, user_id, None, bytes.fromhex(match[1]), amount_minor)


def parse_merchant(fields: Sequence[str], currency: str) -> OpenMerchant:
    """A merchant from a line's fields. Raises FieldProblem."""
    merchant_id, name, amount_text = fields
    name = unicodedata.normalize("NFC", name)
    _require(IDENTIFIER, "merchant ID", merchant_id)
    _require(MERCHANT_NAME_OR_EMPTY, "name", name)
    return OpenMerchant(merchant_id, name, _parse_balance("account balance", amount_text, currency))


def _require(text_field: Text, column: str, text: str) -> None:
    if not text_field.is_legal(text):
        raise FieldProblem(column, text_field.expected, text)


def _parse_balance(column: str, text: str, currency: str) -> int:
    try:
        return parse_amount(text, currency, zero_allowed=True)
    except BadAmount as bad:
        raise FieldProblem(column, str(bad), text) from None


def customer_row(customer: Customer, currency: str) -> tuple[str, ...]:
    """A customer's line in NetbankingUsers.txt."""
    password = f"{_VERIFIER_MARK}{customer.verifier.hex()}"
    return customer.customer_id, customer.user_id, password, format_amount(customer.balance_minor, currency)


def merchant_row(merchant: Merchant, currency: str) -> tuple[str, ...]:
    """A merchant's line in Merchant.txt."""
    return merchant.merchant_id, merchant.name, format_amount(merchant.balance_minor, currency)


def transaction_row(posting: Posting) -> tuple[str, ...]:
    """A UTR's line in TransactionID.txt."""
    return (
        posting.utr,
        posting.customer_id,
        posting.merchant_id,
        format_amount(posting.amount_minor, posting.currency),
        posting.currency,
        posting.transaction_id,
        utc_text(posting.bank_time_ms),
    )
