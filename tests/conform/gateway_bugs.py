"""Every bug of a gateway, and the cases that it must fail: the table behind `test_gateway`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from conform import faults
from conform import gateway_bank_faults as gb
from conform import gateway_faults as gf
from conform.double import Fault
from conform.gateway_bank_faults import Asks, Hears, ToBank, is_of_another, terms_with
from conform.gateway_bench import BUG_PATIENCE_MS
from conform.gateway_faults import Says, answers_instead, is_, with_

from paygate.codec.codes import Kind, PaymentStatus, Reason, Role, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EchoReply,
    Error,
    Hello,
    HelloAck,
    PaymentAck,
    PaymentAnswer,
    ResolveRequest,
    StatusAck,
    StatusQuery,
    TokenAck,
    TransferAnswer,
    TransferRequest,
)
from paygate.conform.gateway_cases import GATEWAY
from paygate.conform.world import default_world

BANK_ID: Final = str(default_world(b"")["bank"]["bank_id"])
_REFUSING_GROUPS: Final = ("hello", "header", "size", "frame", "value", "body", "timer")
"""Groups of cases about what must be refused, which need no token."""
PATIENT_MS: Final = 10_000
"""What must pass, or must not fail for being slow, has time: hundreds of others run in the same process."""
_MANY: Final = {"results.out_of_order": 48}
_TOKEN_COUNT: Final = 9
"""Tokens that a case takes at most, unless `_MANY` says more."""


@dataclass(frozen=True)
class GatewayBug:
    """A fault towards clients, or of one token's payments towards the bank, and a case that it must fail."""

    name: str
    case_id: str
    to_clients: Callable[[], Fault] | None = None
    to_bank: Callable[[], ToBank] | None = None

    @property
    def token_count(self) -> int:
        """How many tokens the case takes at most."""
        name = self.case_id.removeprefix("gateway.")
        return _MANY.get(name, 0 if name.split(".")[0] in _REFUSING_GROUPS else _TOKEN_COUNT)

    def __str__(self) -> str:
        return f"{self.name}-{self.case_id}"


@dataclass(frozen=True)
class StationBug:
    """A fault of the bank link as such, so of a whole gateway, and the cases that it must fail, one after another."""

    name: str
    case_ids: tuple[str, ...]
    to_bank: Callable[[], Fault] = Fault
    to_clients: Callable[[], Fault] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Of the command line, if the case needs some."""
    patience_ms: int = BUG_PATIENCE_MS

    def __str__(self) -> str:
        return self.name


_pending = answers_instead(PaymentAck, PaymentStatus.PENDING)
_refused = answers_instead(PaymentAck, PaymentStatus.REFUSED, Reason.SESSION)
_status_pending = answers_instead(StatusAck, PaymentStatus.PENDING)
_status_unknown = answers_instead(StatusAck, PaymentStatus.UNKNOWN)

_TO_CLIENTS: Final[dict[str, tuple[Callable[[], Fault], tuple[str, ...]]]] = {
    # frames and links, as of any answering end
    "waits for the body": (
        faults.WaitsForBody,
        (
            *("header.version", "header.unknown_kind", "header.reserved_kind", "header.pipe_kind"),
            *("header.unknown_flag", "header.unexpected_mac", "header.order_of_checks", "hello.requests_before"),
            *("requests.wrong_route", "size.hello", "size.encrypted_credentials_too_large", "size.echo_too_large"),
        ),
    ),
    "a segment is a frame": (faults.SegmentIsFrame, ("stream.split", "stream.split_payment")),
    "one frame a segment": (faults.OneFrameASegment, ("stream.glued", "stream.glued_payments")),
    "small buffer": (faults.SmallBuffer, ("size.extremes", "pay.hybrid", "transfer.request")),
    "HelloAck of a bank": (lambda: Says(HelloAck, with_(role=Role.BANK)), ("hello.opens",)),
    "HelloAck of another gateway": (lambda: Says(HelloAck, with_(party_id="OTHER")), ("hello.opens",)),
    "HelloAck of version 2": (lambda: Says(HelloAck, with_(version=2)), ("hello.opens", "hello.versions")),
    "takes small frames only": (lambda: Says(HelloAck, with_(frame_size_max=1_024)), ("hello.opens",)),
    "first version only": (faults.FirstVersionOnly, ("hello.versions",)),
    "one name for all": (gf.OneNameForAll, ("hello.party_id_is_free",)),
    "Echo comes back changed": (
        lambda: Says(EchoReply, lambda reply: EchoReply(reply.echo_data[::-1])),
        ("echo.answered", "requests.pipelined"),
    ),
    "answers in order": (faults.AnswersInOrder, ("requests.pipelined",)),
    "loses a reply": (faults.LosesAReply, ("requests.pipelined", "requests.many")),
    "short correlation IDs": (faults.ShortCorrelation, ("requests.correlation_extremes",)),
    "zero is no correlation ID": (faults.ZeroIsNoCorrelation, ("requests.correlation_extremes",)),
    "numbers are used up": (faults.NumbersAreUsedUp, ("requests.correlation_free_again",)),
    "too many requests too soon": (faults.TooManyRequests, ("requests.many",)),
    "answers Errors": (faults.AnswersErrors, ("error.closing_is_not_answered", "hello.error_before")),
    "one for all": (faults.OneForAll, ("error.disturbs_no_other_link", "error.disturbs_no_payment")),
    "reads on": (gf.ReadsOn, ("error.nothing_after",)),
    "forgets what was queued": (faults.ForgetsQueued, ("error.earlier_is_answered",)),
    "takes back": (faults.TakesBack, ("error.takes_nothing_back",)),
    "tells what came": (gf.TellsWhatCame, ("error.text",)),
    "never hears the end": (faults.NeverHearsTheEnd, ("end.between_frames", "end.within_a_frame")),
    "the end is a fault": (faults.EndIsAFault, ("end.between_frames",)),
    "Hello too soon": (lambda: faults.TimesOut(ErrorCode.HELLO_TIMEOUT, 2_000), ("timer.hello_dripping",)),
    "frame timer too soon": (lambda: faults.TimesOut(ErrorCode.FRAME_TIMEOUT, 8_000), ("timer.frame",)),
    "idle counts from connecting": (lambda: faults.TimesOut(ErrorCode.IDLE_TIMEOUT, 60_000), ("timer.idle",)),
    # keys
    "alters the key list": (lambda: Says(BankKeys, gf.other_list, lambda m: m.signed_key_list), ("keys.relayed",)),
    "one bank for all": (lambda: gf.OneBankForAll(BANK_ID), ("keys.unknown_bank", "size.extremes")),
    "keeps the key list": (gf.KeepsList, ("keys.refreshed",)),
    # tokens
    "another amount": (
        lambda: Says(TokenAck, lambda ack: replace(ack, amount_minor=ack.amount_minor + 1), is_(TokenStatus.VALID)),
        ("token.valid", "transfer.request", "pay.x25519"),
    ),
    "another currency": (
        lambda: Says(TokenAck, with_(currency="USD"), is_(TokenStatus.VALID)),
        ("token.valid", "transfer.request"),
    ),
    "another merchant": (
        lambda: Says(TokenAck, with_(merchant_id="M-OTHER"), is_(TokenStatus.VALID)),
        ("token.valid", "transfer.request"),
    ),
    "another bank's name": (lambda: Says(TokenAck, with_(bank_id="OTHER")), ("token.valid", "transfer.request")),
    "tells unknown tokens apart": (gf.TellsUnknownApart, ("token.invalid", "passcode.locked_unknown")),
    "any passcode will do": (
        lambda: Says(TokenAck, lambda ack: gf.as_valid(replace(ack, merchant_id="M", amount_minor=1, currency="INR"))),
        ("token.invalid", "token.expired", "token.paid", "passcode.locked"),
    ),
    "expired is invalid": (lambda: Says(TokenAck, gf.as_invalid, is_(TokenStatus.EXPIRED)), ("token.expired",)),
    "another UTR of a paid token": (lambda: Says(TokenAck, gf.other_utr), ("token.paid", "pay.x25519")),
    "a token in flight is valid": (
        lambda: Says(TokenAck, gf.as_valid, is_(TokenStatus.IN_FLIGHT)),
        (
            *("token.in_flight", "outcome.unavailable", "outcome.error", "results.unknown_payment"),
            "late.declined_of_other_payment",
        ),
    ),
    "a paid token is valid": (
        lambda: Says(TokenAck, gf.as_valid, is_(TokenStatus.PAID)),
        ("late.declined_after_posted", "passcode.in_a_row_paid"),
    ),
    "one session a token": (gf.LastSessionOnly, ("session.several",)),
    "sessions begin alike": (lambda: Says(TokenAck, gf.same_beginning), ("session.unpredictable",)),
    "never locks": (
        lambda: Says(TokenAck, gf.as_invalid, is_(TokenStatus.LOCKED)),
        ("passcode.locked", "passcode.locked_unknown", "error.takes_nothing_back"),
    ),
    "never locks unknown ones": (gf.NeverLocksUnknown, ("passcode.locked_unknown",)),
    "counts for ever": (gf.CountsForEver, ("passcode.in_a_row", "passcode.in_a_row_paid")),
    "locks no questions": (
        lambda: Says(StatusAck, with_(reason=Reason.PASSCODE), is_(PaymentStatus.REFUSED)),
        ("passcode.status_counts",),
    ),
    "stays in flight": (
        gf.StaysInFlight,
        (
            *(case.case_id.removeprefix("gateway.") for case in GATEWAY if ".declined." in case.case_id),
            *("outcome.fenced", "outcome.mismatch", "pay.wrong_password", "transfer.client_gone"),
            *("doubt.resolved_declined", "doubt.resolved_fenced", "doubt.resolved_mismatch"),
        ),
    ),
    # payments
    "receipt does not verify": (
        lambda: Says(PaymentAnswer, gf.other_signature),
        ("pay.x25519", "pay.hybrid", "transfer.receipt_as_it_is", "outcome.fenced", "stream.glued_payments"),
    ),
    "another UTR than in the receipt": (lambda: Says(PaymentAck, gf.other_utr), ("pay.x25519", "repeat.paid")),
    "another payment ID": (
        lambda: Says(PaymentAnswer, with_(payment_id=gf.SESSION)),
        ("pay.x25519", "refused.unknown_session", "transfer.status_pending"),
    ),
    "declined is pending": (
        lambda: _pending(is_(PaymentStatus.DECLINED)),
        (
            *(case.case_id.removeprefix("gateway.") for case in GATEWAY if ".declined." in case.case_id),
            *("pay.wrong_password", "pay.own_record", "outcome.fenced", "repeat.declined", "transfer.unread"),
            *("doubt.resolved_declined", "doubt.resolved_fenced", "results.crossed"),
        ),
    ),
    "paid is pending": (
        lambda: _pending(is_(PaymentStatus.PAID)),
        (
            *("pay.x25519", "pay.hybrid", "transfer.once", "results.out_of_order", "stream.split_payment"),
            *("session.several", "token.paid", "outcome.unavailable", "session.over"),
        ),
    ),
    "repeats are pending": (
        lambda: gf.RepeatsAre(PaymentStatus.PENDING),
        (
            "repeat.paid",
            "repeat.declined",
            "status.final",
            "mismatch.envelope",
            "transfer.once",
            "at_once.repeats",
        ),
    ),
    "repeats are refused": (
        lambda: gf.RepeatsAre(PaymentStatus.REFUSED, Reason.SESSION),
        ("repeat.paid", "repeat.declined", "doubt.pending_in_time", "mismatch.authorised_at"),
    ),
    "the payment ID is enough": (
        lambda: gf.AnswersFirst(is_(PaymentStatus.REFUSED)),
        ("mismatch.envelope", "mismatch.authorised_at", "mismatch.session", "mismatch.unknown_session"),
    ),
    "a mismatch is pending": (
        lambda: _pending(is_(PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)),
        ("mismatch.session", "transfer.mismatch_in_flight", "outcome.mismatch", "doubt.resolved_mismatch"),
    ),
    "refused is pending": (
        lambda: _pending(is_(PaymentStatus.REFUSED)),
        (
            *("refused.unknown_session", "refused.token_paid", "transfer.token_in_flight", "session.over"),
            *("size.extremes", "at_once.payments"),
        ),
    ),
    "no UTR with TOKEN_PAID": (
        lambda: Says(PaymentAck, with_(utr=""), is_(PaymentStatus.REFUSED)),
        ("refused.token_paid",),
    ),
    "mixes up answers": (gf.MixesUpAnswers, ("results.out_of_order", "stream.glued_payments", "at_once.payments")),
    "loses answers": (
        gf.LosesAnswers,
        ("pay.x25519", "doubt.pending_in_time", "doubt.silent_bank", "transfer.once", "at_once.repeats"),
    ),
    "pending is refused": (
        lambda: _refused(is_(PaymentStatus.PENDING)),
        ("doubt.silent_bank", "doubt.pending_in_time", "session.late_payment"),
    ),
    # asking for them
    "final is pending": (
        _status_pending,
        ("status.final", "status.unknown", "status.passcode", "late.declined_after_posted"),
    ),
    "tells any payment": (
        lambda: gf.AnswersFirst(is_(PaymentStatus.UNKNOWN)),
        ("status.of_another_token",),
    ),
    "any passcode for questions": (lambda: _status_unknown(is_(PaymentStatus.REFUSED)), ("status.passcode",)),
    "pending is unknown": (
        lambda: _status_unknown(is_(PaymentStatus.PENDING)),
        ("transfer.status_pending", "doubt.silent_bank"),
    ),
}


def _posted_instead(when: Callable[[Any, Any], bool]) -> Callable[[], ToBank]:
    return lambda: Hears(TransferOutcome.POSTED, Reason.NONE, when)


def _fenced_instead(when: Callable[[Any, Any], bool]) -> Callable[[], ToBank]:
    return lambda: Hears(TransferOutcome.FENCED, Reason.FENCED, when)


def _has_outcome(outcome: TransferOutcome) -> Callable[[Any, Any], bool]:
    return lambda message, _: isinstance(message, TransferAnswer) and message.outcome is outcome


def _is_error(message: Any, _: Any) -> bool:
    return isinstance(message, Error)


def _is_too_many(message: Any, _: Any) -> bool:
    return isinstance(message, Error) and message.code is ErrorCode.TOO_MANY_REQUESTS


def _is_strange(request: TransferRequest) -> bool:
    return len(request.envelope) not in (304, 1_392)


_TO_BANK: Final[dict[str, tuple[Callable[[], ToBank], tuple[str, ...]]]] = {
    "another amount at the bank": (lambda: Asks(TransferRequest, terms_with(amount_minor=1)), ("transfer.request",)),
    "another time at the bank": (lambda: Asks(TransferRequest, terms_with(authorised_at_ms=1)), ("transfer.request",)),
    "another session at the bank": (
        lambda: Asks(TransferRequest, terms_with(session_id=gf.SESSION)),
        ("transfer.request",),
    ),
    "another key ID at the bank": (lambda: Asks(TransferRequest, with_(key_id=bytes(8))), ("transfer.request",)),
    "another envelope at the bank": (lambda: Asks(TransferRequest, with_(envelope=b"x" * 304)), ("transfer.request",)),
    "all of the session for the bank": (
        lambda: Asks(TransferRequest, with_(time_left_ms=30_000)),
        ("transfer.request", "session.late_payment"),
    ),
    "no time for the bank": (
        lambda: Asks(TransferRequest, with_(time_left_ms=0)),
        ("transfer.request", "session.late_payment"),
    ),
    "looks at envelopes": (lambda: Asks(TransferRequest, with_(envelope=b"none"), _is_strange), ("transfer.unread",)),
    "asks twice": (
        lambda: gb.AsksTwice(Kind.TRANSFER_REQUEST, 0),
        (
            *("transfer.once", "transfer.mismatch_in_flight", "transfer.status_pending", "transfer.token_in_flight"),
            *("at_once.payments", "at_once.repeats"),
        ),
    ),
    "goes on asking": (
        lambda: gb.AsksTwice(Kind.RESOLVE_REQUEST, 2_000),
        ("doubt.resolved_fenced", "doubt.resolved_mismatch"),
    ),
    "a decline ends what is in flight": (gb.EndsWhatIsInFlight, ("late.declined_of_other_payment",)),
    "takes the client's word": (_posted_instead(_has_outcome(TransferOutcome.DECLINED)), ("pay.own_record",)),
    "declined counts as paid": (
        _posted_instead(_has_outcome(TransferOutcome.DECLINED)),
        ("pay.wrong_password", "declined.funds", "declined.late", "transfer.receipt_as_it_is"),
    ),
    "UNAVAILABLE is refusal": (_fenced_instead(_has_outcome(TransferOutcome.UNAVAILABLE)), ("outcome.unavailable",)),
    "MISMATCH is paid": (
        _posted_instead(_has_outcome(TransferOutcome.MISMATCH)),
        ("outcome.mismatch", "doubt.resolved_mismatch"),
    ),
    "MISMATCH is no answer": (
        lambda: gb.Misses(_has_outcome(TransferOutcome.MISMATCH)),
        ("outcome.mismatch", "doubt.resolved_mismatch"),
    ),
    "an Error is refusal": (_fenced_instead(_is_error), ("outcome.error",)),
    "too many requests is refusal": (_fenced_instead(_is_too_many), ("outcome.error",)),
    "any result will do": (_posted_instead(is_of_another), ("results.unknown_payment", "results.crossed")),
    "matches by correlation": (gb.MatchesByCorrelation, ("results.crossed",)),
    "hears nothing": (
        gb.HearsNothing,
        (
            *("transfer.client_gone", "requests.duplicate_correlation", "error.disturbs_no_payment"),
            *("token.in_flight", "transfer.mismatch_in_flight", "transfer.status_pending", "transfer.token_in_flight"),
        ),
    ),
    "never resolves": (
        lambda: gb.AsksOften(0),
        (
            *("doubt.silent_bank", "doubt.resolved_declined", "doubt.resolved_fenced", "outcome.unavailable"),
            *("outcome.error", "session.late_payment"),
        ),
    ),
    "resolves once": (lambda: gb.AsksOften(1), ("doubt.silent_bank", "outcome.unavailable")),
    "resolves other terms": (
        lambda: Asks(ResolveRequest, terms_with(amount_minor=1)),
        ("doubt.silent_bank", "outcome.unavailable", "outcome.error"),
    ),
    "resolves another envelope": (lambda: Asks(ResolveRequest, with_(envelope_hash=bytes(32))), ("doubt.silent_bank",)),
}

_REFUSALS: Final[dict[str, Callable[[], Fault]]] = {
    "wrong code": faults.WrongCode,
    "tolerates": faults.Tolerates,
    "never closes": faults.NeverCloses,
    "closes silently": faults.ClosesSilently,
    "numbers Errors": faults.NumbersErrors,
    "says it goes on": faults.SaysItGoesOn,
}
_REFUSING_CASES: Final = (
    *("requests.duplicate_correlation", "requests.wrong_route", "requests.unasked_reply", "end.within_a_frame"),
    *("error.passing_to_none", "error.disturbs_no_other_link", "error.nothing_after", "error.earlier_is_answered"),
    *("error.text", "error.disturbs_no_payment"),
)
_SERVING_CASES: Final = ("hello.opens", "hello.versions", "hello.party_id_is_free", "size.extremes")
_ALL_WAYS: Final = ("header.magic", "body.token_query_trailing", "hello.wrong_role", "timer.hello")
"""Cases of which every way not to refuse is tried; of the others two, since they check it in the same place."""


def _is_refused(case_id: str) -> bool:
    name = case_id.removeprefix("gateway.")
    return name in _REFUSING_CASES or (name.split(".")[0] in _REFUSING_GROUPS and name not in _SERVING_CASES)


def _ways(number: int, case_id: str) -> dict[str, Callable[[], Fault]]:
    if case_id.removeprefix("gateway.") in _ALL_WAYS:
        return _REFUSALS
    names = list(_REFUSALS)
    chosen = (names[0], names[1 + number % (len(names) - 1)])
    return {name: _REFUSALS[name] for name in chosen}


_refusing = [case.case_id for case in GATEWAY if _is_refused(case.case_id)]

BUGS: Final = [
    *(
        GatewayBug(name, case_id, fault)
        for number, case_id in enumerate(_refusing)
        for name, fault in _ways(number, case_id).items()
    ),
    *(GatewayBug(name, f"gateway.{s}", to_clients=fault) for name, (fault, ss) in _TO_CLIENTS.items() for s in ss),
    *(GatewayBug(name, f"gateway.{s}", to_bank=fault) for name, (fault, ss) in _TO_BANK.items() for s in ss),
]

_alone = [case.case_id for case in GATEWAY if case.is_exclusive]
_REFUSES: Final = tuple(case_id for case_id in _alone if ".refuses." in case_id)
_BAD_ACKS: Final = tuple(
    f"gateway.bank_link.{name}"
    for name in (
        *("another_bank", "another_role", "another_version", "ack_without_mac", "ack_of_another_key"),
        "request_before_ack",
    )
)

_NO_RESTART: Final = {"restart_command": "true"}
"""The double only looks as if it were started again."""
_AFTER_RESTART: Final[dict[str, Callable[[], Fault]]] = {
    "paid tokens are valid": lambda: gf.AfterRestart(Says(TokenAck, gf.as_valid, is_(TokenStatus.PAID))),
    "locks are forgotten": lambda: gf.AfterRestart(Says(TokenAck, gf.as_invalid, is_(TokenStatus.LOCKED))),
    "receipts are others": lambda: gf.AfterRestart(Says(PaymentAnswer, gf.other_signature)),
    "what was declined is unknown": lambda: gf.AfterRestart(_status_unknown(is_(PaymentStatus.DECLINED))),
    "repeats are refused": lambda: gf.AfterRestart(_refused(is_(PaymentStatus.DECLINED))),
}

STATION_BUGS: Final = [
    StationBug("wrong code", (*_REFUSES, *_BAD_ACKS[1:]), gb.SaysWrongCode),
    StationBug("wrong code of timers", ("gateway.bank_link.hello_timeout",), gb.SaysWrongCode),
    StationBug("closes silently", (*_REFUSES, "gateway.bank_link.frame_timeout"), gb.ClosesOnBank),
    StationBug("stays", ("gateway.bank_link.refuses.magic", "gateway.bank_link.closing_error"), gb.StaysWithBank),
    StationBug("takes any HelloAck", _BAD_ACKS, lambda: gb.TakesAnyAck(BANK_ID)),
    StationBug(
        "answers Errors",
        ("gateway.bank_link.unauthenticated_error", "gateway.bank_link.closing_error"),
        gb.AnswersErrors,
    ),
    StationBug("Hello of a client", ("gateway.bank_link.hello",), lambda: Asks(Hello, with_(role=Role.CLIENT))),
    StationBug("Hello of another gateway", ("gateway.bank_link.hello",), gb.HelloOfAnother),
    StationBug("Hello of version 2", ("gateway.bank_link.hello",), lambda: Asks(Hello, with_(versions=(2,)))),
    StationBug(
        "asks before HelloAck", ("gateway.bank_link.waits_for_ack",), lambda: gb.AsksBehind(BankKeysQuery(BANK_ID))
    ),
    StationBug(
        "Echo comes back changed",
        ("gateway.bank_link.echo",),
        lambda: Asks(EchoReply, lambda reply: EchoReply(reply.echo_data[::-1])),
    ),
    StationBug("hears every other result", ("gateway.bank_link.split",), lambda: gb.HearsNothing(2)),
    StationBug(
        "never resolves", ("gateway.outage.relink", "gateway.bank_link.refuses.another_reply"), lambda: gb.AsksOften(0)
    ),
    StationBug(
        "asks its bank as a client does",
        ("gateway.trouble.none",),
        lambda: gb.AsksLater(StatusQuery(gf.SESSION, "TX", "1")),
    ),
    StationBug("never tests", ("gateway.bank_link.tested",), gb.NeverTests),
    StationBug("has no timers", ("gateway.bank_link.frame_timeout",), gb.HasNoTimers),
    StationBug(
        "a bank out of reach is doubt",
        ("gateway.outage.unreachable",),
        to_clients=lambda: _pending(is_(PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE)),
    ),
    StationBug(
        "a bank out of reach is refusal",
        ("gateway.outage.unreachable",),
        to_clients=lambda: answers_instead(PaymentAck, PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE)(
            is_(PaymentStatus.PENDING)
        ),
    ),
    StationBug("few may wait", ("gateway.outage.many_waiting",), to_clients=gf.FewMayWait),
    StationBug("forgets at a restart", ("gateway.outage.restart",), gb.Forgets, options=_NO_RESTART),
    *(
        StationBug(
            f"{name} after a restart", ("gateway.restart.keeps",), gb.ToBank, fault, _NO_RESTART, patience_ms=PATIENT_MS
        )
        for name, fault in _AFTER_RESTART.items()
    ),
    StationBug("does not shut down", ("gateway.outage.shutting_down",), options={"drain_command": "true"}),
]

LEGAL: Final = [
    StationBug(
        "one too many is told late",
        ("gateway.outage.many_waiting",),
        to_clients=gf.RefusesOneLate,
        patience_ms=PATIENT_MS,
    ),
]
"""No bugs, though unlike our own gateway: each of these must pass its cases."""
