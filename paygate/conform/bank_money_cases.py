"""What moves money, and what must not: proven on balances that are known to the minor unit (spec 7.1, 7.3, 7.4).

An answer alone shows no debit: a bank may say DECLINED, or repeat an answer, and take the money all the same. So most
of these cases have a customer of their own, and end by paying out exactly what must be left.
"""

from typing import Any, Final

from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.fields import fields_of
from paygate.codec.messages import ResolveRequest, TransferAnswer, TransferRequest, TransferResult
from paygate.codec.sealed import Terms
from paygate.conform.bank_decline_cases import guessed, other_currency
from paygate.conform.bank_resolve_cases import require_fenced, require_mismatch
from paygate.conform.bank_side import (
    BANK,
    Payment,
    Till,
    open_link,
    open_till,
    require_declined,
    require_posted,
    require_same,
    take_spender,
)
from paygate.conform.cases import require
from paygate.conform.trial import Trial
from paygate.conform.world import WorldCustomer

_BURST_COUNT: Final = 3
"""Requests in one segment: with one more than two, a bank that looks at pairs is found too."""


async def _require_left(till: Till, spender: WorldCustomer, left_minor: int) -> None:
    """Fail the case unless the customer has exactly this: no more, and, by paying it out, no less."""
    await till.decline(till.payment(spender, amount_minor=left_minor + 1), Reason.FUNDS)
    await till.pay(customer=spender, amount_minor=left_minor)


async def _paid_part(t: Trial) -> tuple[Till, WorldCustomer, Payment, TransferResult]:
    """A customer who has paid a tenth of what they had, so that a second debit would find enough."""
    till, spender = await open_till(t), take_spender(t)
    payment, answer = await till.pay(customer=spender, amount_minor=spender.balance_minor // 10)
    return till, spender, payment, answer


def _left_minor(spender: WorldCustomer, *payments: Payment) -> int:
    return spender.balance_minor - sum(payment.terms.amount_minor for payment in payments)


# -- one debit each --------------------------------------------------------------------------------------


@BANK.case(
    "transfer.balance",
    "A balance of exactly the amount is enough, one minor unit more is not, and what was paid is gone.",
    *("7.1", "PG-TRF-5", "PG-TRF-3"),
)
async def balance(t: Trial) -> None:
    till, spender = await open_till(t), take_spender(t)
    await _require_left(till, spender, spender.balance_minor)
    await till.decline(till.payment(spender, amount_minor=1), Reason.FUNDS)


@BANK.case(
    "transfer.one_debit",
    "A transfer that is sent many times at once, on several links, is one debit with one answer.",
    *("7.1", "7.4", "PG-RES-9", "PG-TRF-2"),
)
async def one_debit(t: Trial) -> None:
    till, spender = await open_till(t), take_spender(t)
    payment = till.payment(spender, amount_minor=spender.balance_minor // 3)
    wires = [till.wire, *[await open_link(t) for _ in range(3)]]
    for wire in wires:
        for _ in range(3):
            wire.send(payment.transfer())
    receipts: set[bytes] = set()
    for wire in wires:
        for _ in range(3):
            answer = await wire.expect(TransferResult)
            till.check(payment, answer)
            require_posted(answer)
            receipts.add(answer.receipt)
    require(len(receipts) == 1, "one receipt for all of them", f"{len(receipts)} receipts")
    await _require_left(till, spender, _left_minor(spender, payment))


# -- no debit by what must move nothing ------------------------------------------------------------------


@BANK.case(
    "no_debit_by.replay",
    "A POSTED transfer that is sent again, on its link and on another, takes nothing more.",
    *("7.4", "PG-RES-9", "PG-TRF-2"),
)
async def no_debit_by_replay(t: Trial) -> None:
    till, spender, payment, first = await _paid_part(t)
    other = await open_link(t)
    require_same([first, await till.transfer(payment, other), await till.transfer(payment)])
    await _require_left(till, spender, _left_minor(spender, payment))


@BANK.case(
    "no_debit_by.resolve",
    "ResolveRequests for a POSTED payment take nothing.",
    *("7.3", "PG-RES-3", "PG-RES-1"),
)
async def no_debit_by_resolve(t: Trial) -> None:
    till, spender, payment, first = await _paid_part(t)
    require_same([first, await till.resolve(payment), await till.resolve(payment)])
    await _require_left(till, spender, _left_minor(spender, payment))


@BANK.case(
    "no_debit_by.mismatch",
    "A right payment under a payment ID that is another's, or with another amount, gets MISMATCH and takes nothing.",
    *("7.4", "PG-RES-8"),
)
async def no_debit_by_mismatch(t: Trial) -> None:
    till, spender, payment, _ = await _paid_part(t)
    resealed = till.payment(spender, **_terms_of(payment))
    dearer = till.payment(spender, **_terms_of(payment) | {"amount_minor": payment.terms.amount_minor + 1})
    for other in (resealed, dearer):
        require_mismatch(await till.wire.ask(other.transfer(), TransferResult), other.transfer())
    await _require_left(till, spender, _left_minor(spender, payment))


def _terms_of(payment: Payment) -> dict[str, Any]:
    return {field.name: getattr(payment.terms, field.name) for field in fields_of(Terms)}


@BANK.case(
    "no_debit_by.decline",
    "Payments that are declined, though the balance would do, take nothing.",
    *("7.1", "PG-TRF-3", "PG-TRF-8"),
)
async def no_debit_by_decline(t: Trial) -> None:
    till, spender, payment, _ = await _paid_part(t)
    part: dict[str, Any] = {"amount_minor": payment.terms.amount_minor}
    for reason, declined in (
        (Reason.LATE, till.payment(spender, time_left_ms=0, **part)),
        (Reason.LATE, till.payment(spender, authorised_at_ms=0, **part)),
        (Reason.TOKEN_ALREADY_PAID, till.payment(spender, transaction_id=payment.terms.transaction_id, **part)),
        (Reason.MERCHANT_UNKNOWN, till.payment(spender, merchant_id="M-NOBODY", **part)),
        (Reason.CURRENCY, till.payment(spender, currency=other_currency(t), **part)),
        (Reason.CREDENTIALS, till.guess(spender, **part)),
    ):
        await till.decline(declined, reason)
    await _require_left(till, spender, _left_minor(spender, payment))


@BANK.case(
    "no_debit_by.fenced",
    "A transfer behind its fence is answered FENCED, again and again, and takes nothing.",
    *("7.3", "7.4", "PG-RES-3", "PG-RES-9"),
)
async def no_debit_by_fenced(t: Trial) -> None:
    till, spender = await open_till(t), take_spender(t)
    fenced = till.payment(spender, amount_minor=spender.balance_minor // 10)
    first = await till.resolve(fenced)
    require_fenced(first)
    require_same([first, await till.transfer(fenced), await till.transfer(fenced)])
    await _require_left(till, spender, spender.balance_minor)


# -- what comes in one segment is decided one by one -----------------------------------------------------


async def _sent_at_once(till: Till, payments: list[Payment], expected: list[Reason]) -> list[Payment]:
    """Send transfers in one segment, and expect these reasons in any order, NONE of those that are POSTED.

    Gives the payments that were POSTED.
    """
    sent = {till.wire.send(payment.transfer()): payment for payment in payments}
    posted: list[Payment] = []
    reasons: list[Reason] = []
    for _ in payments:
        reply = await till.wire.receive()
        require(isinstance(reply.message, TransferResult), "a TransferResult", reply)
        assert isinstance(reply.message, TransferResult)
        require(reply.correlation_id in sent, "one reply to each request", reply)
        payment = sent.pop(reply.correlation_id)
        till.check(payment, reply.message)
        reasons.append(reply.message.reason)
        if reply.message.outcome is TransferOutcome.POSTED:
            posted.append(payment)
        else:
            require_declined(reply.message, reply.message.reason)
    told = sorted(reason.name for reason in reasons)
    wanted = sorted(reason.name for reason in expected)
    require(told == wanted, f"the reasons {', '.join(wanted)}, in any order (NONE is of POSTED)", ", ".join(told))
    return posted


@BANK.case(
    "transfer.overdraft_burst",
    "Of payments sent at once for which the balance does only once, one is POSTED, and the others are FUNDS.",
    *("7.1", "PG-TRF-2", "PG-TRF-3", "PG-TRF-5"),
)
async def overdraft_burst(t: Trial) -> None:
    till, spender = await open_till(t), take_spender(t)
    part_minor = spender.balance_minor * 2 // 3
    payments = [till.payment(spender, amount_minor=part_minor) for _ in range(_BURST_COUNT)]
    expected = [Reason.NONE, *[Reason.FUNDS] * (_BURST_COUNT - 1)]
    posted = await _sent_at_once(till, payments, expected)
    await _require_left(till, spender, _left_minor(spender, *posted))


@BANK.case(
    "transfer.token_burst",
    "Of payments of one token sent at once one is POSTED, and takes its amount once; the others are "
    "TOKEN_ALREADY_PAID.",
    *("7.1", "PG-TRF-2", "PG-TRF-3"),
)
async def token_burst(t: Trial) -> None:
    till, spender = await open_till(t), take_spender(t)
    first = till.payment(spender, amount_minor=spender.balance_minor // 10)
    terms: dict[str, Any] = {"transaction_id": first.terms.transaction_id, "amount_minor": first.terms.amount_minor}
    payments = [first, *[till.payment(spender, **terms) for _ in range(_BURST_COUNT - 1)]]
    expected = [Reason.NONE, *[Reason.TOKEN_ALREADY_PAID] * (_BURST_COUNT - 1)]
    posted = await _sent_at_once(till, payments, expected)
    await _require_left(till, spender, _left_minor(spender, *posted))


@BANK.case(
    "mismatch.burst",
    "Of requests sent at once under one payment ID the first is decided; those with another envelope or other terms "
    "get MISMATCH, and learn nothing of it.",
    *("7.4", "PG-RES-8"),
)
async def mismatch_burst(t: Trial) -> None:
    till = await open_till(t)
    payment = till.payment()
    resealed = till.payment(**_terms_of(payment))
    dearer = till.payment(**_terms_of(payment) | {"amount_minor": 7})
    first_id = till.wire.send(payment.transfer())
    others: list[TransferRequest | ResolveRequest] = [
        resealed.transfer(),
        dearer.transfer(),
        dearer.resolve(),
        resealed.resolve(),
    ]
    sent = {till.wire.send(request): request for request in others}
    for _ in range(1 + len(others)):
        reply = await till.wire.receive()
        require(isinstance(reply.message, TransferAnswer), "a TransferResult or a ResolveResult", reply)
        assert isinstance(reply.message, TransferAnswer)
        if reply.correlation_id == first_id:
            till.check(payment, reply.message)
            require_posted(reply.message)
        else:
            require(reply.correlation_id in sent, "one reply to each request", reply)
            require_mismatch(reply.message, sent.pop(reply.correlation_id))


@BANK.case(
    "decline.guess_burst",
    "Three wrong passwords that are sent at once count as three: the right one gets CREDENTIALS after them.",
    *("6.4", "7.1", "PG-TRF-7"),
)
async def guess_burst(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 6)
    await _sent_at_once(till, [till.guess(who) for _ in range(3)], [Reason.CREDENTIALS] * 3)
    await till.decline(till.payment(who), Reason.CREDENTIALS)
