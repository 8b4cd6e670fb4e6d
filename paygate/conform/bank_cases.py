"""All cases of a bank: importing this fills the catalogue, in the order of the spec."""

from paygate.conform import (
    answering_body_cases,
    answering_frame_cases,
    answering_hello_cases,
    answering_link_cases,
    bank_decline_cases,
    bank_frame_cases,
    bank_hello_cases,
    bank_keys_cases,
    bank_limit_cases,
    bank_link_cases,
    bank_money_cases,
    bank_resolve_cases,
    bank_restart_cases,
    bank_transfer_cases,
)
from paygate.conform.answering import EVERY_END
from paygate.conform.bank_side import BANK, BANK_END

EVERY_END.declare_for(BANK_END)

__all__ = [
    "BANK",
    "answering_body_cases",
    "answering_frame_cases",
    "answering_hello_cases",
    "answering_link_cases",
    "bank_decline_cases",
    "bank_frame_cases",
    "bank_hello_cases",
    "bank_keys_cases",
    "bank_limit_cases",
    "bank_link_cases",
    "bank_money_cases",
    "bank_resolve_cases",
    "bank_restart_cases",
    "bank_transfer_cases",
]
