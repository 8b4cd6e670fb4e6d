"""Replays, mismatches, resolves and fences, against a bank (spec 7.3, 7.4)."""

from dataclasses import replace
from typing import Any, Final

from paygate.codec.codes import Reason, TransferOutcome
from paygate.codec.fields import fields_of
from paygate.codec.messages import ResolveRequest, ResolveResult, TransferAnswer, TransferRequest, TransferResult
from paygate.codec.sealed import Terms
from paygate.conform.bank_side import (
    BANK,
    Payment,
    Till,
    open_link,
    open_till,
    other_term,
    require_posted,
    require_same,
)
from paygate.conform.cases import Skipped, require
from paygate.conform.trial import Trial

_KEY_TERMS: Final = {"bank_id", "gateway_id", "payment_id"}
"""Terms that say which payment it is; with another of these it is another payment, or refused."""


# -- replays ---------------------------------------------------------------------------------------------


@BANK.case(
    "replay.posted",
    "A POSTED transfer that is sent again, on the same link or another, gets the same answer byte for byte.",
    *("7.4", "7.5", "PG-RES-9"),
)
async def replay_posted(t: Trial) -> None:
    till = await open_till(t)
    payment, first = await till.pay()
    await _replays(t, till, payment, first)


@BANK.case(
    "replay.declined",
    "A DECLINED transfer that is sent again gets the same answer byte for byte.",
    *("7.4", "7.5", "PG-RES-9", "PG-TRF-8"),
)
async def replay_declined(t: Trial) -> None:
    till = await open_till(t)
    payment = till.payment(merchant_id="M-NOBODY")
    await _replays(t, till, payment, await till.decline(payment, Reason.MERCHANT_UNKNOWN))


async def _replays(t: Trial, till: Till, payment: Payment, first: TransferAnswer) -> None:
    other = await open_link(t)
    answers = [first, await till.transfer(payment), await till.transfer(payment, other)]
    require_same([*answers, await till.resolve(payment), await till.resolve(payment, other)])


@BANK.case(
    "replay.after_its_time",
    "A replay is answered whatever its time left and its key ID say: they are not part of the fingerprint.",
    *("7.4", "PG-RES-8", "PG-RES-9"),
)
async def replay_after_its_time(t: Trial) -> None:
    till = await open_till(t)
    payment, first = await till.pay()
    late, other_key = replace(payment, time_left_ms=0), replace(payment, key_id=bytes(8))
    require_same([first, await till.transfer(late), await till.transfer(other_key)])


# -- mismatches ------------------------------------------------------------------------------------------


async def _mismatch(till: Till, request: TransferRequest | ResolveRequest) -> None:
    reply: type[TransferResult] | type[ResolveResult] = (
        TransferResult if isinstance(request, TransferRequest) else ResolveResult
    )
    require_mismatch(await till.wire.ask(request, reply), request)


def require_mismatch(answer: TransferAnswer, request: TransferRequest | ResolveRequest) -> None:
    """Fail the case unless it is told that this is another payment, and nothing else."""
    require(answer.payment_id == request.terms.payment_id, "an answer for this payment ID", answer)
    is_bare = (answer.reason, answer.utr, answer.receipt) == (Reason.NONE, "", b"")
    require(answer.outcome is TransferOutcome.MISMATCH and is_bare, "MISMATCH that reveals nothing", answer)


def _declare_mismatch(name: str) -> None:
    @BANK.case(
        f"mismatch.{name}",
        f"A known payment ID with another {name} gets MISMATCH, which reveals and changes nothing.",
        *("7.2", "7.4", "PG-RES-8"),
    )
    async def mismatch(t: Trial) -> None:
        till = await open_till(t)
        payment, first = await till.pay()
        changed: dict[str, Any] = {name: other_term(getattr(payment.terms, name))}
        await _mismatch(till, payment.transfer(**changed))
        await _mismatch(till, payment.resolve(**changed))
        require_same([first, await till.transfer(payment)])


for _field in fields_of(Terms):
    if _field.name not in _KEY_TERMS:
        _declare_mismatch(_field.name)


@BANK.case(
    "mismatch.envelope",
    "A known payment ID with another envelope gets MISMATCH, though its terms are the same and it would open.",
    *("7.2", "7.4", "PG-RES-8"),
)
async def mismatch_envelope(t: Trial) -> None:
    till = await open_till(t)
    payment, first = await till.pay()
    terms = {field.name: getattr(payment.terms, field.name) for field in fields_of(Terms)}
    other = till.payment(**terms)
    await _mismatch(till, other.transfer())
    await _mismatch(till, other.resolve())
    require_same([first, await till.transfer(payment)])


@BANK.case(
    "mismatch.of_declined_and_fenced",
    "Payment IDs that were declined or fenced get MISMATCH with other terms too.",
    *("7.4", "PG-RES-8"),
)
async def mismatch_of_others(t: Trial) -> None:
    till = await open_till(t)
    declined, fenced = till.payment(merchant_id="M-NOBODY"), till.payment()
    await till.decline(declined, Reason.MERCHANT_UNKNOWN)
    require_fenced(await till.resolve(fenced))
    for payment in (declined, fenced):
        await _mismatch(till, payment.transfer(amount_minor=7))
        await _mismatch(till, payment.resolve(amount_minor=7))


# -- resolves --------------------------------------------------------------------------------------------


def require_fenced(answer: TransferAnswer) -> None:
    """Fail the case unless the payment is fenced."""
    is_so = answer.outcome is TransferOutcome.FENCED and answer.reason is Reason.FENCED
    require(is_so, "FENCED", answer)


@BANK.case(
    "resolve.absent",
    "A payment ID that was never seen is FENCED, with a receipt; a transfer that comes later gets the same.",
    *("7.3", "7.4", "PG-RES-1", "PG-RES-3", "PG-RES-9"),
)
async def resolve_absent(t: Trial) -> None:
    till = await open_till(t)
    other = await open_link(t)
    payment = till.payment()
    first = await till.resolve(payment)
    require_fenced(first)
    require_same(
        [first, await till.transfer(payment), await till.transfer(payment, other), await till.resolve(payment)]
    )


@BANK.case(
    "resolve.fence_frees_token",
    "A fence does not pay its token: another payment ID is POSTED.",
    *("7.3", "PG-RES-3"),
)
async def fence_frees_token(t: Trial) -> None:
    till = await open_till(t)
    fenced = till.payment()
    require_fenced(await till.resolve(fenced))
    await till.pay(transaction_id=fenced.terms.transaction_id)


@BANK.case(
    "resolve.under_way",
    "A resolve behind a transfer that is under way is answered with that transfer's outcome, not with a fence.",
    *("7.3", "PG-RES-2"),
)
async def resolve_under_way(t: Trial) -> None:
    till = await open_till(t)
    for _ in range(4):
        payment = till.payment()
        transfer_id, resolve_id = till.wire.send(payment.transfer()), till.wire.send(payment.resolve())
        answers: dict[int, TransferAnswer] = {}
        for _ in range(2):
            reply = await till.wire.receive()
            assert isinstance(reply.message, TransferAnswer)
            till.check(payment, reply.message)
            answers[reply.correlation_id] = reply.message
        require(answers.keys() == {transfer_id, resolve_id}, "one reply to each", answers)
        require_posted(answers[transfer_id])
        require_same([answers[transfer_id], answers[resolve_id]])


@BANK.case(
    "resolve.other_gateway",
    "Two gateways may use the same payment ID: what one pays or resolves is nothing to the other's payment.",
    *("7.4", "PG-RES-7", "PG-TRF-1"),
)
async def other_gateway(t: Trial) -> None:
    second = t.world.second_gateway
    if second is None:
        raise Skipped("the world has no second gateway")
    mine, theirs = await open_till(t), await open_till(t, second)
    payment_id = t.random_bytes(16)
    payment, first = await mine.pay(payment_id=payment_id)
    require_fenced(await theirs.resolve(theirs.payment(payment_id=payment_id)))
    require_same([first, await mine.transfer(payment)])
    another = t.random_bytes(16)
    require_fenced(await mine.resolve(mine.payment(payment_id=another)))
    await theirs.pay(payment_id=another, transaction_id=payment.terms.transaction_id)
