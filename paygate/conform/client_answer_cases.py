"""What became of a payment, to a client: proven, by the gateway's word, or open (spec 6.4, 6.8)."""

from itertools import pairwise

from paygate.codec.codes import PaymentStatus, Reason
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error, StatusAck, StatusQuery
from paygate.conform.cases import require
from paygate.conform.client_options import Said
from paygate.conform.client_plan import Verdict, reply_to
from paygate.conform.client_side import OPEN_SESSION_MS, SHORT_SESSION_MS, Desk, Visit, case
from paygate.conform.wire import Reply


@case(
    "paid.told",
    "PAID with a right receipt is believed, and the customer is told the UTR.",
    *("6.4", "8.5", "PG-PAY-10", "PG-PAY-13"),
)
async def paid(desk: Desk) -> None:
    visit = desk.visit()
    await visit.run(Said.PAID)
    assert visit.program is not None
    require(visit.utr.encode() in visit.program.output, f"UTR {visit.utr} in what the client says", visit.told)


def _declined(reason: Reason) -> None:
    @case(
        f"declined.{reason.name.lower()}",
        f"DECLINED with {reason.name} and a right receipt is believed: the client says declined.",
        *("6.4", "8.5", "PG-PAY-10"),
    )
    async def story(desk: Desk) -> None:
        visit = desk.visit()
        visit.decide(visit.declined(reason))
        await visit.run(Said.DECLINED)


for _bank_reason in (r for r in Reason if r.is_banks):
    _declined(_bank_reason)


def _refused(reason: Reason) -> None:
    @case(
        f"refused.{reason.name.lower()}",
        f"REFUSED with {reason.name} is the gateway's word: the client says neither paid nor declined.",
        *("6.4", "PG-PAY-11"),
    )
    async def story(desk: Desk) -> None:
        visit = desk.visit(session_left_ms=OPEN_SESSION_MS)
        has_utr = reason is Reason.TOKEN_PAID
        visit.decide(visit.said(PaymentStatus.REFUSED, reason, visit.utr if has_utr else ""))
        await visit.run(Said.REFUSED, Said.UNKNOWN, *([Said.ALREADY_PAID] if has_utr else []))


for _gateway_reason in (Reason.SESSION, Reason.BANK_UNREACHABLE, Reason.PAYMENT_MISMATCH, Reason.TOKEN_PAID):
    _refused(_gateway_reason)


# -- answers that leave it open --------------------------------------------------------------------------


@case(
    "open.pending",
    "After PENDING the client asks with StatusQuery, and takes PAID with its receipt.",
    *("6.8", "6.5", "PG-CLI-4", "PG-PAY-10"),
)
async def pending(desk: Desk) -> None:
    visit = desk.visit()
    await _asked_again(visit, visit.said(PaymentStatus.PENDING))


@case(
    "open.pending_for_long",
    "The client goes on asking while the answer is PENDING, not more than once a second.",
    *("6.8", "7.5", "PG-TIM-6"),
)
async def pending_for_long(desk: Desk) -> None:
    visit = desk.visit()
    visit.answer_payment(visit.said(PaymentStatus.PENDING))
    asked_at_ms: list[int] = []

    def answer(asked: Reply) -> bytes:
        asked_at_ms.append(desk.t.now_ms)
        verdict = visit.said(PaymentStatus.PENDING) if len(asked_at_ms) < 3 else visit.paid
        return reply_to(asked, verdict(StatusAck))

    visit.on[StatusQuery] = answer
    await visit.run(Said.PAID)
    waits_ms = [after - before for before, after in pairwise(asked_at_ms)]
    require(min(waits_ms) >= 900, "a second between two StatusQueries", f"{waits_ms} ms")


@case(
    "open.unknown",
    "Before the session's end UNKNOWN says nothing: the client asks again.",
    *("6.8", "PG-PAY-11"),
)
async def unknown(desk: Desk) -> None:
    visit = desk.visit()
    await _asked_again(visit, visit.said(PaymentStatus.PENDING), visit.said(PaymentStatus.UNKNOWN))


@case(
    "open.declined_later",
    "After PENDING the client takes DECLINED with its receipt.",
    *("6.8", "PG-PAY-10"),
)
async def declined_later(desk: Desk) -> None:
    visit = desk.visit()
    visit.decide(visit.declined(Reason.FUNDS))
    visit.answer_payment(visit.said(PaymentStatus.PENDING))
    await visit.run(Said.DECLINED)


def _error(code: ErrorCode) -> None:
    @case(
        f"open.{code.name.lower()}",
        f"Error {code.name} in answer to the payment leaves it open: the client asks, and takes PAID with its receipt.",
        *("6.8", "5.6", "PG-CLI-3", "PG-ERR-1"),
    )
    async def story(desk: Desk) -> None:
        visit = desk.visit()
        await _asked_again(visit, lambda _cls: Error(code, closes=False, text=""))


_error(ErrorCode.TOO_MANY_REQUESTS)
_error(ErrorCode.SHUTTING_DOWN)


@case(
    "open.error_to_status",
    "An Error in answer to a StatusQuery leaves the payment open too.",
    *("6.8", "PG-CLI-3"),
)
async def error_to_status(desk: Desk) -> None:
    visit = desk.visit()
    busy = Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text="")
    await _asked_again(visit, visit.said(PaymentStatus.PENDING), lambda _cls: busy)


@case(
    "open.never_answered",
    "A payment that stays PENDING until the session's end is unknown to the client, and it says so.",
    *("6.7", "6.8", "PG-SES-1", "PG-CLI-4"),
)
async def never_answered(desk: Desk) -> None:
    visit = desk.visit(session_left_ms=SHORT_SESSION_MS)
    visit.decide(visit.said(PaymentStatus.PENDING))
    await visit.run(Said.UNKNOWN)


async def _asked_again(visit: Visit, payment: Verdict, *status: Verdict) -> None:
    """The payment, and then each StatusQuery, are answered so; after them PAID."""
    verdicts: list[Verdict] = [*status, visit.paid]

    def answer(asked: Reply) -> bytes:
        verdict = verdicts.pop(0) if len(verdicts) > 1 else verdicts[0]
        return reply_to(asked, verdict(StatusAck))

    visit.answer_payment(payment)
    visit.on[StatusQuery] = answer
    await visit.run(Said.PAID)
    require(len(verdicts) == 1, f"{len(status) + 1} StatusQueries", f"{len(status) + 1 - len(verdicts)} or fewer")
