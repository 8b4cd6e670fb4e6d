"""Every bug of the double, and the cases that it must fail: the table behind `test_bank`."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from conform import faults, money_faults, payment_faults
from conform.double import Fault
from conform.faults import AltersReply
from conform.payment_faults import HYBRID_ENVELOPE_SIZE, AltersKeyList, Answers

from paygate.clock import system_now
from paygate.codec.codes import Reason, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import EchoReply, HelloAck, TransferRequest
from paygate.conform.bank_cases import BANK
from paygate.conform.world import default_world


@dataclasses.dataclass(frozen=True)
class Bug:
    """A fault and a case that it must fail."""

    name: str
    fault: Callable[[], Fault]
    case_id: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the command line, if the case needs some."""

    def __str__(self) -> str:
        return f"{self.name}-{self.case_id}"


def _replacing(**changes: Any) -> Callable[[Any], Any]:
    return lambda message: dataclasses.replace(message, **changes)


def _other_data(reply: EchoReply) -> EchoReply:
    return EchoReply(bytes(byte ^ 1 for byte in reply.echo_data))


def _is_hybrid(request: TransferRequest) -> bool:
    return len(request.envelope) == HYBRID_ENVELOPE_SIZE


def _has_strange_clock(request: TransferRequest) -> bool:
    # The cases that are not about clocks authorise now.
    return abs(request.terms.authorised_at_ms - system_now().wall_ms) > 60_000


_SPENDING_MINOR: Final = min(c["balance_minor"] for c in default_world(b"")["customers"])

_OF_ONE_KIND: Final[dict[str, tuple[Callable[[], Fault], tuple[str, ...]]]] = {
    # frames
    "waits for the body": (
        faults.WaitsForBody,
        (
            *("header.version", "header.unknown_kind", "header.reserved_kind", "header.pipe_kind"),
            *("header.unknown_flag", "header.no_mac", "header.order_of_checks", "hello.no_mac"),
            *("hello.requests_before", "requests.wrong_route", "size.hello", "size.transfer_request_too_large"),
            "size.echo_too_large",
        ),
    ),
    "takes any checksum": (faults.TakesAnyChecksum, ("frame.checksum",)),
    "takes any MAC": (faults.TakesAnyMac, ("frame.mac", "frame.order_of_checks")),
    "compares half the MAC": (faults.ComparesHalfTheMac, ("frame.mac",)),
    "replies without MAC": (faults.NoMacOnReplies, ("hello.opens", "echo.answered", "transfer.posted")),
    "wrong checksum on replies": (faults.ChecksumOverMac, ("hello.opens", "echo.answered")),
    "a segment is a frame": (faults.SegmentIsFrame, ("stream.split",)),
    "one frame a segment": (faults.OneFrameASegment, ("stream.glued", "stream.glued_transfers")),
    "small buffer": (faults.SmallBuffer, ("size.extremes",)),
    # hello
    "HelloAck of a gateway": (lambda: AltersReply(HelloAck, _replacing(role=Role.GATEWAY)), ("hello.opens",)),
    "HelloAck of another bank": (lambda: AltersReply(HelloAck, _replacing(party_id="OTHER")), ("hello.opens",)),
    "HelloAck of version 2": (
        lambda: AltersReply(HelloAck, _replacing(version=2)),
        ("hello.opens", "hello.versions"),
    ),
    "takes small frames only": (lambda: AltersReply(HelloAck, _replacing(frame_size_max=1_024)), ("hello.opens",)),
    "first version only": (faults.FirstVersionOnly, ("hello.versions",)),
    # requests and replies
    "Echo comes back changed": (lambda: AltersReply(EchoReply, _other_data), ("echo.answered", "requests.pipelined")),
    "answers in order": (faults.AnswersInOrder, ("requests.pipelined",)),
    "loses a reply": (faults.LosesAReply, ("requests.pipelined", "requests.many")),
    "short correlation IDs": (faults.ShortCorrelation, ("requests.correlation_extremes",)),
    "zero is no correlation ID": (faults.ZeroIsNoCorrelation, ("requests.correlation_extremes",)),
    "numbers are used up": (faults.NumbersAreUsedUp, ("requests.correlation_free_again",)),
    "overwrites a duplicate": (faults.OverwritesDuplicate, ("requests.duplicate_correlation",)),
    "too many requests too soon": (faults.TooManyRequests, ("requests.many",)),
    # errors and ends
    "answers Errors": (faults.AnswersErrors, ("error.closing_is_not_answered",)),
    "one for all": (faults.OneForAll, ("error.disturbs_no_other_link",)),
    "reads on": (faults.ReadsOn, ("error.nothing_after",)),
    "forgets what was queued": (faults.ForgetsQueued, ("error.earlier_is_answered",)),
    "takes back": (faults.TakesBack, ("error.takes_nothing_back",)),
    "never hears the end": (faults.NeverHearsTheEnd, ("end.between_frames", "end.within_a_frame")),
    "the end is a fault": (faults.EndIsAFault, ("end.between_frames",)),
    "the end cancels": (faults.EndCancels, ("end.transfer_goes_on",)),
    # timers
    "Hello too soon": (lambda: faults.TimesOut(ErrorCode.HELLO_TIMEOUT, 2_000), ("timer.hello_dripping",)),
    "frame timer too soon": (lambda: faults.TimesOut(ErrorCode.FRAME_TIMEOUT, 8_000), ("timer.frame",)),
    "idle counts from connecting": (lambda: faults.TimesOut(ErrorCode.IDLE_TIMEOUT, 60_000), ("timer.idle",)),
    # keys
    "list is not signed": (
        lambda: AltersKeyList(lambda key_list: key_list, is_signed=False),
        ("keys.own", "keys.suites", "keys.same_on_every_link", "transfer.posted"),
    ),
    "list of another bank": (lambda: AltersKeyList(_replacing(bank_id="OTHER")), ("keys.own",)),
    "list is over": (lambda: AltersKeyList(payment_faults.over), ("keys.own",)),
    "key IDs of another hash": (lambda: AltersKeyList(payment_faults.key_id_of_another_hash), ("keys.own",)),
    "suites mixed up": (lambda: AltersKeyList(payment_faults.suite_mixed_up), ("keys.suites",)),
    "hybrid only": (lambda: AltersKeyList(payment_faults.hybrid_only), ("keys.suites", "transfer.posted")),
    "another list each time": (payment_faults.AnotherListEachTime, ("keys.same_on_every_link",)),
    "one bank for all": (payment_faults.OneBankForAll, ("keys.unknown_bank", "size.extremes")),
    # posted payments
    "receipt does not verify": (
        lambda: Answers(payment_faults.another_receipt_key),
        ("transfer.posted", "transfer.hybrid", "decline.funds", "resolve.absent", "stream.glued_transfers"),
    ),
    "another UTR than in the receipt": (
        lambda: Answers(payment_faults.another_utr_than_in_receipt),
        ("transfer.posted", "transfer.utr"),
    ),
    "another payment ID": (
        lambda: Answers(payment_faults.another_payment_id),
        ("transfer.posted", "resolve.absent", "mismatch.envelope"),
    ),
    "receipt of other terms": (lambda: Answers(payment_faults.receipt_of_other_terms), ("transfer.posted",)),
    "receipt of another envelope": (lambda: Answers(payment_faults.receipt_of_other_envelope), ("transfer.posted",)),
    "receipt of long ago": (lambda: Answers(payment_faults.receipt_of_long_ago), ("transfer.posted",)),
    "opens no hybrid envelope": (
        lambda: Answers(payment_faults.declines(Reason.TERMS, _is_hybrid)),
        ("transfer.hybrid", "transfer.every_key"),
    ),
    "one UTR for all": (lambda: Answers(payment_faults.same_utr), ("transfer.utr",)),
    "UTR of another bank": (lambda: Answers(payment_faults.utr_of_another_bank), ("transfer.utr",)),
    "UTR of another day": (lambda: Answers(payment_faults.utr_of_another_day), ("transfer.utr",)),
    "time runs back": (payment_faults.TimeRunsBack, ("transfer.time_forward",)),
    "clock is narrow": (
        lambda: Answers(payment_faults.declines(Reason.LATE, _has_strange_clock)),
        ("transfer.clock_tolerance",),
    ),
    "exactly is too little": (
        lambda: payment_faults.ExactIsTooLittle(_SPENDING_MINOR),
        ("transfer.balance",),
    ),
    # a restart, which shows on the link after it
    "signs anew after a restart": (payment_faults.RepeatsOnOneLinkOnly, ("restart.answers",)),
    "forgets locks in a restart": (payment_faults.LocksOnOneLinkOnly, ("restart.lock",)),
    # what moves no money
    **{
        f"a debit {when.__name__.replace('_', ' ')}": (
            partial(money_faults.TakesMore, _SPENDING_MINOR, when),
            (f"no_debit_by.{when.__name__.removeprefix('by_')}",),
        )
        for when in (
            *(money_faults.by_replay, money_faults.by_resolve),
            *(money_faults.by_mismatch, money_faults.by_fenced),
        )
    },
    **{
        f"a debit by a decline as {reason.name}": (
            partial(money_faults.TakesMore, _SPENDING_MINOR, money_faults.by_decline(reason)),
            ("no_debit_by.decline",),
        )
        for reason in (
            *(Reason.LATE, Reason.TOKEN_ALREADY_PAID, Reason.MERCHANT_UNKNOWN, Reason.CURRENCY, Reason.CREDENTIALS),
        )
    },
    "a debit by a second payment of a token": (
        partial(money_faults.TakesMore, _SPENDING_MINOR, money_faults.by_decline(Reason.TOKEN_ALREADY_PAID)),
        ("transfer.token_burst",),
    ),
    "one guess a segment": (money_faults.OneGuessASegment, ("decline.guess_burst",)),
    "knows all its gateways": (money_faults.KnowsAllItsGateways, ("transfer.foreign_known_gateway",)),
    # declined payments
    "posts anyway": (
        lambda: Answers(payment_faults.posts_anyway),
        (*(case.case_id.removeprefix("bank.") for case in BANK if case.case_id.startswith("bank.decline.")),),
    ),
    "posts what is too much or too late": (
        lambda: Answers(payment_faults.posts_anyway),
        (
            *("transfer.balance", "transfer.one_debit", "transfer.one_of_two", "size.extremes", "replay.declined"),
            *("transfer.overdraft_burst", "transfer.token_burst", "no_debit_by.decline"),
        ),
    ),
    "checks in another order": (
        lambda: Answers(payment_faults.checks_in_another_order),
        (*(case.case_id.removeprefix("bank.") for case in BANK if case.case_id.startswith("bank.decline.")),),
    ),
    "declines what is right": (
        lambda: Answers(payment_faults.declines(Reason.CREDENTIALS)),
        (
            *("transfer.posted", "transfer.one_debit", "decline.failures_forgotten", "decline.locked"),
            *("decline.wrong_password_not_looked_at", "decline.credentials_alike", "decline.user_id_exact"),
            *("decline.token_already_paid", "decline.token_after_decline", "limit.shutting_down"),
        ),
    ),
    "a decline pays the token": (
        payment_faults.PaysByDeclining,
        ("decline.token_after_decline", "resolve.fence_frees_token"),
    ),
    # repeats
    "decides anew": (
        payment_faults.DecidesAnew,
        (
            *("replay.posted", "replay.declined", "replay.after_its_time", "transfer.one_debit"),
            *("resolve.absent", "resolve.under_way", "resolve.other_gateway"),
        ),
    ),
    "repeats on one link only": (
        payment_faults.RepeatsOnOneLinkOnly,
        ("replay.posted", "replay.declined", "resolve.absent"),
    ),
    "a repeat can be late": (lambda: Answers(payment_faults.repeats_by_time), ("replay.after_its_time",)),
    "the key ID counts": (lambda: Answers(payment_faults.repeats_by_key), ("replay.after_its_time",)),
    "MISMATCH reveals": (
        payment_faults.Reveals,
        (*(case.case_id.removeprefix("bank.") for case in BANK if case.case_id.startswith("bank.mismatch.")),),
    ),
    "MISMATCH changes": (
        payment_faults.MismatchChanges,
        ("mismatch.envelope", "mismatch.amount_minor"),
    ),
    "forgets fences": (payment_faults.ForgetsFences, ("resolve.absent",)),
    "a resolve overtakes": (payment_faults.ResolvesFirst, ("resolve.under_way",)),
    "one name space": (payment_faults.OneNameSpace, ("resolve.other_gateway",)),
    "never decides": (
        lambda: Answers(payment_faults.unavailable),
        ("transfer.posted", "resolve.absent", "resolve.fence_frees_token", "decline.late"),
    ),
}

_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "limit.connections": {"flood": 20},
    "limit.shutting_down": {"drain_command": "true"},
    "restart.answers": {"restart_command": "true"},
    "restart.lock": {"restart_command": "true"},
}

REFUSALS: Final = (
    "wrong code",
    "tolerates",
    "never closes",
    "closes silently",
    "numbers Errors",
    "says it goes on",
)
_OF_REFUSALS: Final[dict[str, Callable[[], Fault]]] = dict(
    zip(
        REFUSALS,
        (
            faults.WrongCode,
            faults.Tolerates,
            faults.NeverCloses,
            faults.ClosesSilently,
            faults.NumbersErrors,
            faults.SaysItGoesOn,
        ),
        strict=True,
    )
)
_REFUSING_GROUPS: Final = ("hello", "header", "size", "frame", "value", "body", "timer")
_REFUSING_CASES: Final = (
    *("requests.duplicate_correlation", "requests.wrong_route", "requests.unasked_reply"),
    *("error.passing_to_none", "error.disturbs_no_other_link", "error.nothing_after", "error.earlier_is_answered"),
    *("end.within_a_frame", "transfer.foreign_gateway", "transfer.foreign_bank", "transfer.foreign_known_gateway"),
)
_SERVING_CASES: Final = ("hello.opens", "hello.versions", "size.extremes")


def _is_refused(case_id: str) -> bool:
    name = case_id.removeprefix("bank.")
    return name in _REFUSING_CASES or (name.split(".")[0] in _REFUSING_GROUPS and name not in _SERVING_CASES)


BUGS: Final = [
    *(
        Bug(name, fault, case.case_id)
        for case in BANK
        if _is_refused(case.case_id)
        for name, fault in _OF_REFUSALS.items()
    ),
    *(
        Bug(name, fault, f"bank.{short}", _OPTIONS.get(short, {}))
        for name, (fault, shorts) in _OF_ONE_KIND.items()
        for short in shorts
    ),
    Bug("takes any number of connections", Fault, "bank.limit.connections", _OPTIONS["limit.connections"]),
    Bug("does not shut down", Fault, "bank.limit.shutting_down", _OPTIONS["limit.shutting_down"]),
]
