"""What a gateway says of a token, and how long a session lasts, to a client (spec 6.2, 6.7)."""

from dataclasses import replace
from typing import Any

from paygate.codec.codes import TokenStatus
from paygate.codec.messages import BankKeysQuery, EncryptedCredentials, StatusQuery, TokenQuery
from paygate.conform.cases import Skipped, require
from paygate.conform.client_options import Said
from paygate.conform.client_plan import no_answer
from paygate.conform.client_side import SHORT_SESSION_MS, Desk, Visit, case

_EARLY_MS, _LATE_MS = 500, 5_000
"""How far from its time a client's alarm may ring: it counts from when it got the TokenAck, and has to end itself."""


@case(
    "token.query",
    "The TokenQuery holds transaction ID and passcode as they were given; the keys asked for are the pinned bank's.",
    *("6.2", "6.1", "PG-TRM-2"),
)
async def query(desk: Desk) -> None:
    visit = desk.visit()
    # The longest and oddest that 3.4 allows.
    visit.transaction_id = f"0.-_{desk.t.random_bytes(14).hex()}"
    visit.passcode = f"!~\"#$%&'*:/={desk.t.random_bytes(10).hex()}"
    visit.begin()
    wire = await visit.link()
    while visit.sent is None:
        asked = await wire.receive(visit.patience_ms)
        visit.check(asked)
        if isinstance(asked.message, BankKeysQuery):
            require(asked.message.bank_id == desk.t.world.bank_id, "a BankKeysQuery for the pinned bank", asked)
        wire.send_bytes(visit.answer_to(asked))
    await visit.end(Said.PAID)


def _status(status: TokenStatus, said: Said) -> None:
    @case(
        f"token.{status.name.lower()}",
        f"A token that is {status.name} is not paid: no credentials leave, and the client says {said.option}.",
        *("6.2", "PG-TOK-4"),
    )
    async def story(desk: Desk) -> None:
        visit = desk.visit()
        visit.may_pay = False
        changes: dict[str, Any] = {"status": status, "session_id": bytes(16), "session_left_ms": 0}
        if not status.is_told:
            changes |= {"merchant_id": "", "merchant_name": "", "amount_minor": 0, "currency": ""}
        if status is TokenStatus.PAID:
            changes["utr"] = visit.utr
        visit.token = replace(visit.token, **changes)
        await visit.run(said)


for _token_status in TokenStatus:
    if _token_status is not TokenStatus.VALID:
        _status(_token_status, Said.ALREADY_PAID if _token_status is TokenStatus.PAID else Said.TOKEN_REFUSED)


@case(
    "session.over_before_sending",
    "A session that ends before the credentials leave is ended by the client's alarm; it sends nothing and says so.",
    *("6.7", "PG-SES-1", "PG-CLI-1"),
)
async def over_before_sending(desk: Desk) -> None:
    visit = desk.visit(session_left_ms=SHORT_SESSION_MS)
    visit.may_pay = False
    visit.on[BankKeysQuery] = no_answer
    visit.begin()
    wire = await visit.link()
    asked = await wire.receive(visit.patience_ms)
    if isinstance(asked.message, BankKeysQuery):
        if not await wire.comes_within(500):
            raise Skipped("this client asks for the keys first, and without them opens no session that could end")
        asked = await wire.receive()
    visit.check(asked)
    require(isinstance(asked.message, TokenQuery), "a TokenQuery", asked)
    wire.send_bytes(visit.answer_to(asked))
    await _ends_in_time(visit, desk.t.now_ms, Said.TIMED_OUT)


@case(
    "session.over_after_sending",
    "A session that ends after the credentials are sent, without an answer, is ended by the client's own alarm; the "
    "outcome is unknown.",
    *("6.7", "PG-SES-1", "PG-CLI-4"),
)
async def over_after_sending(desk: Desk) -> None:
    await _silent_after_sending(desk, SHORT_SESSION_MS)


@case(
    "session.thirty_seconds",
    "A session of 30 s is ended by the client's own alarm after 30 s.",
    *("6.7", "PG-SES-1"),
    waits_ms=30_000,
)
async def thirty_seconds(desk: Desk) -> None:
    await _silent_after_sending(desk, 30_000)


async def _silent_after_sending(desk: Desk, session_left_ms: int) -> None:
    visit = desk.visit(session_left_ms=session_left_ms)
    visit.on[EncryptedCredentials] = visit.on[StatusQuery] = no_answer
    visit.begin()
    wire = await visit.link()
    wire.send_bytes(visit.answer_to(await visit.until(wire, TokenQuery)))
    began_ms = desk.t.now_ms
    await visit.until(wire, EncryptedCredentials)
    await _ends_in_time(visit, began_ms, Said.UNKNOWN)


async def _ends_in_time(visit: Visit, began_ms: int, said: Said) -> None:
    await visit.end(said)
    lasted_ms = visit.t.now_ms - began_ms
    left_ms = visit.token.session_left_ms
    is_so = left_ms - _EARLY_MS <= lasted_ms <= left_ms + _LATE_MS
    require(is_so, f"the client to end {left_ms} ms after the TokenAck", f"{lasted_ms} ms")
