"""What a session wants done: plain data, performed by `session.py` in order."""

from dataclasses import dataclass

from paygate.client.payment import Payment
from paygate.client.root import BankRoot
from paygate.codec.messages import SealCredentials


@dataclass(frozen=True, slots=True)
class Connect:
    """Effect: connect to the gateway; then `connected` or `connection_lost`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send these bytes on the connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Effect: send what is queued and close; nothing more is heard of this connection."""


@dataclass(frozen=True, slots=True)
class StartSession:
    """Effect: call `time_up` after `left_ms` (R10)."""

    left_ms: int


@dataclass(frozen=True, slots=True)
class KeepSerial:
    """Effect: remember that this bank's key list had this serial (T10)."""

    root: BankRoot
    serial: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Effect: have the encoder make the envelope; then `sealed` or `seal_failed`."""

    request: SealCredentials


@dataclass(frozen=True, slots=True)
class Save:
    """Effect: write the payment down durably; then `saved` or `save_failed`."""

    payment: Payment


Effect = Connect | Send | Disconnect | StartSession | KeepSerial | Seal | Save
