"""What the gateway's core wants recorded or told: plain data, brought into the text records by the shell.

A `Token` whose state, UTR or tries have changed (R13), and a `Payment` that was begun or has its outcome (R14), are
effects as they are; here is what else is one.
"""

from dataclasses import dataclass

from paygate.codec.codes import Reason
from paygate.codec.sealed import Terms
from paygate.net.addresses import Address


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """R14: an attempt that was refused before the bank saw it; nothing else remembers it."""

    at_ms: int
    terms: Terms
    reason: Reason


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """R15: a client connected, was turned away, or disconnected. `link_id` is 0 if it was turned away."""

    at_ms: int
    event: str
    link_id: int
    address: Address
    reason: str = ""
