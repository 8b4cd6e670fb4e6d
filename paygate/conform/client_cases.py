"""All cases of a client: importing this fills the catalogue."""

from paygate.conform import (
    client_answer_cases,
    client_credentials_cases,
    client_doubt_cases,
    client_frame_cases,
    client_hello_cases,
    client_keys_cases,
    client_late_receipt_cases,
    client_link_cases,
    client_receipt_cases,
    client_token_cases,
)
from paygate.conform.client_shared import CLIENT

__all__ = [
    "CLIENT",
    "client_answer_cases",
    "client_credentials_cases",
    "client_doubt_cases",
    "client_frame_cases",
    "client_hello_cases",
    "client_keys_cases",
    "client_late_receipt_cases",
    "client_link_cases",
    "client_receipt_cases",
    "client_token_cases",
]
