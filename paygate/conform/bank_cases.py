"""All cases of a bank: importing this fills the catalogue, in the order of the spec."""

from paygate.conform import (
    bank_body_cases,
    bank_decline_cases,
    bank_frame_cases,
    bank_hello_cases,
    bank_keys_cases,
    bank_limit_cases,
    bank_link_cases,
    bank_resolve_cases,
    bank_transfer_cases,
)
from paygate.conform.bank_side import BANK

__all__ = [
    "BANK",
    "bank_body_cases",
    "bank_decline_cases",
    "bank_frame_cases",
    "bank_hello_cases",
    "bank_keys_cases",
    "bank_limit_cases",
    "bank_link_cases",
    "bank_resolve_cases",
    "bank_transfer_cases",
]
