"""Amounts: what is written is what is meant, to the last minor unit, or it is refused (T34)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec import limits
from paygate.codec.fields import AMOUNT_MINOR
from paygate.codec.money import BadAmount, currency_exponent, format_amount, parse_amount

AMOUNTS = st.integers(0, limits.AMOUNT_MINOR_MAX)
CURRENCIES = st.sampled_from(["INR", "EUR", "JPY", "KWD", "CLF", "XXX"])


@pytest.mark.parametrize(
    ("currency", "exponent"),
    [("INR", 2), ("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("ISK", 0), ("KWD", 3), ("BHD", 3), ("CLF", 4)],
)
def test_exponents_are_those_of_iso_4217(currency: str, exponent: int) -> None:
    assert currency_exponent(currency) == exponent


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [
        ("1250.00", "INR", 125_000),
        ("1250", "INR", 125_000),
        ("1250.5", "INR", 125_050),
        ("0.01", "INR", 1),
        ("1250", "JPY", 1_250),
        ("1", "JPY", 1),
        ("1250.000", "KWD", 1_250_000),
        ("1250.5", "KWD", 1_250_500),
        ("0.001", "KWD", 1),
        ("9999999999999.99", "INR", limits.AMOUNT_MINOR_MAX),
        ("999999999999999", "JPY", limits.AMOUNT_MINOR_MAX),
        ("999999999999.999", "KWD", limits.AMOUNT_MINOR_MAX),
    ],
)
def test_amounts_are_read_exactly(text: str, currency: str, amount_minor: int) -> None:
    assert parse_amount(text, currency) == amount_minor
    assert AMOUNT_MINOR.is_legal(amount_minor)


@pytest.mark.parametrize(
    ("text", "currency", "expected"),
    [
        ("0", "INR", "an amount greater than 0"),
        ("0.00", "INR", "an amount greater than 0"),
        ("-1", "INR", "without sign or blanks"),
        ("-0.01", "INR", "without sign or blanks"),
        ("+1", "INR", "without sign or blanks"),
        ("\u22121", "INR", "without sign or blanks"),  # a minus sign that is no hyphen
        ("1.001", "INR", "at most 2 decimals, as INR has"),
        ("1.000", "INR", "at most 2 decimals, as INR has"),
        ("1.0", "JPY", "at most 0 decimals, as JPY has"),
        ("1.0000", "KWD", "at most 3 decimals, as KWD has"),
        ("10000000000000", "INR", "at most 9999999999999.99"),
        ("1000000000000000", "JPY", "at most 999999999999999"),
        ("9" * 5_000, "INR", "at most 9999999999999.99"),  # before int() is asked for a giant
        ("", "INR", "a decimal amount in INR"),
        (" 1", "INR", "a decimal amount in INR"),
        ("1 ", "INR", "a decimal amount in INR"),
        ("1\n", "INR", "a decimal amount in INR"),
        ("01", "INR", "a decimal amount in INR"),
        (".5", "INR", "a decimal amount in INR"),
        ("1.", "INR", "a decimal amount in INR"),
        ("1,250.00", "INR", "a decimal amount in INR"),
        ("1_000", "INR", "a decimal amount in INR"),
        ("1e3", "INR", "a decimal amount in INR"),
        ("0x10", "INR", "a decimal amount in INR"),
        ("nan", "INR", "a decimal amount in INR"),
        ("inf", "INR", "a decimal amount in INR"),
        ("\u0967\u0968", "INR", "a decimal amount in INR"),  # Devanagari digits
        ("\uff11", "INR", "a decimal amount in INR"),  # full-width digit
    ],
)
def test_everything_else_is_refused(text: str, currency: str, expected: str) -> None:
    with pytest.raises(BadAmount, match=re.escape(expected)):
        parse_amount(text, currency)


def test_zero_is_an_amount_where_it_is_allowed() -> None:
    assert parse_amount("0.00", "INR", zero_allowed=True) == 0
    with pytest.raises(BadAmount):
        parse_amount("-0", "INR", zero_allowed=True)


@given(AMOUNTS, CURRENCIES)
def test_every_amount_comes_back_from_its_text(amount_minor: int, currency: str) -> None:
    text = format_amount(amount_minor, currency)
    assert parse_amount(text, currency, zero_allowed=True) == amount_minor
    decimals = text.partition(".")[2]
    assert len(decimals) == currency_exponent(currency)


@given(AMOUNTS, AMOUNTS, CURRENCIES)
def test_two_amounts_never_share_a_text(one: int, other: int, currency: str) -> None:
    assert (format_amount(one, currency) == format_amount(other, currency)) is (one == other)


@given(st.text(max_size=24), CURRENCIES)
def test_any_text_is_an_amount_or_refused(text: str, currency: str) -> None:
    try:
        amount_minor = parse_amount(text, currency)
    except BadAmount:
        return
    assert AMOUNT_MINOR.is_legal(amount_minor)


@given(st.from_regex(r"[0-9]{0,17}(\.[0-9]{0,5})?", fullmatch=True), CURRENCIES)
def test_an_accepted_text_means_its_digits(text: str, currency: str) -> None:
    try:
        amount_minor = parse_amount(text, currency)
    except BadAmount:
        return
    # In whole tenths of a thousandth, by integers alone.
    whole, _, decimals = text.partition(".")
    assert amount_minor * 10 ** (4 - currency_exponent(currency)) == int(whole + decimals.ljust(4, "0"))


@pytest.mark.pg("PG-ENC-12")
@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [(0, "INR", "0.00"), (5, "INR", "0.05"), (5, "JPY", "5"), (5, "KWD", "0.005"), (-125_000, "INR", "-1250.00")],
)
def test_amounts_are_written_with_all_their_decimals(amount_minor: int, currency: str, text: str) -> None:
    assert format_amount(amount_minor, currency) == text
