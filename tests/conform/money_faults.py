"""Bugs of a bank that take money, or let it be taken, behind answers that are right."""

from collections.abc import Callable

from conform.double import Double, Fault, Pipe, correlation_of, frames_in, message_of
from conform.payment_faults import Answers, Ask

from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.messages import ResolveRequest, ResolveResult, TransferAnswer, TransferRequest, TransferResult


class TakesMore(Answers):
    """Some answers take the amount as well, whatever they say: it shows only in what is left.

    What is left is kept here, of one customer who pays all that passes; what the real bank posts beyond it is declined.
    `when` is told whether the request is a repeat.
    """

    def __init__(self, balance_minor: int, when: Callable[[Ask, TransferAnswer, bool], bool]) -> None:
        super().__init__(self._answer)
        self._left_minor = balance_minor
        self._when = when
        self._seen: set[bytes] = set()

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        is_repeat = reply.payment_id in self._seen
        self._seen.add(reply.payment_id)
        if self._when(request, reply, is_repeat):
            self._left_minor -= request.terms.amount_minor
        elif reply.outcome is TransferOutcome.POSTED and not is_repeat:
            if request.terms.amount_minor > self._left_minor:
                return double.forged(request, reply, TransferOutcome.DECLINED, Reason.FUNDS)
            self._left_minor -= request.terms.amount_minor
        return reply


def by_replay(request: Ask, reply: TransferAnswer, is_repeat: bool) -> bool:
    """A transfer that was posted before."""
    return is_repeat and isinstance(request, TransferRequest) and reply.outcome is TransferOutcome.POSTED


def by_resolve(request: Ask, reply: TransferAnswer, is_repeat: bool) -> bool:
    """A resolve of a transfer that was posted."""
    return isinstance(request, ResolveRequest) and reply.outcome is TransferOutcome.POSTED


def by_mismatch(request: Ask, reply: TransferAnswer, is_repeat: bool) -> bool:
    """A transfer whose payment ID is another's."""
    return isinstance(request, TransferRequest) and reply.outcome is TransferOutcome.MISMATCH


def by_fenced(request: Ask, reply: TransferAnswer, is_repeat: bool) -> bool:
    """A transfer behind its fence."""
    return isinstance(request, TransferRequest) and reply.outcome is TransferOutcome.FENCED


def by_decline(reason: Reason) -> Callable[[Ask, TransferAnswer, bool], bool]:
    """A transfer that is declined for this reason."""
    return lambda _request, reply, _is_repeat: reply.reason is reason


class OneGuessASegment(Fault):
    """Of the wrong passwords in one segment only the first is counted; the others are declined like it."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        asked = [(frame, message_of(frame)) for frame in frames_in(data)]
        transfers = [(frame, message) for frame, message in asked if isinstance(message, TransferRequest)]
        for frame, request in transfers[1:]:
            told = TransferResult(request.terms.payment_id, TransferOutcome.DECLINED, Reason.CREDENTIALS, "", b"")
            answer = pipe.double.forged(request, told, TransferOutcome.DECLINED, Reason.CREDENTIALS)
            pipe.message_to_kit(answer, correlation_of(frame))
        left_out = {frame for frame, _ in transfers[1:]}
        pipe.to_bank(b"".join(frame for frame, _ in asked if frame not in left_out))


class KnowsAllItsGateways(Fault):
    """Terms may name any gateway that the bank knows, whosever link it is."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        request = message_of(data)
        others = pipe.double.secrets.link_keys.keys() - {pipe.gateway_id}
        if isinstance(request, Ask) and request.terms.gateway_id in others:
            result = TransferResult if isinstance(request, TransferRequest) else ResolveResult
            told = result(request.terms.payment_id, TransferOutcome.UNAVAILABLE, Reason.NONE, "", b"")
            pipe.message_to_kit(told, correlation_of(data))
        else:
            pipe.to_bank(data)
