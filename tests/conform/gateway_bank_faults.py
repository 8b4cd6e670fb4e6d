"""Bugs of a gateway towards its bank, made by a double between them; its `kit` is the gateway."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from conform.double import Fault, Pipe, correlation_of, frames_in, is_kind, message_of, remade
from conform.payment_faults import new_utr

from paygate.codec import limits
from paygate.codec.codes import Kind, Reason, Role, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeysQuery,
    Echo,
    Error,
    Hello,
    HelloAck,
    Message,
    ResolveRequest,
    TransferAnswer,
    TransferRequest,
    TransferResult,
)
from paygate.codec.record_codec import encode_record
from paygate.conform.craft import draft

INVENTED = 1 << 62
"""Bit of the correlation ID of what a fault asks in the gateway's name."""

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
        if correlation_of(frame) & INVENTED and isinstance(message_of(frame), TransferAnswer):
            return  # the gateway knows nothing of what a fault asked in its name
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
    """Every request of this kind is sent a second time, `after_ms` later. For `ByToken`, which drops that answer."""

    def __init__(self, kind: Kind, after_ms: int) -> None:
        super().__init__()
        self._kind, self._after_ms = kind, after_ms

    def from_gateway(self, pipe: Pipe, frame: bytes, message: Message | None) -> None:
        pipe.to_bank(frame)
        if is_kind(frame, self._kind):
            again = remade(frame, pipe.link_key, correlation_id=correlation_of(frame) | INVENTED)
            pipe.double.loop.call_later(self._after_ms, partial(pipe.to_bank, again))


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


class Misses(ToBank):
    """An answer is lost where `when` holds of it and its request."""

    def __init__(self, when: Callable[[Any, Any], bool]) -> None:
        super().__init__()
        self._when = when

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        if not self._when(message_of(frame), pipe.asked.get(correlation_of(frame))):
            pipe.to_kit(frame)


class EndsWhatIsInFlight(ToBank):
    """That a payment was declined ends the latest of its token, whichever it was."""

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, TransferResult) and message.outcome is TransferOutcome.DECLINED:
            requests = [request for request in pipe.asked.values() if isinstance(request, TransferRequest)]
            (of_it,) = (r.terms for r in requests if r.terms.payment_id == message.payment_id)
            latest = [r for r in requests if r.terms.transaction_id == of_it.transaction_id][-1]
            forged = pipe.double.forged(latest, message, message.outcome, message.reason)
            frame = remade(frame, pipe.link_key, body=encode_record(forged))
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
