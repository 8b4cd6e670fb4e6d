"""What would lose money or charge twice: requests at once, results that come late, a restart (spec 6.2, 6.3, 6.6)."""

import shlex
from typing import Final

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import PaymentAck, TransferRequest, TransferResult
from paygate.conform.cases import Failed, Skipped, Unreachable, require
from paygate.conform.gateway_side import (
    GATEWAY,
    PASSCODE_TRY_COUNT,
    new_token,
    open_link,
    played_bank,
    query,
    require_status,
    wrong_passcode,
)
from paygate.conform.played_bank import Asked
from paygate.conform.shopper import Shopper, Watched, begin, expect_answer, open_shopper, require_answer, require_same
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire

SILENCE_MS: Final = 600
AT_ONCE_COUNT: Final = 4
"""So many credentials come in one segment."""
RESTART_MS: Final = 30_000
"""How long a gateway may take to be up again, and to have its bank."""


# -- at once ---------------------------------------------------------------------------------------------


@GATEWAY.case(
    "at_once.payments",
    f"Of {AT_ONCE_COUNT} payments of one token in one segment one goes to the bank; the others are REFUSED with "
    "TOKEN_IN_FLIGHT.",
    *("6.3", "6.6", "PG-FRM-2"),
)
async def payments_at_once(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    desk = played_bank(t).watch(t, token)
    payments = [shopper.payment(token, ack) for _ in range(AT_ONCE_COUNT)]
    waiting = {shopper.wire.send(payment.credentials()): payment for payment in payments}
    asked, _ = await desk.next(TransferRequest)
    await desk.expect_none(SILENCE_MS)
    while len(waiting) > 1:
        reply = await shopper.wire.receive()
        payment = waiting.pop(reply.correlation_id, None)
        if payment is None or not isinstance(reply.message, PaymentAck):
            raise Failed("a PaymentAck to each payment, once", reply)
        require_answer(shopper.check(payment, reply.message), PaymentStatus.REFUSED, Reason.TOKEN_IN_FLIGHT)
    ((correlation_id, begun),) = waiting.items()
    is_same = asked.terms.payment_id == begun.payment_id
    require(is_same, "REFUSED for every payment but that of the bank's request", asked.terms.payment_id.hex())
    desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(Watched(shopper, begun, correlation_id, desk, t.now_ms), PaymentStatus.PAID)


@GATEWAY.case(
    "at_once.repeats",
    f"The same credentials {AT_ONCE_COUNT} times in one segment are sent to the bank once, and all get its answer.",
    *("6.3", "6.6", "PG-PAY-5", "PG-FRM-2"),
)
async def repeats_at_once(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    desk = played_bank(t).watch(t, token)
    payment = shopper.payment(token, ack)
    waiting = {shopper.wire.send(payment.credentials()) for _ in range(AT_ONCE_COUNT)}
    asked, _ = await desk.next(TransferRequest)
    await desk.expect_none(SILENCE_MS)
    desk.answer(asked, TransferOutcome.POSTED)
    answers: list[PaymentAck] = []
    while waiting:
        reply = await shopper.wire.receive()
        if reply.correlation_id not in waiting or not isinstance(reply.message, PaymentAck):
            raise Failed("a PaymentAck to each of those that wait, once", reply)
        waiting.remove(reply.correlation_id)
        answers.append(shopper.check(payment, reply.message))
    require_answer(answers[0], PaymentStatus.PAID)
    require_same(answers)


# -- results that come late ------------------------------------------------------------------------------


def _declined(t: Trial, asked: Asked) -> TransferResult:
    """That this payment was declined, under the bank's own signature, whatever its books say."""
    keys = played_bank(t).keys
    terms, sent_hash, reason = asked.terms, asked.envelope_hash, Reason.FUNDS
    statement = keys.statement(terms, sent_hash, TransferOutcome.DECLINED, t.wall_ms(), reason=reason, utr="")
    return TransferResult(terms.payment_id, TransferOutcome.DECLINED, reason, "", keys.receipts(statement)[0])


async def _say_beside(t: Trial, result: TransferResult) -> None:
    """The bank says this under another payment's request, which stays in doubt: a gateway takes no result unasked."""
    beside = await begin(t)
    asked, _ = await beside.desk.next(TransferRequest)
    beside.desk.send(asked, result)
    await beside.shopper.wire.expect_silence(SILENCE_MS)


@GATEWAY.case(
    "late.declined_after_posted",
    "A DECLINED that comes after POSTED changes nothing: the token stays PAID, and answer and receipt are the same "
    "bytes.",
    *("6.6", "7.2", "PG-TOK-7"),
)
async def declined_after_posted(t: Trial) -> None:
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    paid = await expect_answer(watched, PaymentStatus.PAID)
    await _say_beside(t, _declined(t, asked))
    shopper, payment, other = watched.shopper, watched.payment, await open_link(t)
    require_same([paid, await shopper.send(payment, other), await shopper.status(payment, other)])
    ack = await require_status(other, payment.token, TokenStatus.PAID)
    require(ack.utr == paid.utr, f"the UTR {paid.utr}", ack)


@GATEWAY.case(
    "late.declined_of_other_payment",
    "DECLINED of a token's old payment, said again, does not end the payment of the token that is in flight now.",
    *("6.6", "7.2", "PG-TOK-6", "PG-TRF-9"),
)
async def declined_of_other_payment(t: Trial) -> None:
    old = await begin(t)
    old_asked, _ = await old.desk.next(TransferRequest)
    said = old.desk.answer(old_asked, TransferOutcome.DECLINED, Reason.FUNDS)
    assert isinstance(said, TransferResult)
    await expect_answer(old, PaymentStatus.DECLINED, Reason.FUNDS)
    shopper = old.shopper
    payment = await shopper.new_payment(old.payment.token)
    watched = Watched(shopper, payment, shopper.wire.send(payment.credentials()), old.desk, t.now_ms)
    asked, _ = await old.desk.next(TransferRequest)
    await _say_beside(t, said)
    other = await open_link(t)
    await require_status(other, payment.token, TokenStatus.IN_FLIGHT)
    require_answer(await shopper.status(payment, other), PaymentStatus.PENDING)
    old.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)


# -- a restart -------------------------------------------------------------------------------------------


@GATEWAY.case(
    "restart.keeps",
    "After a kill and a restart a PAID token is PAID, a locked one LOCKED, and what is answered of payments that have "
    "ended, with their receipts, is the same bytes.",
    *("6.6", "6.2", "6.3", "6.5", "PG-PAY-8", "PG-PAY-9", "PG-TOK-2", "PG-TOK-7", "PG-STA-3"),
    exclusive=True,
)
async def restart_keeps(t: Trial) -> None:
    command = t.settings.options.get("restart_command")
    if command is None:
        raise Skipped("it needs --restart-command CMD, which kills the gateway and starts it again")
    before = await open_shopper(t)
    paid, paid_answer = await before.pay()
    declined = await before.new_payment(password="not the password")  # noqa: S106  # nobody's
    declined_answer = await before.send(declined)
    require_answer(declined_answer, PaymentStatus.DECLINED, Reason.CREDENTIALS)
    locked = new_token(t)
    for _ in range(PASSCODE_TRY_COUNT):
        await query(before.wire, locked, wrong_passcode(locked))
    await require_status(before.wire, locked, TokenStatus.LOCKED)
    code = await t.run_command(shlex.split(command))
    require(code == 0, f"exit code 0 of the command {command}", code)
    await before.wire.expect_closed()
    # A key list may not be at hand before the bank is.
    after = Shopper(t, await _link_of_restarted(t), before.key_list)
    await require_status(after.wire, locked, TokenStatus.LOCKED)
    ack = await require_status(after.wire, paid.token, TokenStatus.PAID)
    require(ack.utr == paid_answer.utr, f"the UTR {paid_answer.utr}", ack)
    for payment, answer in ((paid, paid_answer), (declined, declined_answer)):
        require_same([answer, await after.status(payment), await after.send(payment)])
    await _pay_when_bank_is_there(t, after)


async def _link_of_restarted(t: Trial) -> Wire:
    deadline_ms = t.now_ms + RESTART_MS
    while True:
        try:
            return await open_link(t)
        except (Unreachable, Failed):
            if t.now_ms >= deadline_ms:
                raise
        await t.sleep(100)


async def _pay_when_bank_is_there(t: Trial, shopper: Shopper) -> None:
    """The gateway serves as before, so the cases after this one find it whole."""
    token = new_token(t)
    deadline_ms = t.now_ms + RESTART_MS
    while (answer := await shopper.send(await shopper.new_payment(token))).reason is Reason.BANK_UNREACHABLE:
        require(t.now_ms < deadline_ms, f"the bank in reach within {RESTART_MS} ms", answer)
        await t.sleep(100)
    require_answer(answer, PaymentStatus.PAID)
