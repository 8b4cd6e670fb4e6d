"""Bugs of a gateway in what it says to clients, made by a double before it; the double's `bank` is the gateway.

Faults of framing and links are those of any answering end, in `faults`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from conform.double import Fault, Pipe, correlation_of, frames_in, is_kind, message_of, remade
from conform.payment_faults import new_utr

from paygate.codec.codes import Kind, PaymentStatus, Reason, TokenStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Echo,
    EchoReply,
    EncryptedCredentials,
    Error,
    Hello,
    Message,
    PaymentAck,
    PaymentAnswer,
    TokenAck,
    TokenQuery,
)
from paygate.codec.record_codec import encode_record

SESSION = bytes(range(1, 17))


# -- what is said to clients -----------------------------------------------------------------------------


@dataclasses.dataclass
class Says(Fault):
    """Alters what the gateway says to a client: a message of this class of which `when` holds."""

    cls: type[Message]
    alter: Callable[[Any], Message]
    when: Callable[[Any], bool] = lambda _: True

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, self.cls) and self.when(message):
            frame = remade(frame, pipe.link_key, body=encode_record(self.alter(message)))
        pipe.to_kit(frame)


def with_(**changes: Any) -> Callable[[Any], Message]:
    """The message with other values."""
    return lambda message: dataclasses.replace(message, **changes)


def is_(status: Any, reason: Reason | None = None) -> Callable[[Any], bool]:
    """Whether the message has this status, and this reason if one is given."""
    return lambda message: message.status is status and reason in (None, getattr(message, "reason", None))


def answers_instead(
    cls: type[PaymentAnswer], status: PaymentStatus, reason: Reason | None = None
) -> Callable[..., Says]:
    """Says a plain status, and perhaps a gateway's reason, in place of what `when` is true of."""
    changes = {"status": status, "reason": reason or Reason.NONE, "utr": "", "receipt": b""}
    return lambda when=lambda _: True: Says(cls, with_(**changes), when)


def other_signature(answer: PaymentAnswer) -> PaymentAnswer:
    """The receipt with one bit of its signature changed."""
    return dataclasses.replace(answer, receipt=_last_bit_changed(answer.receipt))


def other_list(keys: BankKeys) -> BankKeys:
    """The key list with one bit of its signature changed."""
    return dataclasses.replace(keys, signed_key_list=_last_bit_changed(keys.signed_key_list))


def _last_bit_changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def other_utr(message: Any) -> Any:
    """Another UTR, where there is one."""
    return dataclasses.replace(message, utr=new_utr()) if message.utr else message


def as_invalid(ack: TokenAck) -> TokenAck:
    """Says INVALID, and nothing of the token."""
    return _bare(ack, TokenStatus.INVALID)


def as_locked(ack: TokenAck) -> TokenAck:
    """Says LOCKED, and nothing of the token."""
    return _bare(ack, TokenStatus.LOCKED)


def _bare(ack: TokenAck, status: TokenStatus) -> TokenAck:
    nothing: dict[str, Any] = {"merchant_id": "", "merchant_name": "", "amount_minor": 0, "currency": "", "utr": ""}
    return dataclasses.replace(ack, status=status, session_id=bytes(16), session_left_ms=0, **nothing)


def as_in_flight(ack: TokenAck) -> TokenAck:
    """Says IN_FLIGHT."""
    return dataclasses.replace(ack, status=TokenStatus.IN_FLIGHT, session_id=bytes(16), session_left_ms=0, utr="")


def as_valid(ack: TokenAck) -> TokenAck:
    """Opens a session for a token that can't be paid."""
    return dataclasses.replace(ack, status=TokenStatus.VALID, session_id=SESSION, session_left_ms=30_000, utr="")


def same_beginning(ack: TokenAck) -> TokenAck:
    """Every session ID begins with the same bytes."""
    session_id = SESSION[:4] + ack.session_id[4:] if any(ack.session_id) else ack.session_id
    return dataclasses.replace(ack, session_id=session_id)


class OfRequests(Fault):
    """Alters frames of the client; what is no frame passes."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        for frame in frames_in(data):
            self.asked(pipe, frame, message_of(frame))

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)


class OneNameForAll(OfRequests):
    """Only one client is let in: whoever gives another name than the kit does is refused."""

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, Hello) and message.party_id != "paygate-conform":
            pipe.fail(ErrorCode.BAD_VALUE)
        else:
            pipe.to_bank(frame)


class OneBankForAll(OfRequests):
    """Whichever bank is asked for, the own one's list is given."""

    def __init__(self, bank_id: str) -> None:
        self._bank_id = bank_id

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, BankKeysQuery):
            frame = remade(frame, pipe.link_key, body=encode_record(BankKeysQuery(self._bank_id)))
        pipe.to_bank(frame)


class KeepsList(Fault):
    """The first key list is relayed for ever."""

    def __init__(self) -> None:
        self._first: BankKeys | None = None

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, BankKeys):
            self._first = self._first or message
            frame = remade(frame, pipe.link_key, body=encode_record(self._first))
        pipe.to_kit(frame)


class TellsWhatCame(Fault):
    """The text of an Error holds what was received."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        pipe.held[:] = [data]
        pipe.to_bank(data)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, Error):
            text = "".join(chr(byte) for byte in pipe.held[0][20:] if 32 <= byte < 127)[:120]
            frame = remade(frame, pipe.link_key, body=encode_record(dataclasses.replace(message, text=text)))
        pipe.to_kit(frame)


class ReadsOn(Fault):
    """After an Error that closes the rest is served all the same."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        pipe.held += [frame for frame in frames_in(data[20:]) if isinstance(message_of(frame), Echo)]
        pipe.to_bank(data)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        pipe.to_kit(frame)
        if is_kind(frame, Kind.ERROR):
            for later in pipe.held:
                echo = message_of(later)
                assert isinstance(echo, Echo)
                pipe.message_to_kit(EchoReply(echo.echo_data), correlation_of(later))


class TellsUnknownApart(Fault):
    """What nobody issued is answered under another bank's name."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(message, TokenAck) and isinstance(request, TokenQuery) and request.passcode == "nobody-knows":
            frame = remade(frame, pipe.link_key, body=encode_record(dataclasses.replace(message, bank_id="OTHER")))
        pipe.to_kit(frame)


class NeverLocksUnknown(Fault):
    """Transaction IDs that nobody issued are never locked."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(message, TokenAck) and isinstance(request, TokenQuery) and request.passcode == "nobody-knows":
            frame = remade(frame, pipe.link_key, body=encode_record(as_invalid(message)))
        pipe.to_kit(frame)


class CountsForEver(Fault):
    """A right passcode does not make the wrong ones before it forgotten."""

    def __init__(self) -> None:
        self._wrong: Counter[str] = Counter()

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(message, TokenAck) and isinstance(request, TokenQuery):
            if self._wrong[request.transaction_id] >= 5:
                frame = remade(frame, pipe.link_key, body=encode_record(as_locked(message)))
            self._wrong[request.transaction_id] += message.status is TokenStatus.INVALID
        pipe.to_kit(frame)


class LastSessionOnly(OfRequests):
    """A new session ends the ones before it."""

    def __init__(self) -> None:
        self._last = b""

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, EncryptedCredentials) and message.session_id != self._last:
            refused = PaymentAck(message.payment_id, PaymentStatus.REFUSED, Reason.SESSION, "", b"")
            pipe.message_to_kit(refused, correlation_of(frame))
        else:
            pipe.to_bank(frame)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, TokenAck) and any(message.session_id):
            self._last = message.session_id
        pipe.to_kit(frame)


class StaysInFlight(Fault):
    """A token that a payment was begun for is IN_FLIGHT for ever."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(message, TokenAck) and isinstance(request, TokenQuery):
            self._seen[request.transaction_id] += 1
            if self._seen[request.transaction_id] > 1:
                frame = remade(frame, pipe.link_key, body=encode_record(as_in_flight(message)))
        pipe.to_kit(frame)


@dataclasses.dataclass
class AnswersFirst(Fault):
    """Any question for a payment ID gets the first answer to it that was final, if `when` is true of the right one."""

    when: Callable[[PaymentAnswer], bool]
    first: dict[bytes, PaymentAnswer] = dataclasses.field(default_factory=dict)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, PaymentAnswer):
            known = self.first.get(message.payment_id)
            if known is not None and self.when(message):
                changes = {name: getattr(known, name) for name in ("status", "reason", "utr", "receipt")}
                frame = remade(frame, pipe.link_key, body=encode_record(dataclasses.replace(message, **changes)))
            elif message.receipt:
                self.first[message.payment_id] = message
        pipe.to_kit(frame)


@dataclasses.dataclass
class RepeatsAre(Fault):
    """Of several answers for a payment only the first is right; the others say this."""

    status: PaymentStatus
    reason: Reason = Reason.NONE
    seen: Counter[bytes] = dataclasses.field(default_factory=Counter)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, PaymentAnswer):
            self.seen[message.payment_id] += 1
            if self.seen[message.payment_id] > 1:
                answer = dataclasses.replace(message, status=self.status, reason=self.reason, utr="", receipt=b"")
                frame = remade(frame, pipe.link_key, body=encode_record(answer))
        pipe.to_kit(frame)


class MixesUpAnswers(Fault):
    """Two PaymentAcks in a row have each other's correlation IDs."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.PAYMENT_ACK):
            pipe.to_kit(frame)
            return
        pipe.held.append(frame)
        if len(pipe.held) == 2:
            first, second = pipe.held
            pipe.to_kit(remade(first, pipe.link_key, correlation_id=correlation_of(second)))
            pipe.to_kit(remade(second, pipe.link_key, correlation_id=correlation_of(first)))
            pipe.held.clear()


class FewMayWait(OfRequests):
    """Of one client a hundred requests may wait."""

    def __init__(self) -> None:
        self._count: Counter[Pipe] = Counter()

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        self._count[pipe] += isinstance(message, EncryptedCredentials)
        if isinstance(message, EncryptedCredentials) and self._count[pipe] > 100:
            error = Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text="")
            pipe.message_to_kit(error, correlation_of(frame))
        else:
            pipe.to_bank(frame)


class RefusesOneLate(OfRequests):
    """No bug: of many credentials on a link one gets TOO_MANY_REQUESTS, told behind an answer to the others."""

    def __init__(self) -> None:
        self._count: Counter[Pipe] = Counter()
        self._refused: dict[Pipe, int] = {}

    def asked(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        self._count[pipe] += isinstance(message, EncryptedCredentials)
        if isinstance(message, EncryptedCredentials) and self._count[pipe] == 2:
            self._refused[pipe] = correlation_of(frame)
        else:
            pipe.to_bank(frame)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        pipe.to_kit(frame)
        if pipe in self._refused and is_kind(frame, Kind.PAYMENT_ACK):
            error = Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text="")
            pipe.message_to_kit(error, self._refused.pop(pipe))


class AfterRestart(Fault):
    """Looks as if it were killed once a token is LOCKED, and from then on has another fault."""

    def __init__(self, then: Fault) -> None:
        self._then = then
        self._is_restarted = False

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if self._is_restarted:
            self._then.from_bank(pipe, frame)
            return
        pipe.to_kit(frame)
        message = message_of(frame)
        if isinstance(message, TokenAck) and message.status is TokenStatus.LOCKED:
            self._is_restarted = True
            pipe.double.loop.call_later(50, pipe.close)


class LosesAnswers(Fault):
    """The credentials are never answered."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.PAYMENT_ACK):
            pipe.to_kit(frame)
