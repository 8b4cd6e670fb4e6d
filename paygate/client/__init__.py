"""The customer's end: asks for a token, seals credentials that only the bank can read, keeps what it sent."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paygate.client.client import PaygateClient, SessionFailed, TokenAnswer
    from paygate.client.payment import Outcome, Payment, PaymentResult, PaymentState
else:
    # What is named here is imported when it is asked for. The encoder is of this package too, is started for every
    # payment, and needs none of it: with it, its start would take a third longer.
    def __getattr__(name: str) -> object:
        """Import what the package offers, once."""
        if name in ("PaygateClient", "SessionFailed", "TokenAnswer"):
            from paygate.client import client as home
        elif name in ("Outcome", "Payment", "PaymentResult", "PaymentState"):
            from paygate.client import payment as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(home, name)
        return value


__all__ = ["Outcome", "PaygateClient", "Payment", "PaymentResult", "PaymentState", "SessionFailed", "TokenAnswer"]
