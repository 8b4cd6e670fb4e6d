"""A bank that is silent, and the times of a session (spec 6.7, 7.3). Slow, since the spec's times are long."""

from itertools import pairwise
from typing import Final

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import PaymentAck, ResolveRequest, TransferRequest
from paygate.conform.cases import require
from paygate.conform.gateway_side import GATEWAY, open_link, played_bank, require_status, until_status
from paygate.conform.shopper import (
    Watched,
    begin,
    expect_answer,
    open_shopper,
    require_answer,
    require_payable,
    require_same,
)
from paygate.conform.trial import Trial

SESSION_MS: Final = 30_000
BANK_MS: Final = 20_000
"""After the credentials the gateway sends ResolveRequest, if that is 5 s before the session's end (PG-SES-3)."""
RESOLVE_BEFORE_END_MS: Final = 5_000
PENDING_BEFORE_END_MS: Final = 2_000
AGAIN_MS_MAX: Final = 30_000
"""The longest that a gateway waits before it asks again (PG-RES-5)."""
EARLY_MS: Final = 150
"""How much too early by our clock something may come: clocks that are read once a tick are behind by some."""


def _require_time(t: Trial, what: str, after_ms: int, earliest_ms: int, latest_ms: int) -> None:
    """Now is `after_ms` after something that happened between `earliest_ms` and `latest_ms`."""
    is_right = earliest_ms + after_ms - EARLY_MS <= t.now_ms <= latest_ms + after_ms + t.settings.patience_ms
    require(is_right, f"{what} after {after_ms} ms", f"after {t.now_ms - latest_ms} ms")


@GATEWAY.case(
    "doubt.silent_bank",
    "A silent bank is asked with ResolveRequest after 20 s, and again with longer and longer waits; PENDING is told "
    "2 s before the session's end; a POSTED that comes late still makes the token PAID.",
    *("6.7", "7.3", "6.6", "PG-SES-3", "PG-SES-4", "PG-SES-5", "PG-RES-4", "PG-RES-5", "PG-RES-6", "PG-TRF-9"),
    waits_ms=45_000,
)
async def silent_bank(t: Trial) -> None:
    shopper = await open_shopper(t)
    asked_ms = t.now_ms  # the session may begin at any time from now until its token ack is here
    token, ack = await shopper.session()
    desk = played_bank(t).watch(t, token)
    payment = shopper.payment(token, ack)
    watched = Watched(shopper, payment, shopper.wire.send(payment.credentials()), desk, t.now_ms)
    asked, _ = await desk.next(TransferRequest)
    times: list[int] = []
    while len(times) < 5:
        again, request = await desk.next(ResolveRequest, BANK_MS + t.settings.patience_ms)
        if not times:
            _require_time(t, "the first ResolveRequest", BANK_MS, watched.began_ms, watched.began_ms)
        times.append(again.at_ms)
        require(request.terms == asked.terms, f"the terms of the TransferRequest: {asked.terms}", request.terms)
        require(request.envelope_hash == asked.envelope_hash, "SHA-256 of the envelope", request.envelope_hash.hex())
        if t.now_ms - asked_ms < SESSION_MS - PENDING_BEFORE_END_MS - EARLY_MS:
            await shopper.wire.expect_silence(0)
    require_answer(await shopper.wire.expect(PaymentAck, watched.correlation_id), PaymentStatus.PENDING)
    waits = [after - before for before, after in pairwise(times)]
    # Jitter may shorten any wait by half, so only those far apart must have grown.
    require(max(waits[2:]) > waits[0] and max(waits) <= AGAIN_MS_MAX + t.settings.patience_ms, "waits that grow", waits)
    other = await open_link(t)
    require_answer(await shopper.status(payment, other), PaymentStatus.PENDING)
    await require_status(other, token, TokenStatus.IN_FLIGHT)
    # The answer to the very first request, after all this time.
    desk.answer(asked, TransferOutcome.POSTED)
    await until_status(t, other, token, TokenStatus.PAID)
    require_answer(await shopper.status(payment, other), PaymentStatus.PAID)


@GATEWAY.case(
    "doubt.pending_in_time",
    "PENDING comes 2 s before the session's end, to all who wait; the credentials again are then PENDING and not "
    "REFUSED, though the session is over, and never sent to the bank a second time.",
    *("6.7", "6.3", "PG-SES-4", "PG-PAY-5", "PG-PAY-8"),
    waits_ms=SESSION_MS + 1_000,
)
async def pending_in_time(t: Trial) -> None:
    asked_ms = t.now_ms
    watched = await begin(t)
    opened_ms = t.now_ms
    await watched.desk.next(TransferRequest)
    other = await open_link(t)
    repeated_id = other.send(watched.payment.credentials())
    for wire, correlation_id in ((watched.shopper.wire, watched.correlation_id), (other, repeated_id)):
        answer = await wire.expect(PaymentAck, correlation_id, SESSION_MS + t.settings.patience_ms)
        require_answer(answer, PaymentStatus.PENDING)
        _require_time(t, "PENDING", SESSION_MS - PENDING_BEFORE_END_MS, asked_ms, opened_ms)
    await t.sleep(opened_ms + SESSION_MS + 500 - t.now_ms)
    require_answer(await watched.shopper.send(watched.payment), PaymentStatus.PENDING)
    kinds = {type(asked.message) for asked in watched.desk.asked[1:]}
    require(kinds <= {ResolveRequest}, "one TransferRequest, and then ResolveRequests only", kinds)


@GATEWAY.case(
    "doubt.resolved_declined",
    "DECLINED in answer to the ResolveRequest is passed on to who still waits, and the token is VALID again.",
    *("6.7", "7.3", "6.6", "PG-RES-4", "PG-TOK-6"),
    waits_ms=BANK_MS,
)
async def resolved_declined(t: Trial) -> None:
    watched = await begin(t)
    await watched.desk.next(TransferRequest)
    asked, _ = await watched.desk.next(ResolveRequest, BANK_MS + t.settings.patience_ms)
    watched.desk.answer(asked, TransferOutcome.DECLINED, Reason.FUNDS)
    await expect_answer(watched, PaymentStatus.DECLINED, Reason.FUNDS)
    await require_status(watched.shopper.wire, watched.payment.token, TokenStatus.VALID)


@GATEWAY.case(
    "doubt.resolved_fenced",
    "FENCED in answer to the ResolveRequest is DECLINED with FENCED; that it is said twice, to both requests, "
    "changes nothing, and the bank is asked no more.",
    *("6.7", "7.3", "6.6", "PG-RES-4", "PG-RES-5", "PG-TOK-6"),
    waits_ms=BANK_MS + 5_000,
)
async def resolved_fenced(t: Trial) -> None:
    watched = await begin(t)
    transfer, _ = await watched.desk.next(TransferRequest)
    resolve, _ = await watched.desk.next(ResolveRequest, BANK_MS + t.settings.patience_ms)
    watched.desk.answer(resolve, TransferOutcome.FENCED, Reason.FENCED)
    watched.desk.answer(transfer, TransferOutcome.FENCED, Reason.FENCED)
    first = await expect_answer(watched, PaymentStatus.DECLINED, Reason.FENCED)
    # What the gateway asked before our answer reached it may still come.
    await t.sleep(500)
    for late in watched.desk.take_all():
        watched.desk.answer(late, TransferOutcome.FENCED, Reason.FENCED)
    await watched.desk.expect_none(4_000)
    require_same([first, await watched.shopper.send(watched.payment), await watched.shopper.status(watched.payment)])
    await require_status(watched.shopper.wire, watched.payment.token, TokenStatus.VALID)


@GATEWAY.case(
    "doubt.resolved_mismatch",
    "MISMATCH in answer to the ResolveRequest ends the doubt: who waits hears REFUSED with PAYMENT_MISMATCH, the bank "
    "is asked no more, and the token can be paid again.",
    *("6.3", "6.6", "6.7", "7.3", "PG-PAY-8", "PG-RES-4", "PG-RES-5", "PG-TOK-6", "PG-STA-2"),
    waits_ms=BANK_MS + 5_000,
)
async def resolved_mismatch(t: Trial) -> None:
    watched = await begin(t)
    await watched.desk.next(TransferRequest)
    asked, _ = await watched.desk.next(ResolveRequest, BANK_MS + t.settings.patience_ms)
    watched.desk.answer(asked, TransferOutcome.MISMATCH)
    first = await expect_answer(watched, PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    # What the gateway asked before our answer reached it may still come.
    await t.sleep(500)
    for late in watched.desk.take_all():
        watched.desk.answer(late, TransferOutcome.MISMATCH)
    await watched.desk.expect_none(4_000)
    require_same([first, await watched.shopper.send(watched.payment), await watched.shopper.status(watched.payment)])
    await require_payable(t, watched)


@GATEWAY.case(
    "session.late_payment",
    "Credentials 6 s before the session's end are taken; the bank gets half of the time till PENDING, then "
    "ResolveRequest comes.",
    *("6.7", "PG-SES-2", "PG-SES-3", "PG-SES-4"),
    waits_ms=SESSION_MS,
)
async def late_payment(t: Trial) -> None:
    shopper = await open_shopper(t)
    asked_ms = t.now_ms  # the session may begin at any time from now until its token ack is here
    token, ack = await shopper.session()
    opened_ms = t.now_ms
    desk = played_bank(t).watch(t, token)
    await t.sleep(SESSION_MS - 6_000)
    payment = shopper.payment(token, ack)
    sent_ms = t.now_ms
    correlation_id = shopper.wire.send(payment.credentials())
    _, request = await desk.next(TransferRequest)
    least_ms, most_ms = (
        (begun_ms + SESSION_MS - PENDING_BEFORE_END_MS - sent_ms) // 2 for begun_ms in (asked_ms, opened_ms)
    )
    is_right = least_ms // 2 <= request.time_left_ms <= most_ms + EARLY_MS
    require(is_right, f"a time_left_ms of {most_ms}, half of the time till PENDING", request.time_left_ms)
    await desk.next(ResolveRequest)
    took_ms = t.now_ms - sent_ms
    is_right = request.time_left_ms - EARLY_MS <= took_ms
    require(is_right, f"ResolveRequest after {request.time_left_ms} ms", f"after {took_ms} ms")
    require_answer(await shopper.wire.expect(PaymentAck, correlation_id), PaymentStatus.PENDING)
    _require_time(t, "PENDING", SESSION_MS - PENDING_BEFORE_END_MS, asked_ms, opened_ms)


@GATEWAY.case(
    "session.over",
    "Credentials less than 2 s before the session's end, and after it, are REFUSED with SESSION; a new session pays.",
    *("6.7", "6.3", "PG-SES-1", "PG-SES-2", "PG-PAY-7"),
    waits_ms=SESSION_MS,
)
async def session_over(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    for after_ms in (SESSION_MS - PENDING_BEFORE_END_MS + 300, 2_000):
        await t.sleep(after_ms)
        require_answer(await shopper.send(shopper.payment(token, ack)), PaymentStatus.REFUSED, Reason.SESSION)
    await shopper.pay(token)
