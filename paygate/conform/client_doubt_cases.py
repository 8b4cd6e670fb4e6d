"""Links that break behind the credentials, and the question that is asked later, to a client (spec 6.5, 6.8)."""

from dataclasses import replace

from paygate.codec.codes import PaymentStatus, Reason
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import EncryptedCredentials, Error, PaymentAck, StatusQuery
from paygate.conform.cases import require
from paygate.conform.client_options import Said
from paygate.conform.client_side import OPEN_SESSION_MS, SHORT_SESSION_MS, Desk, Visit, case, expect_refused
from paygate.conform.craft import draft

_CONNECTIONS_MAX = 40
"""More than any wait that grows leads to in a short session, and far fewer than without a wait."""


@case(
    "cut.after_sending",
    "After a link that broke behind the credentials the client connects again and asks for this payment; it sends no "
    "second one.",
    *("6.8", "PG-CLI-2"),
)
async def after_sending(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    await visit.until(wire, EncryptedCredentials)
    wire.abort()
    second = await visit.link()
    second.send_bytes(visit.answer_to(await visit.until(second, StatusQuery)))
    await visit.end(Said.PAID)


@case(
    "cut.closing_error",
    "An Error that closes, in answer to the credentials, leaves the payment open: the client connects again and asks.",
    *("6.8", "5.6", "PG-CLI-2", "PG-CLI-3"),
)
async def closing_error(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    await visit.until(wire, EncryptedCredentials)
    wire.send(Error(ErrorCode.INTERNAL, closes=True, text=""), 0)
    await wire.expect_closed()
    await visit.end(Said.PAID)


@case(
    "cut.again",
    "A link that breaks again before it is open, and once more behind the question, is tried again.",
    *("6.8", "PG-CLI-2"),
)
async def again(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    first = await visit.link()
    await visit.until(first, EncryptedCredentials)
    first.abort()
    second = await visit.next_connection()
    await visit.hello(second)
    second.abort()
    third = await visit.link()
    await visit.until(third, StatusQuery)
    third.abort()
    await visit.end(Said.PAID)


@case(
    "cut.always",
    "While no link holds the client tries again, with waits, until the session's end; then the outcome is unknown.",
    *("6.8", "6.7", "PG-CLI-2", "PG-SES-1"),
)
async def always(desk: Desk) -> None:
    visit = desk.visit(session_left_ms=SHORT_SESSION_MS)
    visit.begin()
    wire = await visit.link()
    await visit.until(wire, EncryptedCredentials)
    wire.abort()
    count = 0
    while not visit.has_ended():
        if desk.door.has_come:
            (await visit.next_connection()).abort()
            count += 1
            require(count <= _CONNECTIONS_MAX, f"at most {_CONNECTIONS_MAX} connections in the session", f"{count}")
        await desk.t.sleep(10)
    require(count > 1, "several connections", f"{count}")
    await visit.end(Said.UNKNOWN)


@case(
    "cut.damaged_answer",
    "A PaymentAck with a bad checksum is refused, and the payment stays open: the client connects again and asks.",
    *("6.8", "4.3", "PG-FRM-5", "PG-CLI-2"),
)
async def damaged_answer(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    payment = await visit.until(wire, EncryptedCredentials)
    wire.send_draft(replace(draft(visit.paid(PaymentAck), None, payment.correlation_id), checksum=0))
    await expect_refused(wire, ErrorCode.BAD_CHECKSUM)
    await visit.end(Said.PAID)


# -- the question that is asked later --------------------------------------------------------------------


async def in_doubt(desk: Desk) -> Visit:
    """A payment whose session has ended without an answer, so that it is to be asked for later."""
    visit = desk.visit(session_left_ms=SHORT_SESSION_MS)
    visit.require_status_run()
    visit.decide(visit.said(PaymentStatus.PENDING))
    await visit.run(Said.UNKNOWN)
    return visit


@case(
    "status.paid",
    "Asked later, a client asks for the same payment, sends no credentials, and takes PAID with its receipt.",
    *("6.5", "6.8", "PG-STA-1", "PG-CLI-4", "PG-PAY-10"),
)
async def status_paid(desk: Desk) -> None:
    visit = await in_doubt(desk)
    visit.decide(visit.paid)
    await visit.run_status(Said.PAID)


@case(
    "status.killed",
    "A client that dies when its credentials have left has written the payment down: asked later, it gets PAID.",
    *("6.3", "6.8", "PG-PAY-1", "PG-CLI-4"),
)
async def status_killed(desk: Desk) -> None:
    visit = desk.visit()
    visit.require_status_run()
    visit.begin()
    await visit.until(await visit.link(), EncryptedCredentials)
    await visit.kill()
    await visit.run_status(Said.PAID)


@case(
    "status.declined",
    "Asked later, a client takes DECLINED with its receipt.",
    *("6.5", "PG-PAY-10"),
)
async def status_declined(desk: Desk) -> None:
    visit = await in_doubt(desk)
    visit.decide(visit.declined(Reason.CREDENTIALS))
    await visit.run_status(Said.DECLINED)


@case(
    "status.pending",
    "Asked later and answered PENDING, a client says that the outcome is unknown, and can be asked again.",
    *("6.5", "PG-STA-3", "PG-CLI-4"),
)
async def status_pending(desk: Desk) -> None:
    visit = await in_doubt(desk)
    await visit.run_status(Said.UNKNOWN)
    visit.decide(visit.paid)
    await visit.run_status(Said.PAID)


@case(
    "status.question_refused",
    "REFUSED with PASSCODE refuses the question and says nothing of the payment: its outcome is still unknown.",
    *("6.5", "PG-STA-2", "PG-PAY-11"),
)
async def status_question_refused(desk: Desk) -> None:
    visit = await in_doubt(desk)
    visit.decide(visit.said(PaymentStatus.REFUSED, Reason.PASSCODE))
    await visit.run_status(Said.UNKNOWN)
    visit.decide(visit.paid)
    await visit.run_status(Said.PAID)


@case(
    "status.receipt_wins",
    "After the gateway said REFUSED, a receipt that comes later wins: asked again, the client says paid.",
    *("6.4", "6.5", "PG-PAY-11", "PG-CLI-4"),
)
async def receipt_wins(desk: Desk) -> None:
    visit = desk.visit(session_left_ms=OPEN_SESSION_MS)
    visit.require_status_run()
    visit.decide(visit.said(PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE))
    await visit.run(Said.REFUSED, Said.UNKNOWN)
    visit.decide(visit.paid)
    await visit.run_status(Said.PAID)
