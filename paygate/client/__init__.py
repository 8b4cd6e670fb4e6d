"""The customer's end: asks for a token, seals credentials that only the bank can read, keeps what it sent."""

from paygate.client.client import PaygateClient, SessionFailed, TokenAnswer
from paygate.client.payment import Outcome, Payment, PaymentResult, PaymentState

__all__ = ["Outcome", "PaygateClient", "Payment", "PaymentResult", "PaymentState", "SessionFailed", "TokenAnswer"]
