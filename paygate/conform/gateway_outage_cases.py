"""A bank that is away, a full link, and a gateway that shuts down (spec 5.2, 6.3, 7.3). They run alone."""

import shlex
from dataclasses import replace
from typing import Final

from paygate.codec.codes import PaymentStatus, Reason, TokenStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, Error, Message, PaymentAck, ResolveRequest, TransferRequest
from paygate.conform.answering_link_cases import WAITING_COUNT, require_echo
from paygate.conform.cases import Failed, Skipped, Unreachable, require
from paygate.conform.craft import draft
from paygate.conform.gateway_side import GATEWAY, open_link, played_bank, require_status, unknown_query, until_status
from paygate.conform.played_bank import RELINK_MS, BankLink
from paygate.conform.shopper import (
    begin,
    expect_answer,
    open_shopper,
    require_answer,
    require_same,
    resolved_on_new_link,
)
from paygate.conform.trial import Trial
from paygate.conform.wire import Reply, Wire

RESTART_MS: Final = 30_000
"""How long a gateway may take to be up again."""
MANY_MS: Final = 15_000
"""How long so many requests may take."""
DRAIN_MS_MAX: Final = 40_000
"""How long a gateway that is shutting down may take: the payments in flight end with their sessions of 30 s."""


@GATEWAY.case(
    "outage.relink",
    "When the bank's link breaks under a payment the gateway links again and sends ResolveRequest there at once; the "
    "result on the new link counts.",
    *("7.3", "7.2", "PG-RES-4", "PG-RES-6", "PG-TRF-9", "PG-TOK-8"),
    exclusive=True,
)
async def outage_relink(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()
    watched = await begin(t)
    await watched.desk.next(TransferRequest)
    link.cut()
    await resolved_on_new_link(bank, link, watched)


@GATEWAY.case(
    "outage.restart",
    "A gateway that is killed under a payment and started again has it IN_FLIGHT still, and resolves it.",
    *("7.3", "6.6", "PG-RES-4", "PG-RES-6", "PG-PAY-3", "PG-TOK-6"),
    exclusive=True,
)
async def outage_restart(t: Trial) -> None:
    command = t.settings.options.get("restart_command")
    if command is None:
        raise Skipped("it needs --restart-command CMD, which kills the gateway and starts it again")
    bank = played_bank(t)
    link = await bank.ready_link()
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    code = await t.run_command(shlex.split(command))
    require(code == 0, f"exit code 0 of the command {command}", code)
    new = await bank.open_link_after(link.number, RESTART_MS)
    again, request = await watched.desk.next(ResolveRequest, RELINK_MS)
    require(again.link is new, "the ResolveRequest on the new link", f"on {again.link.wire.name}")
    is_same = (request.terms, request.envelope_hash) == (asked.terms, asked.envelope_hash)
    require(is_same, f"the terms and envelope hash of the TransferRequest: {asked.terms}", request)
    other = await open_link(t)
    require_answer(await watched.shopper.status(watched.payment, other), PaymentStatus.PENDING)
    await require_status(other, watched.payment.token, TokenStatus.IN_FLIGHT)
    watched.desk.answer(again, TransferOutcome.POSTED)
    await until_status(t, other, watched.payment.token, TokenStatus.PAID)
    require_answer(await watched.shopper.status(watched.payment, other), PaymentStatus.PAID)


@GATEWAY.case(
    "outage.unreachable",
    "Without a bank link a new payment is REFUSED with BANK_UNREACHABLE; of one in flight a repeat is PENDING, of one "
    "that is final it is its answer, and neither is REFUSED.",
    *("6.3", "PG-PAY-7", "PG-PAY-8", "PG-TOK-8"),
    exclusive=True,
)
async def outage_unreachable(t: Trial) -> None:
    bank = played_bank(t)
    shopper = await open_shopper(t)
    final, paid = await shopper.pay()
    unpaid = await shopper.new_payment()
    watched = await begin(t, shopper)
    await watched.desk.next(TransferRequest)
    link = await bank.ready_link()

    async def turn_away(new: BankLink) -> bool:
        new.wire.abort()
        return False

    bank.greeting = turn_away
    try:
        link.cut()
        # A new attempt shows that the gateway has seen the old link's end.
        await bank.link_after(link.number)
        other = await open_link(t)
        require_answer(await shopper.send(unpaid, other), PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE)
        require_answer(await shopper.status(unpaid, other), PaymentStatus.UNKNOWN)
        require_answer(await shopper.send(watched.payment, other), PaymentStatus.PENDING)
        require_same([paid, await shopper.send(final, other)])
        other_envelope = watched.payment.credentials(envelope=t.random_bytes(304))
        answer = await other.ask(other_envelope, PaymentAck)
        require_answer(answer, PaymentStatus.REFUSED, Reason.PAYMENT_MISMATCH)
        unknown = unpaid.credentials(session_id=t.random_bytes(16))
        require_answer(await other.ask(unknown, PaymentAck), PaymentStatus.REFUSED, Reason.SESSION)
    finally:
        bank.greeting = bank.say_hello
    await resolved_on_new_link(bank, bank.links[-1], watched)
    require_answer(await shopper.send(unpaid), PaymentStatus.PAID)


@GATEWAY.case(
    "outage.many_waiting",
    f"{WAITING_COUNT} requests of one client wait at once; of more, each waits too or gets TOO_MANY_REQUESTS.",
    *("5.2", "9", "PG-LNK-6", "PG-LNK-8", "PG-ERR-5", "PG-PAY-5"),
    waits_ms=10_000,
    exclusive=True,
)
async def many_waiting(t: Trial) -> None:
    bank = played_bank(t)
    await bank.ready_link()
    shopper = await open_shopper(t)
    token, ack = await shopper.session()
    desk = bank.watch(t, token)
    payment = shopper.payment(token, ack, envelope=b"x")
    wire = shopper.wire
    first_id = wire.new_correlation_id()
    ids = range(first_id, first_id + WAITING_COUNT + 1)
    good = draft(payment.credentials(), None)
    wire.send_bytes(b"".join(replace(good, correlation_id=number).encode() for number in ids))
    asked, _ = await desk.next(TransferRequest, MANY_MS)
    # One may be refused, and replies overtake each other (PG-LNK-8): its Error may come before the link test's reply
    # behind it, or among the answers.
    waiting, refused_count = set(ids), 0

    def take_refusal(reply: Reply) -> None:
        nonlocal refused_count
        refused_count += 1
        is_right = isinstance(reply.message, Error) and reply.message.code is ErrorCode.TOO_MANY_REQUESTS
        require(is_right and refused_count == 1, f"{WAITING_COUNT} requests that wait", reply)

    def take_id(reply: Reply) -> None:
        require(reply.correlation_id in waiting, "a reply to each of these requests, once", reply)
        waiting.remove(reply.correlation_id)

    echo_id = ids[-1] + 1
    wire.send_bytes(draft(Echo(b"the last"), None, echo_id).encode())
    while (reply := await wire.receive(MANY_MS)).correlation_id != echo_id:
        take_id(reply)
        take_refusal(reply)
    desk.answer(asked, TransferOutcome.POSTED)
    while waiting:
        reply = await wire.receive(MANY_MS)
        take_id(reply)
        if isinstance(reply.message, PaymentAck):
            require_answer(reply.message, PaymentStatus.PAID)
        else:
            take_refusal(reply)
    require(len(desk.asked) == 1, "one request at the bank", len(desk.asked))
    await require_echo(t, wire)


@GATEWAY.case(
    "trouble.none",
    "In all this the gateway sent nothing to its bank but what it may send there, each frame with its MAC.",
    *("9", "5.2", "4.4", "PG-MAC-1", "PG-ENC-6"),
    exclusive=True,
)
async def no_trouble(t: Trial) -> None:
    bank = played_bank(t)
    await bank.ready_link()
    require(not bank.trouble, "frames as spec 4 and 5 say, and requests that a gateway may ask", bank.trouble)


@GATEWAY.case(
    "outage.shutting_down",
    "A gateway that shuts down answers queries with SHUTTING_DOWN and new payments with DRAINING, ends what is in "
    "flight, and then closes its links.",
    *("9", "6.2", "6.3", "PG-TOK-5", "PG-PAY-7", "PG-PAY-8", "PG-LNK-14"),
    exclusive=True,
)
async def shutting_down(t: Trial) -> None:
    command = t.settings.options.get("drain_command")
    if command is None:
        raise Skipped("it needs --drain-command CMD, and ends the gateway")
    shopper = await open_shopper(t)
    unpaid = await shopper.new_payment()
    watched = await begin(t, shopper)
    asked, _ = await watched.desk.next(TransferRequest)
    other = await open_link(t)
    code = await t.run_command(shlex.split(command))
    require(code == 0, f"exit code 0 of the command {command}", code)
    deadline_ms = t.now_ms + t.settings.patience_ms
    while not isinstance((reply := await _reply_to(other, unknown_query(t))).message, Error):
        require(t.now_ms < deadline_ms, "an Error SHUTTING_DOWN", reply)
        await t.sleep(20)
    error = reply.message
    assert isinstance(error, Error)
    is_right = error.code is ErrorCode.SHUTTING_DOWN and not error.closes
    require(is_right, "an Error SHUTTING_DOWN that does not close", reply)
    require_answer(await shopper.send(unpaid, other), PaymentStatus.REFUSED, Reason.DRAINING)
    # A session that nobody opened is found behind it (PG-PAY-7).
    unknown = unpaid.credentials(session_id=t.random_bytes(16))
    require_answer(await other.ask(unknown, PaymentAck), PaymentStatus.REFUSED, Reason.DRAINING)
    repeated_id = other.send(watched.payment.credentials())
    watched.desk.answer(asked, TransferOutcome.POSTED)
    await expect_answer(watched, PaymentStatus.PAID)
    answer = await other.expect(PaymentAck, repeated_id)
    require(answer.status in (PaymentStatus.PAID, PaymentStatus.PENDING), "PAID or PENDING of a repeat", answer)
    for wire in (shopper.wire, other):
        await wire.expect_closed(DRAIN_MS_MAX)
    try:
        await open_link(t, name="after the end")
    except (Unreachable, Failed):
        return
    raise Failed("no link to a gateway that has shut down", "it said hello")


async def _reply_to(wire: Wire, message: Message) -> Reply:
    wire.send(message)
    return await wire.receive()
