"""Transfers that are posted, against a bank (spec 7.1, 7.2, 8)."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from paygate.codec.codes import KemId
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import TransferResult
from paygate.conform.bank_side import BANK, open_link, open_till, require_posted
from paygate.conform.cases import Skipped, require
from paygate.conform.trial import Trial

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
AUTHORISED_MS_MAX: Final = 300_000
"""How far `authorised_at_ms` may be from the bank's clock, either way (PG-TRF-4)."""
CLOCKS_MS: Final = 20_000
"""Room for the difference between our clock and the bank's, on either side of that limit."""


@BANK.case(
    "transfer.posted",
    "A right payment sealed for X25519 is POSTED, with a UTR and a receipt that verifies and matches it.",
    *("7.1", "7.2", "8.1", "8.2", "8.3", "8.5", "PG-TRF-2", "PG-TRF-5", "PG-ENV-1", "PG-ENV-2", "PG-RCP-1"),
    *("PG-RCP-2", "PG-RCP-3", "PG-RCP-4", "PG-RCP-5", "PG-TRM-1"),
)
async def posted(t: Trial) -> None:
    till = await open_till(t)
    await till.pay()


@BANK.case(
    "transfer.hybrid",
    "A right payment sealed for MLKEM768-X25519 is POSTED, if the bank lists such a key.",
    *("8.2", "PG-ENV-2"),
)
async def posted_hybrid(t: Trial) -> None:
    till = await open_till(t)
    await till.pay(suite_key=till.suite_key(KemId.MLKEM768_X25519))


@BANK.case(
    "transfer.every_key",
    "A payment sealed for any key of the list is POSTED.",
    *("8.4", "PG-KEY-7"),
)
async def every_key(t: Trial) -> None:
    till = await open_till(t)
    for suite_key in till.key_list.suite_keys:
        await till.pay(suite_key=suite_key)


@BANK.case(
    "transfer.utr",
    "A UTR has the bank's code, P, a digit, the date and eight digits, and none is given twice.",
    *("7.1", "7.2", "2", "PG-TRF-6"),
)
async def utr(t: Trial) -> None:
    till = await open_till(t)
    payments = {payment.terms.payment_id: payment for payment in (till.payment() for _ in range(10))}
    for payment in payments.values():
        till.wire.send(payment.transfer())
    seen: set[str] = set()
    days = {f"{_EPOCH + timedelta(milliseconds=t.wall_ms() + shift):%Y%m%d}" for shift in (-CLOCKS_MS, 0, CLOCKS_MS)}
    for _ in payments:
        answer = await till.wire.expect(TransferResult)
        require(answer.payment_id in payments, "the payment ID of a payment that was sent", answer)
        till.check(payments[answer.payment_id], answer)
        require_posted(answer)
        is_shaped = answer.utr.startswith(f"{t.world.bank_code}P") and answer.utr[6:14] in days
        require(is_shaped, f"{t.world.bank_code}P, a digit, and one of the dates {', '.join(sorted(days))}", answer.utr)
        require(answer.utr not in seen, "a UTR that was not given before", answer.utr)
        seen.add(answer.utr)


@BANK.case(
    "transfer.time_forward",
    "The bank times of receipts, and the dates of UTRs, never run backwards.",
    *("7.1", "PG-TRF-6"),
)
async def time_forward(t: Trial) -> None:
    till = await open_till(t)
    times: list[int] = []
    for _ in range(4):
        payment, answer = await till.pay()
        times.append(till.statement(payment, answer).bank_time_ms)
        await t.sleep(5)
    require(all(a <= b for a, b in pairwise(times)), "bank times that grow", times)


@BANK.case(
    "transfer.clock_tolerance",
    "An authorisation almost five minutes old, or as far ahead, is taken.",
    *("7.1", "PG-TRF-4"),
)
async def clock_tolerance(t: Trial) -> None:
    till = await open_till(t)
    for shift_ms in (-AUTHORISED_MS_MAX + CLOCKS_MS, AUTHORISED_MS_MAX - CLOCKS_MS):
        await till.pay(authorised_at_ms=t.wall_ms() + shift_ms)


@BANK.case(
    "transfer.one_of_two",
    "Of two payments of one token sent at once on two links one is POSTED, the other TOKEN_ALREADY_PAID.",
    *("7.1", "PG-TRF-3"),
)
async def one_of_two(t: Trial) -> None:
    till = await open_till(t)
    other = await open_link(t)
    first = till.payment()
    second = till.payment(transaction_id=first.terms.transaction_id)
    till.wire.send(first.transfer())
    other.send(second.transfer())
    answers = [await till.wire.expect(TransferResult), await other.expect(TransferResult)]
    for payment, answer in zip((first, second), answers, strict=True):
        till.check(payment, answer)
    outcomes = sorted((a.outcome.name, a.reason.name) for a in answers)
    expected = [("DECLINED", "TOKEN_ALREADY_PAID"), ("POSTED", "NONE")]
    require(outcomes == expected, "one POSTED and one TOKEN_ALREADY_PAID", outcomes)


@BANK.case(
    "transfer.foreign_gateway",
    "A request whose terms name another gateway gets BAD_VALUE, and its link is closed.",
    *("7.1", "9", "PG-TRF-1", "PG-ERR-6"),
)
async def foreign_gateway(t: Trial) -> None:
    await _foreign(t, gateway_id="another-gateway")


@BANK.case(
    "transfer.foreign_known_gateway",
    "A request whose terms name another gateway that the bank knows gets BAD_VALUE all the same.",
    *("7.1", "9", "PG-TRF-1"),
)
async def foreign_known_gateway(t: Trial) -> None:
    second = t.world.second_gateway
    if second is None:
        raise Skipped("the world has no second gateway")
    await _foreign(t, gateway_id=second.gateway_id)


@BANK.case(
    "transfer.foreign_bank",
    "A request whose terms name another bank gets BAD_VALUE, and its link is closed.",
    *("7.1", "9", "PG-TRF-1"),
)
async def foreign_bank(t: Trial) -> None:
    await _foreign(t, bank_id="ANOTHERBANK")


async def _foreign(t: Trial, **terms: Any) -> None:
    till = await open_till(t)
    payment = till.payment(**terms)
    for request in (payment.transfer(), payment.resolve()):
        wire = await open_link(t)
        wire.send(request)
        await wire.expect_error(ErrorCode.BAD_VALUE)
