"""Transfers that must be declined, each reason that the outside can provoke, and their order (spec 7.1, 6.4)."""

from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import Reason
from paygate.codec.fields import fields_of
from paygate.codec.record_codec import encode_record
from paygate.codec.sealed import Terms
from paygate.conform.bank_side import BANK, Payment, Till, open_till, other_term, require_declined
from paygate.conform.bank_transfer_cases import AUTHORISED_MS_MAX, CLOCKS_MS
from paygate.conform.cases import Skipped, require
from paygate.conform.foreign_seal import foreign_envelopes
from paygate.conform.trial import Trial
from paygate.conform.world import Use, WorldCustomer

LOCK_MS: Final = 30_000
"""How long an account waits after three wrong passwords (PG-TRF-7)."""
_RICHER_MINOR: Final = limits.AMOUNT_MINOR_MAX
"""More than anybody in the world has."""


def guessed(t: Trial, number: int) -> WorldCustomer:
    """A customer whose password is guessed wrongly, one for each case."""
    customers = [*t.world.customers_for(Use.GUESSED)]
    return customers[number % len(customers)]


# -- each reason -----------------------------------------------------------------------------------------


@BANK.case(
    "decline.late",
    "An authorisation more than five minutes old, or as far ahead, is declined as LATE.",
    *("7.1", "PG-TRF-4"),
)
async def late(t: Trial) -> None:
    till = await open_till(t)
    for shift_ms in (-AUTHORISED_MS_MAX - CLOCKS_MS, AUTHORISED_MS_MAX + CLOCKS_MS, -t.wall_ms()):
        await till.decline(till.payment(authorised_at_ms=t.wall_ms() + shift_ms), Reason.LATE)


@BANK.case("decline.no_time_left", "A request with 0 ms left is declined as LATE.", *("7.1", "PG-TRF-4"))
async def no_time_left(t: Trial) -> None:
    till = await open_till(t)
    await till.decline(till.payment(time_left_ms=0), Reason.LATE)


@BANK.case(
    "decline.key_retired",
    "An envelope for a key that the bank does not hold is declined as KEY_RETIRED.",
    *("7.1", "8.4", "PG-TRF-3", "PG-KEY-7"),
)
async def key_retired(t: Trial) -> None:
    till = await open_till(t)
    await till.decline(replace(till.payment(), key_id=t.random_bytes(8)), Reason.KEY_RETIRED)


def _declare_altered(name: str) -> None:
    @BANK.case(
        f"decline.terms.{name}",
        f"An envelope that was sealed under another {name} than the request names is declined as TERMS.",
        *("7.1", "8.1", "8.2", "PG-TRF-3", "PG-ENV-6", "PG-TRM-1"),
    )
    async def altered_term(t: Trial) -> None:
        till = await open_till(t)
        sent = till.payment().terms
        sealed_for = {name: other_term(getattr(sent, name))}
        payment = till.payment(sealed_for=sealed_for, **{f.name: getattr(sent, f.name) for f in fields_of(Terms)})
        await till.decline(payment, Reason.TERMS)


for _field in fields_of(Terms):
    _declare_altered(_field.name)


@BANK.case(
    "decline.envelope_damaged",
    "An envelope with any part changed, cut or lengthened is declined as TERMS.",
    *("8.2", "PG-TRF-3", "PG-ENV-5"),
)
async def envelope_damaged(t: Trial) -> None:
    till = await open_till(t)
    envelope = till.payment().envelope
    flipped = [envelope[:i] + bytes([envelope[i] ^ 1]) + envelope[i + 1 :] for i in (0, 31, 32, 100, 300, 303)]
    for damaged in (*flipped, envelope[:-1], envelope + b"\0", envelope[:32], b"\0"):
        await till.decline(replace(till.payment(), envelope=damaged), Reason.TERMS)


@BANK.case(
    "decline.envelope_of_another_key",
    "An envelope that names another of the bank's keys than it was sealed for is declined as TERMS.",
    *("8.2", "PG-ENV-6"),
)
async def another_key(t: Trial) -> None:
    till = await open_till(t)
    keys = till.key_list.suite_keys
    if len(keys) < 2:
        raise Skipped("the bank's key list has one key only")
    payment = till.payment()
    other = next(key for key in keys if key.key_id != payment.key_id)
    await till.decline(replace(payment, key_id=other.key_id), Reason.TERMS)


@BANK.case(
    "decline.plaintext",
    "An envelope that opens to a plaintext with any rule of 8.2 broken is declined as TERMS.",
    *("8.2", "PG-ENV-4", "PG-ENV-5"),
)
async def plaintext(t: Trial) -> None:
    till = await open_till(t)
    for what, seal in foreign_envelopes(t.random_bytes(16)):
        payment = till.payment()
        suite_key = next(key for key in till.key_list.suite_keys if key.key_id == payment.key_id)
        answer = await till.transfer(replace(payment, envelope=seal(suite_key, payment.terms)))
        is_so = answer.reason is Reason.TERMS
        require(is_so, f"DECLINED with TERMS for a plaintext with {what}", answer)


@BANK.case(
    "decline.token_already_paid",
    "Another payment of a token that was paid is declined as TOKEN_ALREADY_PAID.",
    *("7.1", "PG-TRF-3"),
)
async def token_already_paid(t: Trial) -> None:
    till = await open_till(t)
    first, _ = await till.pay()
    again = till.payment(transaction_id=first.terms.transaction_id)
    await till.decline(again, Reason.TOKEN_ALREADY_PAID)


@BANK.case(
    "decline.token_after_decline",
    "A declined payment does not pay its token: another payment ID is POSTED.",
    *("7.1", "PG-TRF-8"),
)
async def token_after_decline(t: Trial) -> None:
    till = await open_till(t)
    declined = till.payment(amount_minor=_RICHER_MINOR)
    await till.decline(declined, Reason.FUNDS)
    await till.pay(transaction_id=declined.terms.transaction_id)


@BANK.case(
    "decline.merchant_unknown",
    "A payment to a merchant without an account is declined as MERCHANT_UNKNOWN.",
    *("7.1", "PG-TRF-3"),
)
async def merchant_unknown(t: Trial) -> None:
    till = await open_till(t)
    for merchant_id in ("M-NOBODY", t.world.merchant_ids[0].lower()):
        await till.decline(till.payment(merchant_id=merchant_id), Reason.MERCHANT_UNKNOWN)


@BANK.case(
    "decline.currency",
    "A payment in another currency than the bank's is declined as CURRENCY.",
    *("7.1", "PG-TRF-3"),
)
async def currency(t: Trial) -> None:
    till = await open_till(t)
    await till.decline(till.payment(currency=other_currency(t)), Reason.CURRENCY)


@BANK.case(
    "decline.credentials_alike",
    "An unknown user and a wrong password get CREDENTIALS, in answers that differ in nothing else.",
    *("6.4", "7.1", "PG-PAY-12", "PG-TRF-3"),
)
async def credentials_alike(t: Trial) -> None:
    till = await open_till(t)
    known = guessed(t, 0)
    guesses = [till.guess(known), till.payment(user_id="nobody")]
    answers = [await till.decline(payment, Reason.CREDENTIALS) for payment in guesses]
    statements = [till.statement(p, a) for p, a in zip(guesses, answers, strict=True)]
    told = {(s.outcome, s.reason, s.utr) for s in statements}
    sizes = {len(encode_record(s)) for s in statements}
    require(
        len(told) == len(sizes) == 1, "statements that differ in the terms, the time and the envelope only", statements
    )
    await till.pay(customer=known)  # and the wrong guess counts no more


@BANK.case(
    "decline.user_id_exact",
    "User IDs and passwords are compared exactly: another case, a blank more or less, get CREDENTIALS.",
    *("8.3", "PG-PWD-1", "PG-TRF-3"),
)
async def user_id_exact(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 1)
    for user_id in (who.user_id.swapcase(), f"{who.user_id} "):
        await till.decline(till.payment(who, user_id=user_id), Reason.CREDENTIALS)
    await till.decline(till.payment(who, password=f"{who.password} "), Reason.CREDENTIALS)
    await till.pay(customer=who)


@BANK.case(
    "decline.locked",
    "After three wrong passwords the right one gets CREDENTIALS too; other customers go on paying.",
    *("6.4", "7.1", "PG-TRF-7", "PG-PAY-12"),
)
async def locked(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 2)
    for _ in range(3):
        await till.decline(till.guess(who), Reason.CREDENTIALS)
    await till.decline(till.payment(who), Reason.CREDENTIALS)
    await till.pay()


@BANK.case(
    "decline.lock_ends",
    "30 s after three wrong passwords the right one is taken again; guesses meanwhile do not count.",
    *("7.1", "PG-TRF-7"),
    waits_ms=LOCK_MS + 1_000,
)
async def lock_ends(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 3)
    first = await till.transfer(till.payment(who))
    if first.reason is Reason.CREDENTIALS:
        raise Skipped("an earlier run has left the account locked; try again later")
    for _ in range(3):
        await till.decline(till.guess(who), Reason.CREDENTIALS)
    began_ms = t.now_ms
    await till.decline(till.guess(who), Reason.CREDENTIALS)
    await t.sleep(LOCK_MS - 2_000 - (t.now_ms - began_ms))
    await till.decline(till.payment(who), Reason.CREDENTIALS)
    await t.sleep(LOCK_MS + 1_000 - (t.now_ms - began_ms))
    await till.pay(customer=who)


@BANK.case(
    "decline.failures_forgotten",
    "A right password makes earlier wrong ones forgotten: two wrong, one right, two wrong lock nobody out.",
    *("7.1", "PG-TRF-7"),
)
async def failures_forgotten(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 4)
    for _ in range(2):
        for _ in range(2):
            await till.decline(till.guess(who), Reason.CREDENTIALS)
        await till.pay(customer=who)


@BANK.case(
    "decline.funds", "An amount above the balance, up to the largest, is declined as FUNDS.", *("7.1", "PG-TRF-3")
)
async def funds(t: Trial) -> None:
    till = await open_till(t)
    await till.decline(till.payment(amount_minor=_RICHER_MINOR), Reason.FUNDS)


# -- their order -----------------------------------------------------------------------------------------


def other_currency(t: Trial) -> str:
    """A currency that is not the bank's."""
    return "EUR" if t.world.currency != "EUR" else "USD"


async def _late_and_retired(till: Till) -> Payment:
    return replace(till.payment(authorised_at_ms=0), key_id=bytes(8))


async def _retired_and_terms(till: Till) -> Payment:
    return replace(till.payment(), key_id=bytes(8), envelope=bytes(304))


async def _terms_and_paid(till: Till) -> Payment:
    paid, _ = await till.pay()
    return till.payment(transaction_id=paid.terms.transaction_id, sealed_for={"amount_minor": 2})


async def _paid_and_merchant(till: Till) -> Payment:
    paid, _ = await till.pay()
    return till.payment(transaction_id=paid.terms.transaction_id, merchant_id="M-NOBODY")


async def _merchant_and_currency(till: Till) -> Payment:
    return till.payment(merchant_id="M-NOBODY", currency=other_currency(till.trial))


async def _currency_and_credentials(till: Till) -> Payment:
    return till.payment(currency=other_currency(till.trial), user_id="nobody")


async def _credentials_and_funds(till: Till) -> Payment:
    return till.payment(user_id="nobody", amount_minor=_RICHER_MINOR)


_BOTH: Final = {
    (Reason.LATE, Reason.KEY_RETIRED): _late_and_retired,
    (Reason.KEY_RETIRED, Reason.TERMS): _retired_and_terms,
    (Reason.TERMS, Reason.TOKEN_ALREADY_PAID): _terms_and_paid,
    (Reason.TOKEN_ALREADY_PAID, Reason.MERCHANT_UNKNOWN): _paid_and_merchant,
    (Reason.MERCHANT_UNKNOWN, Reason.CURRENCY): _merchant_and_currency,
    (Reason.CURRENCY, Reason.CREDENTIALS): _currency_and_credentials,
    (Reason.CREDENTIALS, Reason.FUNDS): _credentials_and_funds,
}
"""A payment against which two reasons speak, each with the next."""


def _declare_order(first: Reason, second: Reason) -> None:
    @BANK.case(
        f"decline.order.{first.name.lower()}",
        f"A payment against which both {first.name} and {second.name} speak is declined as {first.name}.",
        *("7.1", "PG-TRF-3"),
    )
    async def order(t: Trial) -> None:
        till = await open_till(t)
        payment = await _BOTH[first, second](till)
        answer = await till.transfer(payment)
        require_declined(answer, first)


for _first, _second in _BOTH:
    _declare_order(_first, _second)


@BANK.case(
    "decline.wrong_password_not_looked_at",
    "A password is looked at, and counted, only when no earlier reason declines.",
    *("7.1", "PG-TRF-3", "PG-TRF-7"),
)
async def not_looked_at(t: Trial) -> None:
    till = await open_till(t)
    who = guessed(t, 5)
    for _ in range(4):
        guess = till.guess(who, currency=other_currency(t))
        await till.decline(guess, Reason.CURRENCY)
    await till.pay(customer=who)
