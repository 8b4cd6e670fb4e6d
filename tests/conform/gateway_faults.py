"""Bugs of a gateway, made by a double before it (what it says to clients) or between it and its bank.

On the client link the double's `kit` is the client and its `bank` the gateway; on the bank link its `kit` is the
gateway. Faults of framing and links are those of any answering end, in `faults`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from conform.double import Fault, Pipe, correlation_of, frames_in, is_kind, message_of, remade
from conform.payment_faults import new_utr

from paygate.codec import limits
from paygate.codec.codes import Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import encode_record
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Echo,
    EchoReply,
    EncryptedCredentials,
    Error,
    Hello,
    HelloAck,
    Message,
    PaymentAck,
    PaymentAnswer,
    ResolveRequest,
    TokenAck,
    TokenQuery,
    TransferAnswer,
    TransferRequest,
    TransferResult,
)
from paygate.conform.craft import draft

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


class LosesAnswers(Fault):
    """The credentials are never answered."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not is_kind(frame, Kind.PAYMENT_ACK):
            pipe.to_kit(frame)


# -- what is said to the bank ----------------------------------------------------------------------------


class ToBank(Fault):
    """A gateway with a bug towards its bank; each frame is whole, whatever the segments."""

    def __init__(self) -> None:
        self._rest: dict[Pipe, bytes] = {}

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        frames = frames_in(self._rest.pop(pipe, b"") + data)
        if frames and not _is_whole(frames[-1]):
            self._rest[pipe] = frames.pop()
        for frame in frames:
            self.from_gateway(pipe, frame, message_of(frame))

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)

    def from_bank_data(self, pipe: Pipe, data: bytes) -> None:
        # The bank is the kit, which sends parts of frames and what is none: those pass as they are.
        for frame in frames_in(data):
            if _is_whole(frame):
                self.from_bank(pipe, frame)
            else:
                pipe.to_kit(frame)


def _is_whole(frame: bytes) -> bool:
    size = limits.HEADER_SIZE + int.from_bytes(frame[6:8]) + (limits.MAC_SIZE if frame[5:6] == b"\1" else 0)
    return limits.HEADER_SIZE <= len(frame) == size


class ByToken(ToBank):
    """Each token's payments have their own fault, so that one gateway serves many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, ToBank] = {}

    def from_bank_data(self, pipe: Pipe, data: bytes) -> None:
        # Nobody sends anything but frames to all of these at once, however the segments fall.
        Fault.from_bank_data(self, pipe, data)

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        fault = self._fault_of(message)
        if fault is None:
            pipe.to_bank(frame)
        else:
            fault.from_gateway(pipe, frame, message)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        fault = self._fault_of(pipe.asked.get(correlation_of(frame)))
        if fault is None:
            pipe.to_kit(frame)
        else:
            fault.from_bank(pipe, frame)

    def _fault_of(self, message: Message | None) -> ToBank | None:
        if isinstance(message, TransferRequest | ResolveRequest):
            return self.faults.get(message.terms.transaction_id)
        return None


class Asks(ToBank):
    """Alters what the bank is asked, where `when` holds."""

    def __init__(
        self, cls: type[Message], alter: Callable[[Any], Message], when: Callable[[Any], bool] = lambda _: True
    ):
        super().__init__()
        self._cls, self._alter, self._when = cls, alter, when

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, self._cls) and self._when(message):
            frame = remade(frame, pipe.link_key, body=encode_record(self._alter(message)))
        pipe.to_bank(frame)


def terms_with(**changes: Any) -> Callable[[Any], Message]:
    """The request with other terms."""
    return lambda request: dataclasses.replace(request, terms=dataclasses.replace(request.terms, **changes))


class AsksTwice(ToBank):
    """Every request for a payment is sent a second time, `after_ms` later; that answer is dropped."""

    def __init__(self, kind: Kind, after_ms: int) -> None:
        super().__init__()
        self._kind, self._after_ms = kind, after_ms

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)
        if is_kind(frame, self._kind):
            again = remade(frame, pipe.link_key, correlation_id=correlation_of(frame) | 1 << 62)
            pipe.double.loop.call_later(self._after_ms, partial(pipe.to_bank, again))

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not correlation_of(frame) >> 62:
            pipe.to_kit(frame)


class AsksOften(ToBank):
    """Of the ResolveRequests only the first `count` are sent."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left: Counter[bytes] = Counter()
        self._count = count

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, ResolveRequest):
            self._left[message.terms.payment_id] += 1
            if self._left[message.terms.payment_id] > self._count:
                return
        pipe.to_bank(frame)


class Forgets(AsksOften):
    """Breaks its link under a payment, and on the next knows nothing of what was asked before."""

    def __init__(self) -> None:
        super().__init__(0)

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        super().from_gateway(pipe, frame, message)
        if isinstance(message, TransferRequest):
            pipe.double.loop.call_later(300, pipe.close)


class Hears(ToBank):
    """Takes a result for another one, forged as only the bank can, where `when` holds of result and request."""

    def __init__(self, outcome: TransferOutcome, reason: Reason, when: Callable[[Any, Any], bool]) -> None:
        super().__init__()
        self._outcome, self._reason, self._when = outcome, reason, when

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(request, TransferRequest | ResolveRequest) and self._when(message, request):
            payment_id = request.terms.payment_id
            base = TransferResult(payment_id, TransferOutcome.UNAVAILABLE, Reason.NONE, "", b"")
            utr = new_utr() if self._outcome is TransferOutcome.POSTED else ""
            frame = remade(
                frame,
                pipe.link_key,
                kind=int(request.kind.reply),
                body=encode_record(pipe.double.forged(request, base, self._outcome, self._reason, utr)),
            )
        pipe.to_kit(frame)


def is_of_another(message: Any, request: Any) -> bool:
    """Whether the result is of another payment than the request."""
    return isinstance(message, TransferAnswer) and message.payment_id != request.terms.payment_id


class HearsNothing(ToBank):
    """Every `of_count`-th result is lost."""

    def __init__(self, of_count: int = 1) -> None:
        super().__init__()
        self._of_count = of_count
        self._seen = 0

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        self._seen += isinstance(message_of(frame), TransferAnswer)
        if not isinstance(message_of(frame), TransferAnswer) or self._seen % self._of_count:
            pipe.to_kit(frame)


class MatchesByCorrelation(ToBank):
    """A result whose payment is not that of its request is taken for no answer."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if not isinstance(request, TransferRequest) or not is_of_another(message, request):
            pipe.to_kit(frame)


# -- the bank link itself --------------------------------------------------------------------------------


class SaysWrongCode(ToBank):
    """Every Error to the bank says INTERNAL."""

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, Error):
            body = encode_record(dataclasses.replace(message, code=ErrorCode.INTERNAL))
            frame = remade(frame, pipe.link_key, body=body)
        pipe.to_bank(frame)


class ClosesOnBank(ToBank):
    """The link is closed without an Error."""

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if not isinstance(message, Error):
            pipe.to_bank(frame)


class StaysWithBank(ToBank):
    """After an Error the link to the bank stays open."""

    def kit_ended(self, pipe: Pipe) -> None:
        pass


class TakesAnyAck(ToBank):
    """Whatever HelloAck comes opens the link."""

    def __init__(self, bank_id: str) -> None:
        super().__init__()
        self._ack = HelloAck(Role.BANK, bank_id, 1, 65_571)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if is_kind(frame, Kind.HELLO_ACK):
            pipe.to_kit(draft(self._ack, pipe.link_key, correlation_of(frame)).encode())
        elif not is_kind(frame, Kind.ECHO) or pipe.held:
            pipe.to_kit(frame)
        else:  # before hello it is passed over
            return
        pipe.held.append(b"opened")


class AnswersErrors(ToBank):
    """An Error of the bank is answered by an Error."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if is_kind(frame, Kind.ERROR):
            error = Error(ErrorCode.NOT_AUTHENTICATED, closes=True, text="")
            pipe.to_bank(draft(error, pipe.link_key, 0).encode())
        pipe.to_kit(frame)


class AsksBehind(ToBank):
    """Sends a message right behind its Hello."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self._message = message

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)
        if isinstance(message, Hello):
            pipe.to_bank(draft(self._message, pipe.link_key, 1 << 40).encode())


class AsksLater(ToBank):
    """Sends a message behind each query for the key list."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self._message = message

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)
        if isinstance(message, BankKeysQuery):
            pipe.to_bank(draft(self._message, pipe.link_key, 1 << 40).encode())


class HelloOfAnother(ToBank):
    """Says another gateway's name, though under the own key."""

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if isinstance(message, Hello):
            key = pipe.link_key
            frame = draft(dataclasses.replace(message, party_id="OTHER"), key, correlation_of(frame)).encode()
        pipe.to_bank(frame)


class NeverTests(ToBank):
    """No link test is sent."""

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if not isinstance(message, Echo):
            pipe.to_bank(frame)


class HasNoTimers(ToBank):
    """No timer of the bank link runs out: the Errors that say so are not sent, and the link stays."""

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        if not isinstance(message, Error):
            pipe.to_bank(frame)

    def kit_ended(self, pipe: Pipe) -> None:
        pass
