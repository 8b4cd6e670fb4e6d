"""Amounts as text: decimal in the records and on the screen, whole minor units everywhere else (T34)."""

import re
from typing import Final

from paygate.codec import limits

CURRENCY_EXPONENTS: Final = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"), 0),
    **dict.fromkeys(("PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""ISO 4217 currencies whose minor unit is not a hundredth, with their decimals (spec 3.6)."""
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)


class BadAmount(ValueError):
    """The text is no amount of that currency; the message says what was expected."""


def currency_exponent(currency: str) -> int:
    """How many decimals the currency has (ISO 4217); 2 unless it is one of the exceptions."""
    return CURRENCY_EXPONENTS.get(currency, 2)


def parse_amount(text: str, currency: str, *, zero_allowed: bool = False) -> int:
    """Minor units of a decimal text such as `1250.00`.

    Raises BadAmount for a sign, a blank, too many decimals, 0 unless allowed, or more than AMOUNT_MINOR_MAX.
    Fewer decimals than the currency has are taken as written: `1250` is 1250.00.
    """
    exponent = currency_exponent(currency)
    example = f"such as {format_amount(125_000, currency)}"
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise BadAmount(f"a decimal amount in {currency} without sign or blanks, {example}")
    whole, decimals = match[1], match[2] or ""
    if len(decimals) > exponent:
        raise BadAmount(f"at most {exponent} decimals, as {currency} has, {example}")
    if len(whole) > len(str(limits.AMOUNT_MINOR_MAX)):
        raise BadAmount(f"at most {format_amount(limits.AMOUNT_MINOR_MAX, currency)}")
    amount_minor = int(whole + decimals.ljust(exponent, "0"))
    if amount_minor > limits.AMOUNT_MINOR_MAX:
        raise BadAmount(f"at most {format_amount(limits.AMOUNT_MINOR_MAX, currency)}")
    if amount_minor == 0 and not zero_allowed:
        raise BadAmount(f"an amount greater than 0, {example}")
    return amount_minor


def format_amount(amount_minor: int, currency: str) -> str:
    """The decimal text of minor units, with all the currency's decimals: 125000 INR is `1250.00`."""
    exponent = currency_exponent(currency)
    if exponent == 2 and amount_minor >= 0:  # nearly always, and in every record
        return f"{amount_minor // 100}.{amount_minor % 100:02}"
    sign = "-" if amount_minor < 0 else ""
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}" if exponent else f"{sign}{digits}"
