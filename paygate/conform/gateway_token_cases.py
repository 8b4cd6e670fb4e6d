"""The bank's key list as relayed, and tokens: what is said of them, sessions, passcodes (spec 6.1, 6.2)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.messages import BankKeys, BankKeysQuery, StatusAck, TokenAck, TokenQuery, TransferRequest
from paygate.conform.cases import Skipped, require
from paygate.conform.gateway_side import (
    GATEWAY,
    PASSCODE_TRY_COUNT,
    new_token,
    open_link,
    played_bank,
    query,
    require_status,
    shared_of,
    unknown_query,
    unknown_status,
    wrong_passcode,
)
from paygate.conform.shopper import begin, expect_answer, key_list_of, open_shopper, require_answer
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire

KEEPS_LIST_MS: Final = 60_000
"""How long a gateway may keep the bank's list (PG-KEY-1)."""
SESSION_COUNT: Final = 8
_CHANGING_SIZE: Final = 12
"""Correlation ID and checksum: what may differ between two answers that must be the same."""


# -- keys ------------------------------------------------------------------------------------------------


@GATEWAY.case(
    "keys.relayed",
    "The bank's own list is relayed on every client link, byte for byte as the bank signed it.",
    *("6.1", "8.4", "PG-KEY-1", "PG-KEY-3"),
)
async def keys_relayed(t: Trial) -> None:
    first, second = await open_link(t), await open_link(t)
    lists = [(await key_list_of(t, wire))[0] for wire in (first, second, first)]
    bank = shared_of(t).bank
    known = lists[:1] if bank is None else bank.signed_key_lists
    for got in lists:
        require(got in known, "the list that the bank signed, byte for byte", got.hex())


@GATEWAY.case("keys.unknown_bank", "Asked for another bank, the gateway says UNKNOWN_BANK.", *("6.1", "PG-KEY-2"))
async def keys_unknown(t: Trial) -> None:
    wire = await open_link(t)
    own = t.world.bank_id
    for bank_id in ("OTHER", own.swapcase(), own[:-1] or "X", t.world.gateway.gateway_id):
        keys = await wire.ask(BankKeysQuery(bank_id), BankKeys)
        require(keys.status is KeysStatus.UNKNOWN_BANK, f"UNKNOWN_BANK for {bank_id}", keys)


@GATEWAY.case(
    "keys.refreshed",
    "A new list of the bank is relayed after 60 seconds at the latest.",
    *("6.1", "5.5", "PG-KEY-1"),
    waits_ms=KEEPS_LIST_MS + 1_000,
)
async def keys_refreshed(t: Trial) -> None:
    bank = played_bank(t)
    wire = await open_link(t)
    changed = replace(bank.key_list, serial=bank.key_list.serial + 1)
    known_count = len(bank.signed_key_lists)
    bank.signed_key_lists.append(bank.keys.sign(changed))
    deadline_ms = t.now_ms + KEEPS_LIST_MS + t.settings.patience_ms
    while (await key_list_of(t, wire))[0] in bank.signed_key_lists[:known_count]:
        require(t.now_ms < deadline_ms, f"the bank's new list within {KEEPS_LIST_MS} ms", "the old one")
        await t.sleep(1_000)


# -- what is said of a token -----------------------------------------------------------------------------


@GATEWAY.case(
    "token.valid",
    "An unpaid token and its passcode get VALID, with the merchant, amount, currency, gateway and bank, and a session.",
    *("6.2", "6.6", "PG-SES-1", "PG-ENC-12"),
)
async def token_valid(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    ack = await require_status(wire, token, TokenStatus.VALID)
    expected = (token.merchant_id, token.amount_minor, t.world.currency, t.world.gateway.gateway_id, t.world.bank_id)
    got = (ack.merchant_id, ack.amount_minor, ack.currency, ack.gateway_id, ack.bank_id)
    require(got == expected, f"merchant, amount, currency, gateway and bank {expected}", ack)
    require(0 < ack.session_left_ms <= limits.SESSION_MS, "a session of 30 seconds at most", ack)


@GATEWAY.case(
    "token.invalid",
    "An unknown transaction ID and a wrong passcode get INVALID, the same in every byte but correlation and checksum.",
    *("6.2", "6.6", "10", "PG-TOK-1", "PG-ENC-8"),
)
async def token_invalid(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    queries = [
        unknown_query(t),
        TokenQuery(token.transaction_id, wrong_passcode(token)),
        TokenQuery(token.transaction_id, f"{token.passcode}0"),
        TokenQuery(token.transaction_id, token.passcode[:-1]),
        TokenQuery(f"{token.transaction_id}-", token.passcode),
        TokenQuery(token.transaction_id.lower(), token.passcode),
    ]
    await _require_alike(wire, queries, TokenStatus.INVALID)
    await require_status(wire, token, TokenStatus.VALID)


async def _require_alike(wire: Wire, queries: Sequence[TokenQuery], status: TokenStatus) -> None:
    seen: set[bytes] = set()
    for message in queries:
        wire.send(message)
        reply = await wire.receive()
        is_right = isinstance(reply.message, TokenAck) and reply.message.status is status
        require(is_right, f"a TokenAck {status.name}", reply)
        seen.add(reply.raw[: limits.HEADER_SIZE - _CHANGING_SIZE] + reply.raw[limits.HEADER_SIZE :])
    require(len(seen) == 1, "the same bytes but for correlation and checksum", [data.hex() for data in seen])


@GATEWAY.case(
    "token.expired",
    "A token whose time is over gets EXPIRED, without a session; a wrong passcode for it still INVALID.",
    *("6.2", "6.6"),
)
async def token_expired(t: Trial) -> None:
    tokens = shared_of(t).expired_tokens
    if not tokens:
        raise Skipped("this world has no expired_tokens")
    wire, token = await open_link(t), tokens.popleft()
    ack = await query(wire, token, wrong_passcode(token))
    require(ack.status is TokenStatus.INVALID, "INVALID for a wrong passcode", ack)
    ack = await require_status(wire, token, TokenStatus.EXPIRED)
    expected = (token.merchant_id, token.amount_minor)
    require((ack.merchant_id, ack.amount_minor) == expected, f"merchant and amount {expected}", ack)


@GATEWAY.case(
    "token.paid",
    "A token that was paid gets PAID with its UTR, again and again, on every link.",
    *("6.2", "6.6", "PG-TOK-7"),
)
async def token_paid(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, answer = await shopper.pay()
    for wire in (shopper.wire, await open_link(t), shopper.wire):
        ack = await require_status(wire, payment.token, TokenStatus.PAID)
        require(ack.utr == answer.utr, f"the payment's UTR {answer.utr}", ack)
        require(ack.amount_minor == payment.token.amount_minor, "the token's amount", ack)
        wrong = await query(wire, payment.token, wrong_passcode(payment.token))
        require(wrong.status is TokenStatus.INVALID, "INVALID for a wrong passcode, of a paid token too", wrong)


@GATEWAY.case(
    "token.in_flight",
    "While a payment is under way its token is IN_FLIGHT, as soon as the bank has the request.",
    *("6.2", "6.6", "PG-PAY-3"),
)
async def token_in_flight(t: Trial) -> None:
    wire = await open_link(t)
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    ack = await require_status(wire, watched.payment.token, TokenStatus.IN_FLIGHT)
    require(ack.amount_minor == watched.payment.token.amount_minor, "the token's amount", ack)
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)
    await require_status(wire, watched.payment.token, TokenStatus.PAID)


# -- sessions --------------------------------------------------------------------------------------------


@GATEWAY.case(
    "session.several",
    "Every VALID opens a session of its own, and any of several that are open may be paid in.",
    *("6.2", "6.6", "PG-TOK-3"),
)
async def session_several(t: Trial) -> None:
    for place in (0, 1, 2):
        shopper = await open_shopper(t)
        token = new_token(t)
        acks = [await require_status(shopper.wire, token, TokenStatus.VALID) for _ in range(3)]
        answer = await shopper.send(shopper.payment(token, acks[place]))
        require_answer(answer, PaymentStatus.PAID)


@GATEWAY.case(
    "session.unpredictable",
    f"The session IDs of {SESSION_COUNT} queries have nothing in common.",
    *("6.2", "PG-TOK-3"),
)
async def session_unpredictable(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    ids = [(await require_status(wire, token, TokenStatus.VALID)).session_id for _ in range(SESSION_COUNT)]
    # By chance, two of 8 random IDs share 4 bytes at the same place once in a hundred million runs.
    for start in range(0, limits.SESSION_ID_SIZE, 4):
        parts = {session_id[start : start + 4] for session_id in ids}
        require(
            len(parts) == SESSION_COUNT,
            f"other bytes {start} to {start + 3} in each session ID",
            [i.hex() for i in ids],
        )


# -- wrong passcodes -------------------------------------------------------------------------------------


@GATEWAY.case(
    "passcode.locked",
    "After five wrong passcodes a token is LOCKED, for the right passcode too, on every link.",
    *("6.2", "10", "PG-TOK-2"),
)
async def passcode_locked(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    for _ in range(PASSCODE_TRY_COUNT):
        ack = await query(wire, token, wrong_passcode(token))
        require(ack.status is TokenStatus.INVALID, "INVALID for each of the five", ack)
    for asking in (wire, await open_link(t)):
        await require_status(asking, token, TokenStatus.LOCKED)
        ack = await query(asking, token, wrong_passcode(token))
        require(ack.status is TokenStatus.LOCKED, "LOCKED", ack)


@GATEWAY.case(
    "passcode.locked_unknown",
    "An unknown transaction ID is counted and locked like a known one, with the same bytes.",
    *("6.2", "10", "PG-TOK-1", "PG-TOK-2"),
)
async def passcode_locked_unknown(t: Trial) -> None:
    wire, token, unknown = await open_link(t), new_token(t), unknown_query(t)
    wrong = TokenQuery(token.transaction_id, wrong_passcode(token))
    for _ in range(PASSCODE_TRY_COUNT):
        await _require_alike(wire, (unknown, wrong), TokenStatus.INVALID)
    await _require_alike(wire, (unknown, wrong), TokenStatus.LOCKED)


@GATEWAY.case(
    "passcode.in_a_row",
    "Only wrong passcodes in a row count: four, the right one, and four more lock nothing.",
    *("6.2", "PG-TOK-2"),
)
async def passcode_in_a_row(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    for _ in range(2):
        for _ in range(PASSCODE_TRY_COUNT - 1):
            ack = await query(wire, token, wrong_passcode(token))
            require(ack.status is TokenStatus.INVALID, "INVALID", ack)
        await require_status(wire, token, TokenStatus.VALID)


@GATEWAY.case(
    "passcode.in_a_row_paid",
    "For a token that is PAID the right passcode makes the wrong ones before it forgotten too.",
    *("6.2", "PG-TOK-2"),
)
async def passcode_in_a_row_paid(t: Trial) -> None:
    shopper = await open_shopper(t)
    payment, _ = await shopper.pay()
    for _ in range(2):
        for _ in range(PASSCODE_TRY_COUNT - 1):
            ack = await query(shopper.wire, payment.token, wrong_passcode(payment.token))
            require(ack.status is TokenStatus.INVALID, "INVALID", ack)
        await require_status(shopper.wire, payment.token, TokenStatus.PAID)


@GATEWAY.case(
    "passcode.status_counts",
    "Wrong passcodes of TokenQuery and StatusQuery count alike, for unknown transaction IDs too.",
    *("6.2", "6.5", "PG-TOK-2", "PG-STA-2"),
)
async def passcode_status_counts(t: Trial) -> None:
    wire, token = await open_link(t), new_token(t)
    unknown = unknown_status(t)
    known = replace(unknown, transaction_id=token.transaction_id, passcode=wrong_passcode(token))
    for asked in (known, unknown):
        for number in range(PASSCODE_TRY_COUNT):
            if number % 2:
                ack = await wire.ask(TokenQuery(asked.transaction_id, asked.passcode), TokenAck)
                require(ack.status is TokenStatus.INVALID, "INVALID", ack)
            else:
                require_answer(await wire.ask(asked, StatusAck), PaymentStatus.REFUSED, Reason.PASSCODE)
        require_answer(await wire.ask(asked, StatusAck), PaymentStatus.REFUSED, Reason.TOKEN_LOCKED)
    right = replace(known, passcode=token.passcode)
    require_answer(await wire.ask(right, StatusAck), PaymentStatus.REFUSED, Reason.TOKEN_LOCKED)
    await require_status(wire, token, TokenStatus.LOCKED)
