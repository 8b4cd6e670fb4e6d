"""All cases of a gateway: importing this fills the catalogue."""

from paygate.conform import (
    answering_body_cases,
    answering_frame_cases,
    answering_hello_cases,
    answering_link_cases,
    gateway_bank_link_cases,
    gateway_bank_refusal_cases,
    gateway_doubt_cases,
    gateway_link_cases,
    gateway_money_cases,
    gateway_outage_cases,
    gateway_payment_cases,
    gateway_token_cases,
    gateway_transfer_cases,
)
from paygate.conform.answering import EVERY_END
from paygate.conform.gateway_side import GATEWAY, GATEWAY_END

EVERY_END.declare_for(GATEWAY_END)

__all__ = [
    "GATEWAY",
    "answering_body_cases",
    "answering_frame_cases",
    "answering_hello_cases",
    "answering_link_cases",
    "gateway_bank_link_cases",
    "gateway_bank_refusal_cases",
    "gateway_doubt_cases",
    "gateway_link_cases",
    "gateway_money_cases",
    "gateway_outage_cases",
    "gateway_payment_cases",
    "gateway_token_cases",
    "gateway_transfer_cases",
]
