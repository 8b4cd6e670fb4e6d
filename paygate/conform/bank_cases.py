"""All cases of a bank: importing this fills the catalogue."""

from paygate.conform import bank_hello_cases
from paygate.conform.bank_side import BANK

__all__ = ["BANK", "bank_hello_cases"]
