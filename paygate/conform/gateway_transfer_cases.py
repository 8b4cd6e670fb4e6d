"""What a gateway forwards, and what it makes of the bank's answers, led by hand (spec 6.6, 7.1, 7.2)."""

from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import KemId, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import fields_of
from paygate.codec.messages import Error, PaymentAck, ResolveRequest, TransferRequest, TransferResult
from paygate.codec.sealed import Terms
from paygate.conform.cases import Failed, require
from paygate.conform.gateway_side import GATEWAY, open_link, played_bank, require_status, until_status
from paygate.conform.played_bank import Asked
from paygate.conform.shopper import (
    ClientPayment,
    Watched,
    begin,
    expect_answer,
    open_shopper,
    require_answer,
    require_payable,
    require_same,
)
from paygate.conform.trial import Trial

BANK_MS: Final = 20_000
"""What the gateway gives the bank (PG-SES-3)."""
LATE_MS: Final = 1_500
"""How much less of its time the bank may be told, for what passed between the credentials and the request."""
SILENCE_MS: Final = 600
MANY_COUNT: Final = 40
_REASONS: Final = [reason for reason in Reason if TransferOutcome.DECLINED.fits(reason)]
"""All for which a bank declines."""


def _require_terms(payment: ClientPayment, terms: Terms) -> None:
    for field in fields_of(Terms):
        expected, got = getattr(payment.terms, field.name), getattr(terms, field.name)
        require(got == expected, f"{field.name} {expected!r} in the terms at the bank", repr(got))


# -- what is forwarded -----------------------------------------------------------------------------------


@GATEWAY.case(
    "transfer.request",
    "The bank gets the terms of spec 8.1, the key ID and the envelope, byte for byte, and 20 seconds.",
    *("7.1", "8.1", "6.7", "PG-PAY-2", "PG-TRM-1", "PG-SES-3"),
)
async def transfer_request(t: Trial) -> None:
    for kem_id in (KemId.X25519, KemId.MLKEM768_X25519):
        watched = await begin(t, kem_id=kem_id)
        asked, request = await watched.desk.next(TransferRequest)
        _require_terms(watched.payment, request.terms)
        require(request.key_id == watched.payment.key_id, "the key ID of the credentials", request.key_id.hex())
        is_same = request.envelope == watched.payment.envelope
        require(is_same, f"the envelope {watched.payment.envelope.hex()}", request.envelope.hex())
        is_right = BANK_MS - LATE_MS <= request.time_left_ms <= BANK_MS
        require(is_right, f"a time_left_ms of {BANK_MS}, less what has passed", request.time_left_ms)
        watched.desk.answer(asked, TransferOutcome.POSTED)
        await expect_answer(watched, PaymentStatus.PAID)


@GATEWAY.case(
    "transfer.unread",
    "An envelope of any bytes for any key is forwarded: whether it opens is for the bank alone to say.",
    *("7.1", "10", "PG-FRM-4"),
)
async def transfer_unread(t: Trial) -> None:
    for size in (1, limits.ENVELOPE_SIZE_MAX):
        watched = await begin(t, envelope=t.random_bytes(size))
        asked, request = await watched.desk.next(TransferRequest)
        require(request.envelope == watched.payment.envelope, "the envelope, unread", request.envelope.hex())
        watched.desk.answer(asked, TransferOutcome.DECLINED, Reason.TERMS)
        await expect_answer(watched, PaymentStatus.DECLINED, Reason.TERMS)


@GATEWAY.case(
    "transfer.once",
    "Repeats of credentials, on any link, wait with the first; the bank is asked once, and all get its answer.",
    *("6.3", "6.6", "7.5", "PG-PAY-5"),
)
async def transfer_once(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    wire, other = watched.shopper.wire, await open_link(t)
    repeats = [(w, w.send(watched.payment.credentials())) for w in (wire, other, other)]
    await watched.desk.expect_none(SILENCE_MS)
    for quiet in (wire, other):
        await quiet.expect_silence(100)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    waiting = {(w, correlation_id) for w, correlation_id in [(wire, watched.correlation_id), *repeats]}
    answers: list[PaymentAck] = []
    for w in (wire, wire, other, other):
        reply = await w.receive()
        is_right = isinstance(reply.message, PaymentAck) and (w, reply.correlation_id) in waiting
        require(is_right, "a PaymentAck to each of those that wait, once", reply)
        waiting.remove((w, reply.correlation_id))
        assert isinstance(reply.message, PaymentAck)
        answers.append(watched.shopper.check(watched.payment, reply.message))
    require_answer(answers[0], PaymentStatus.PAID)
    require_same([*answers, await watched.shopper.send(watched.payment)])
    require(len(watched.desk.asked) == 1, "one request at the bank", [a.message for a in watched.desk.asked])


@GATEWAY.case(
    "transfer.receipt_as_it_is",
    "UTR and receipt are passed on byte for byte, with PaymentAck and with StatusAck.",
    *("6.4", "6.5", "8.5", "PG-STA-3", "PG-RES-9"),
)
async def receipt_as_it_is(t: Trial) -> None:
    for outcome, reason in ((TransferOutcome.POSTED, Reason.NONE), (TransferOutcome.DECLINED, Reason.FUNDS)):
        watched = await begin(t)
        asked, _ = await watched.desk.next(TransferRequest)
        said = watched.desk.answer(asked, outcome, reason)
        status = PaymentStatus.PAID if outcome is TransferOutcome.POSTED else PaymentStatus.DECLINED
        for answer in (
            await expect_answer(watched, status, reason),
            await watched.shopper.status(watched.payment),
        ):
            told = (answer.reason, answer.utr, answer.receipt)
            require(told == (said.reason, said.utr, said.receipt), f"what the bank said: {said}", answer)


@GATEWAY.case(
    "transfer.mismatch_in_flight",
    "While a payment is under way its ID with another envelope is REFUSED with PAYMENT_MISMATCH, and it goes on.",
    *("6.3", "6.6", "PG-PAY-6"),
)
async def mismatch_in_flight(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    other = await open_link(t)
    wrong = watched.payment.credentials(envelope=t.random_bytes(304))
    require_answer(await other.ask(wrong, PaymentAck), PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    await watched.desk.expect_none(100)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)


@GATEWAY.case(
    "transfer.token_in_flight",
    "Another payment of a token that is in flight is REFUSED with TOKEN_IN_FLIGHT, and the bank hears nothing of it.",
    *("6.4", "6.6", "PG-PAY-3"),
)
async def refused_token_in_flight(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    desk = played_bank(t).watch(t, token)
    first, second = shopper.payment(token, ack), shopper.payment(token, ack)
    watched = Watched(shopper, first, shopper.wire.send(first.credentials()), desk, t.now_ms)
    asked, _ = await desk.next(TransferRequest)
    other = await open_link(t)
    require_answer(await shopper.send(second, other), PaymentStatus.REFUSED, Reason.TOKEN_IN_FLIGHT)
    await desk.expect_none(100)
    require_answer(await shopper.status(second, other), PaymentStatus.UNKNOWN)
    desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)


@GATEWAY.case(
    "transfer.status_pending",
    "Asked for a payment in flight, the gateway says PENDING at once; of the token's other payments UNKNOWN.",
    *("6.5", "6.6", "PG-STA-1", "PG-STA-3"),
)
async def status_pending(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    other = await open_link(t)
    for _ in range(2):
        require_answer(await watched.shopper.status(watched.payment, other), PaymentStatus.PENDING)
    await watched.desk.expect_none(100)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    require_same([await expect_answer(watched, PaymentStatus.PAID), await watched.shopper.status(watched.payment)])


@GATEWAY.case(
    "transfer.client_gone",
    "A payment whose client is gone goes on: its outcome can be had on another link.",
    *("6.7", "5.2", "PG-SES-5", "PG-LNK-11"),
)
async def client_gone(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.shopper.wire.abort()
    other = await open_link(t)
    await t.sleep(100)
    said = watched.desk.answer(asked, TransferOutcome.POSTED)
    await until_status(t, other, watched.payment.token, TokenStatus.PAID)
    answer = await watched.shopper.status(watched.payment, other)
    require_answer(answer, PaymentStatus.PAID)
    require(answer.utr == said.utr, f"the UTR {said.utr}", answer)


# -- what the bank answers -------------------------------------------------------------------------------


def _declare_decline(reason: Reason) -> None:
    @GATEWAY.case(
        f"declined.{reason.name.lower()}",
        f"DECLINED with {reason.name} is passed on with its receipt; the token is VALID again, and can be paid.",
        *("6.4", "6.6", "7.2", "PG-TOK-6"),
    )
    async def declined(t: Trial) -> None:
        watched = await begin(t)
        asked, _ = await watched.desk.next(TransferRequest)
        watched.desk.answer(asked, TransferOutcome.DECLINED, reason)
        await expect_answer(watched, PaymentStatus.DECLINED, reason)
        await require_payable(t, watched)


for _reason in _REASONS:
    _declare_decline(_reason)


@GATEWAY.case(
    "outcome.fenced",
    "FENCED in answer to a TransferRequest is DECLINED with FENCED and its receipt; the token can be paid again.",
    *("6.4", "6.6", "7.2", "PG-TOK-6"),
)
async def outcome_fenced(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.desk.answer(asked, TransferOutcome.FENCED, Reason.FENCED)
    await expect_answer(watched, PaymentStatus.DECLINED, Reason.FENCED)
    await require_payable(t, watched)


@GATEWAY.case(
    "outcome.mismatch",
    "MISMATCH ends IN_FLIGHT: the client is told REFUSED with PAYMENT_MISMATCH, and the token can be paid again.",
    *("6.3", "6.6", "7.2", "PG-PAY-8", "PG-TOK-6"),
)
async def outcome_mismatch(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.desk.answer(asked, TransferOutcome.MISMATCH)
    first = await expect_answer(watched, PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    require_same([first, await watched.shopper.send(watched.payment), await watched.shopper.status(watched.payment)])
    await require_payable(t, watched)


@GATEWAY.case(
    "outcome.unavailable",
    "UNAVAILABLE is doubt: nothing is told, the token stays IN_FLIGHT, and ResolveRequest is sent until the bank says.",
    *("6.6", "7.2", "7.3", "PG-TOK-8", "PG-RES-4", "PG-RES-5", "PG-TRF-10"),
    waits_ms=BANK_MS,
)
async def outcome_unavailable(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.desk.answer(asked, TransferOutcome.UNAVAILABLE)
    await require_status(await open_link(t), watched.payment.token, TokenStatus.IN_FLIGHT)
    for outcome in (TransferOutcome.UNAVAILABLE, TransferOutcome.POSTED):
        again, _ = await _next_resolve(t, watched, asked)
        watched.desk.answer(again, outcome)
    await expect_answer(watched, PaymentStatus.PAID)


async def _next_resolve(t: Trial, watched: Watched, asked: Asked) -> tuple[Asked, ResolveRequest]:
    """The ResolveRequest for what was asked, which comes within the bank's time and carries the same terms."""
    again, request = await watched.desk.next(ResolveRequest, BANK_MS + t.settings.patience_ms)
    require(request.terms == asked.terms, f"the terms of the TransferRequest: {asked.terms}", request.terms)
    is_right = request.envelope_hash == asked.envelope_hash
    require(is_right, f"SHA-256 of the envelope: {asked.envelope_hash.hex()}", request.envelope_hash.hex())
    return again, request


@GATEWAY.case(
    "outcome.error",
    "An Error in answer to a TransferRequest, SHUTTING_DOWN or TOO_MANY_REQUESTS, is doubt: nothing is told, and the "
    "token is IN_FLIGHT until it is resolved.",
    *("6.6", "7.3", "5.6", "PG-TOK-8", "PG-ERR-1", "PG-ERR-5", "PG-RES-4"),
    waits_ms=BANK_MS,
)
async def outcome_error(t: Trial) -> None:
    begun: list[tuple[Watched, Asked]] = []
    for code in (ErrorCode.SHUTTING_DOWN, ErrorCode.TOO_MANY_REQUESTS):
        watched = await begin(t)
        asked, _ = await watched.desk.next(TransferRequest)
        watched.desk.send(asked, Error(code, closes=False, text="not now"))
        begun.append((watched, asked))
    for watched, _ in begun:
        await watched.shopper.wire.expect_silence(SILENCE_MS)
        await require_status(await open_link(t), watched.payment.token, TokenStatus.IN_FLIGHT)
    for watched, asked in begun:
        again, _ = await _next_resolve(t, watched, asked)
        watched.desk.answer(again, TransferOutcome.POSTED)
        await expect_answer(watched, PaymentStatus.PAID)


# -- many at once ----------------------------------------------------------------------------------------


@GATEWAY.case(
    "results.out_of_order",
    f"The results of {MANY_COUNT} payments that wait come in another order, and each reaches its own client.",
    *("5.2", "7.2", "PG-LNK-6", "PG-LNK-8", "PG-TRF-9"),
)
async def results_out_of_order(t: Trial) -> None:
    shoppers = [await open_shopper(t) for _ in range(4)]
    begun = [await begin(t, shoppers[i % 4]) for i in range(MANY_COUNT)]
    asked = [(await watched.desk.next(TransferRequest))[0] for watched in begun]
    order = sorted(range(MANY_COUNT), key=lambda i: (i * 7) % MANY_COUNT, reverse=True)
    for i in order:
        if i % 3:
            begun[i].desk.answer(asked[i], TransferOutcome.POSTED)
        else:
            begun[i].desk.answer(asked[i], TransferOutcome.DECLINED, Reason.FUNDS)
    waiting = {(w.shopper.wire, w.correlation_id): (i, w) for i, w in enumerate(begun)}
    for wire in [w.shopper.wire for w in begun]:
        reply = await wire.receive()
        found = waiting.pop((wire, reply.correlation_id), None)
        if found is None or not isinstance(reply.message, PaymentAck):
            raise Failed("a PaymentAck to each of those that wait, once", reply)
        i, watched = found
        watched.shopper.check(watched.payment, reply.message)
        expected = (PaymentStatus.PAID, Reason.NONE) if i % 3 else (PaymentStatus.DECLINED, Reason.FUNDS)
        require_answer(reply.message, *expected)


@GATEWAY.case(
    "results.crossed",
    "Results are matched by payment ID: two that come under each other's correlation IDs reach the right clients.",
    *("7.2", "PG-TRF-9"),
)
async def results_crossed(t: Trial) -> None:
    bank = played_bank(t)
    first, second = await begin(t), await begin(t)
    first_asked, _ = await first.desk.next(TransferRequest)
    second_asked, _ = await second.desk.next(TransferRequest)
    paid = bank.answer_to(first_asked, TransferOutcome.POSTED)
    declined = bank.answer_to(second_asked, TransferOutcome.DECLINED, Reason.FUNDS)
    first.desk.send(first_asked, declined)
    second.desk.send(second_asked, paid)
    await expect_answer(first, PaymentStatus.PAID)
    await expect_answer(second, PaymentStatus.DECLINED, Reason.FUNDS)


@GATEWAY.case(
    "results.unknown_payment",
    "A result for a payment that the gateway never began changes nothing, and the link and its payments go on.",
    *("7.2", "PG-TRF-9", "PG-TOK-8"),
)
async def results_unknown_payment(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    said = played_bank(t).answer_to(asked, TransferOutcome.POSTED)
    assert isinstance(said, TransferResult)
    watched.desk.send(asked, replace(said, payment_id=t.random_bytes(limits.PAYMENT_ID_SIZE)))
    await watched.shopper.wire.expect_silence(SILENCE_MS)
    await require_status(await open_link(t), watched.payment.token, TokenStatus.IN_FLIGHT)
    await (await open_shopper(t)).pay()
