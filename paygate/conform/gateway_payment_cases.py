"""Payments from the credentials to the receipt, their repeats and mismatches, and asking for them (spec 6.3 to 6.6).

These need no bank that is led by hand: they hold with the kit's own bank and with any other.
"""

from dataclasses import replace
from typing import Any

from paygate.codec import limits
from paygate.codec.codes import KemId, PaymentStatus, Reason, TokenStatus
from paygate.codec.messages import PaymentAck, StatusAck
from paygate.conform.cases import require
from paygate.conform.craft import flipped
from paygate.conform.gateway_side import GATEWAY, open_link, require_status, unknown_credentials, wrong_passcode
from paygate.conform.shopper import open_shopper, require_answer, require_same
from paygate.conform.trial import Trial

# -- paid and declined -----------------------------------------------------------------------------------


@GATEWAY.case(
    "pay.x25519",
    "A payment with the right password, sealed with X25519, is PAID with a UTR and the bank's receipt of its terms.",
    *("6.3", "6.4", "8.1", "PG-PAY-2", "PG-TRM-1", "PG-RCP-4", "PG-RCP-5"),
)
async def pay_x25519(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, answer = await shopper.pay()
    ack = await require_status(shopper.wire, payment.token, TokenStatus.PAID)
    require(ack.utr == answer.utr, f"the UTR of the receipt, {answer.utr}", ack)


@GATEWAY.case(
    "pay.hybrid",
    "A payment sealed with MLKEM768-X25519, whose envelope is larger, is PAID just so.",
    *("6.3", "8.2", "PG-FRM-4"),
)
async def pay_hybrid(t: Trial) -> None:
    await (await open_shopper(t)).pay(kem_id=KemId.MLKEM768_X25519)


@GATEWAY.case(
    "pay.wrong_password",
    "A wrong password is DECLINED with CREDENTIALS and a receipt; the token is VALID again, and then paid.",
    *("6.4", "6.6", "PG-TOK-6", "PG-TRF-8"),
)
async def pay_wrong_password(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment = await shopper.new_payment(password="not the password")  # noqa: S106  # nobody's
    require_answer(await shopper.send(payment), PaymentStatus.DECLINED, Reason.CREDENTIALS)
    await shopper.pay(payment.token)


@GATEWAY.case(
    "pay.own_record",
    "The terms are the gateway's own: what was sealed for another amount or merchant does not open at the bank.",
    *("6.3", "8.1", "10", "PG-PAY-2"),
)
async def pay_own_record(t: Trial) -> None:
    shopper = await open_shopper(t)
    token = None
    lies: list[dict[str, Any]] = [{"amount_minor": 1}, {"merchant_id": "M-OTHER"}, {"session_id": t.random_bytes(16)}]
    for lie in lies:
        token, ack = await shopper.session(token)
        payment = shopper.payment(token, ack, **lie)
        # The envelope is sealed under the lie, and the session is the right one: so the bank gets other terms.
        honest = replace(payment, terms=shopper.payment(token, ack, payment_id=payment.payment_id).terms)
        honest = replace(honest, terms=replace(honest.terms, authorised_at_ms=payment.terms.authorised_at_ms))
        require_answer(await shopper.send(honest), PaymentStatus.DECLINED, Reason.TERMS)


# -- repeats and mismatches ------------------------------------------------------------------------------


@GATEWAY.case(
    "repeat.paid",
    "The same credentials again get the first answer byte for byte, on the same link and on another.",
    *("6.3", "6.6", "7.5", "PG-PAY-5", "PG-PAY-8"),
)
async def repeat_paid(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, first = await shopper.pay()
    other = await open_link(t)
    require_same([first, *[await shopper.send(payment, wire) for wire in (shopper.wire, other)]])


@GATEWAY.case(
    "repeat.declined",
    "A declined payment ID stays declined with the same bytes, also when its token was paid by another.",
    *("6.3", "6.6", "7.5", "PG-PAY-5", "PG-PAY-8", "PG-TRF-8"),
)
async def repeat_declined(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment = await shopper.new_payment(password="not the password")  # noqa: S106  # nobody's
    answers = [await shopper.send(payment) for _ in range(2)]
    require_answer(answers[0], PaymentStatus.DECLINED, Reason.CREDENTIALS)
    await shopper.pay(payment.token)
    require_same([*answers, await shopper.send(payment), await shopper.status(payment)])


@GATEWAY.case(
    "mismatch.envelope",
    "A payment ID again with another envelope is REFUSED with PAYMENT_MISMATCH, which reveals and changes nothing.",
    *("6.3", "6.6", "PG-PAY-6"),
)
async def mismatch_envelope(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, first = await shopper.pay()
    other = replace(payment, envelope=flipped(payment.envelope, 40))
    require_answer(await shopper.send(other), PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    require_same([first, await shopper.send(payment), await shopper.status(payment)])


@GATEWAY.case(
    "mismatch.authorised_at",
    "A payment ID again with another time of authorisation is REFUSED with PAYMENT_MISMATCH.",
    *("6.3", "6.6", "PG-PAY-6"),
)
async def mismatch_authorised_at(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, first = await shopper.pay()
    other = replace(payment, terms=replace(payment.terms, authorised_at_ms=payment.terms.authorised_at_ms + 1))
    require_answer(await shopper.send(other), PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    require_same([first, await shopper.send(payment)])


@GATEWAY.case(
    "mismatch.session",
    "A payment ID again in another session, of the same token or of another, is REFUSED with PAYMENT_MISMATCH.",
    *("6.3", "6.6", "PG-PAY-6"),
)
async def mismatch_session(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, first_ack = await shopper.session()
    _, second_ack = await shopper.session(token)
    other_token, other_ack = await shopper.session()
    payment = shopper.payment(token, first_ack)
    first = await shopper.send(payment)
    require_answer(first, PaymentStatus.PAID)
    for ack in (second_ack, other_ack):
        other = replace(payment, terms=replace(payment.terms, session_id=ack.session_id))
        require_answer(await shopper.send(other), PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
    require_same([first, await shopper.send(payment)])
    await require_status(shopper.wire, other_token, TokenStatus.VALID)


@GATEWAY.case(
    "mismatch.unknown_session",
    "A known payment ID in a session that nobody opened is REFUSED, and nothing of the payment is revealed.",
    *("6.3", "PG-PAY-6", "PG-PAY-7"),
)
async def mismatch_unknown_session(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, _ = await shopper.pay()
    answer = await shopper.wire.ask(payment.credentials(session_id=t.random_bytes(16)), PaymentAck)
    is_right = answer.status is PaymentStatus.REFUSED and answer.reason in (Reason.PAYMENT_MISMATCH, Reason.SESSION)
    require(is_right and not answer.utr, "REFUSED with PAYMENT_MISMATCH or SESSION, and no UTR", answer)


# -- refused ---------------------------------------------------------------------------------------------


@GATEWAY.case(
    "refused.unknown_session",
    "Credentials in a session that nobody opened are REFUSED with SESSION.",
    *("6.3", "6.6", "PG-PAY-7"),
)
async def refused_unknown_session(t: Trial) -> None:
    wire = await open_link(t)
    message = unknown_credentials(t)
    answer = await wire.ask(message, PaymentAck)
    require_answer(answer, PaymentStatus.REFUSED, Reason.SESSION)
    require(answer.payment_id == message.payment_id, "an answer for this payment ID", answer)


@GATEWAY.case(
    "refused.token_paid",
    "Another payment of a token that is PAID is REFUSED with TOKEN_PAID and the UTR that paid it.",
    *("6.4", "6.6", "PG-TOK-7"),
)
async def refused_token_paid(t: Trial) -> None:
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    second = shopper.payment(token, ack)
    _, paid = await shopper.pay(token)
    answer = await shopper.send(second)
    require_answer(answer, PaymentStatus.REFUSED, Reason.TOKEN_PAID)
    require(answer.utr == paid.utr, f"the UTR {paid.utr}", answer)


# -- asking for a payment --------------------------------------------------------------------------------


@GATEWAY.case(
    "status.final",
    "Asked for a payment that has ended, the gateway gives its PaymentAck's fields, byte for byte, again and again.",
    *("6.5", "6.6", "PG-STA-1", "PG-STA-3"),
)
async def status_final(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, paid = await shopper.pay()
    other = await open_link(t)
    require_same([paid, *[await shopper.status(payment, wire) for wire in (shopper.wire, other, other)]])
    declined = await shopper.new_payment(password="not the password")  # noqa: S106  # nobody's
    first = await shopper.send(declined)
    require_answer(first, PaymentStatus.DECLINED, Reason.CREDENTIALS)
    require_same([first, *[await shopper.status(declined, wire) for wire in (other, shopper.wire)]])
    await require_status(shopper.wire, declined.token, TokenStatus.VALID)


@GATEWAY.case(
    "status.unknown",
    "A payment that the gateway never recorded is UNKNOWN, whatever state the token is in.",
    *("6.5", "6.6", "PG-STA-3"),
)
async def status_unknown(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment = await shopper.new_payment()
    never = payment.status_query(payment_id=t.random_bytes(limits.PAYMENT_ID_SIZE))
    for message in (payment.status_query(), never):
        require_answer(await shopper.wire.ask(message, StatusAck), PaymentStatus.UNKNOWN)
    require_answer(await shopper.send(payment), PaymentStatus.PAID)
    require_answer(await shopper.wire.ask(never, StatusAck), PaymentStatus.UNKNOWN)


@GATEWAY.case(
    "status.of_another_token",
    "A payment of another token is UNKNOWN to whoever knows this one's passcode only.",
    *("6.5", "6.6", "PG-STA-3"),
)
async def status_of_another_token(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, _ = await shopper.pay()
    token, _ = await shopper.session()
    message = payment.status_query(transaction_id=token.transaction_id, passcode=token.passcode)
    require_answer(await shopper.wire.ask(message, StatusAck), PaymentStatus.UNKNOWN)


@GATEWAY.case(
    "status.passcode",
    "With a wrong passcode, or for an unknown transaction ID, the question is REFUSED with PASSCODE and says nothing.",
    *("6.5", "6.6", "PG-STA-2"),
)
async def status_passcode(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, paid = await shopper.pay()
    for message in (
        payment.status_query(passcode=wrong_passcode(payment.token)),
        payment.status_query(transaction_id=f"U{t.random_bytes(8).hex()}"),
    ):
        answer = await shopper.wire.ask(message, StatusAck)
        require_answer(answer, PaymentStatus.REFUSED, Reason.PASSCODE)
        require(not answer.utr and not answer.receipt, "nothing of the payment", answer)
    require_same([paid, await shopper.status(payment)])
