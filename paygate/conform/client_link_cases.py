"""What may come on an open link, to a client: requests, replies of others, Errors, silence (spec 5)."""

from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Reason, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeysQuery,
    Echo,
    EchoReply,
    EncryptedCredentials,
    Error,
    Hello,
    HelloAck,
    Message,
    PaymentAck,
    TokenAck,
    TokenQuery,
)
from paygate.conform.cases import Skipped, require
from paygate.conform.client_frame_cases import refused_token_ack
from paygate.conform.client_options import Said
from paygate.conform.client_plan import no_answer, reply_to
from paygate.conform.client_side import UNSENT, Desk, case
from paygate.conform.craft import Draft, draft
from paygate.conform.wire import Reply

_FOREIGN_ID: Final = 0xF0E1D2C3
BOTH_MS: Final = 300
"""How long a client may take to send a second query, if it asks two at once."""


@case(
    "link.echo",
    "An Echo while the client waits is answered by an EchoReply with its data and its correlation ID.",
    *("5.4", "PG-LNK-16", "PG-LNK-8"),
)
async def echo(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    payment = await visit.until(wire, EncryptedCredentials)
    # The payment's own correlation ID: both ends number on their own.
    asked = Echo(desk.t.random_bytes(8))
    wire.send(asked, payment.correlation_id)
    answered = await wire.expect(EchoReply, payment.correlation_id)
    require(answered.echo_data == asked.echo_data, f"the data of {asked}", answered)
    wire.send_bytes(visit.answer_to(payment))
    await visit.end(Said.PAID)


@case(
    "link.overtaking",
    "Replies are matched by correlation ID: a client that asks for keys and token at once takes their answers in "
    "either order.",
    *("5.2", "PG-LNK-8"),
)
async def overtaking(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    asked: list[Reply] = []
    while len(asked) < 2:
        if asked and not await wire.comes_within(BOTH_MS):
            raise Skipped("this client asks one thing after another, so no reply can overtake another")
        asked.append(await wire.receive(visit.patience_ms))
        visit.check(asked[-1])
    for request in reversed(asked):
        wire.send_bytes(visit.answer_to(request))
    await visit.end(Said.PAID)


@case(
    "link.correlations",
    "No request has correlation ID 0, or that of another that waits.",
    *("5.2", "PG-LNK-7"),
)
async def correlations(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.next_connection()
    hello = await visit.hello(wire)
    require(hello.correlation_id != 0, "a Hello with a correlation ID other than 0", hello)
    visit.open(wire, hello)
    used: list[int] = []
    while visit.sent is None:
        waiting = [await wire.receive(visit.patience_ms)]
        while await wire.comes_within(BOTH_MS):
            waiting.append(await wire.receive())
        for asked in waiting:
            visit.check(asked)
            numbers = [reply.correlation_id for reply in waiting]
            require(numbers.count(asked.correlation_id) == 1, "a correlation ID for each request that waits", numbers)
            require(asked.correlation_id != 0, "a correlation ID other than 0", asked)
            wire.send_bytes(visit.answer_to(asked))
            used.append(asked.correlation_id)
    await visit.end(Said.PAID)


# -- what is refused -------------------------------------------------------------------------------------


@case(
    "link.second_hello_ack",
    "A HelloAck on an open link is refused with UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def second_hello_ack(desk: Desk) -> None:
    ack = HelloAck(Role.GATEWAY, "second", limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
    await _refused(desk, ack, ErrorCode.UNEXPECTED_MESSAGE)


@case(
    "link.other_reply",
    "A reply of another kind than its request's is refused with UNEXPECTED_MESSAGE.",
    *("5.2", "PG-LNK-9"),
)
async def other_reply(desk: Desk) -> None:
    ack = PaymentAck(desk.t.random_bytes(16), PaymentStatus.PENDING, Reason.NONE, "", b"")
    await _refused(desk, ack, ErrorCode.UNEXPECTED_MESSAGE)


@case(
    "link.foreign_reply",
    "A TokenAck whose correlation ID waits for nothing is refused with UNKNOWN_CORRELATION.",
    *("5.2", "PG-LNK-9"),
)
async def foreign_reply(desk: Desk) -> None:
    await refused_token_ack(
        desk, lambda frame, _: replace(frame, correlation_id=_FOREIGN_ID).encode(), ErrorCode.UNKNOWN_CORRELATION
    )


@case(
    "link.unasked_echo_reply",
    "An EchoReply that nobody asked for is refused with UNKNOWN_CORRELATION.",
    *("5.4", "PG-LNK-9"),
)
async def unasked_echo_reply(desk: Desk) -> None:
    await _refused(desk, EchoReply(bytes(8)), ErrorCode.UNKNOWN_CORRELATION, _FOREIGN_ID)


@case(
    "link.unasked_error",
    "An Error that does not close, and answers nothing that waits, is refused with UNKNOWN_CORRELATION.",
    *("5.6", "PG-ERR-5"),
)
async def unasked_error(desk: Desk) -> None:
    error = Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text="")
    await _refused(desk, error, ErrorCode.UNKNOWN_CORRELATION, _FOREIGN_ID)


@case(
    "link.request_to_client",
    "A request that only a client may ask is refused by a client with UNEXPECTED_MESSAGE.",
    *("5.2", "PG-LNK-10", "PG-LNK-12"),
)
async def request_to_client(desk: Desk) -> None:
    await _refused(desk, TokenQuery("TX-1", "secret"), ErrorCode.UNEXPECTED_MESSAGE)


@case(
    "link.hello_to_client",
    "A Hello from the end that was connected to is refused with UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def hello_to_client(desk: Desk) -> None:
    hello = Hello(Role.GATEWAY, "gateway", (limits.PROTOCOL_VERSION,))
    await _refused(desk, hello, ErrorCode.UNEXPECTED_MESSAGE)


@case(
    "link.says_why",
    "A client that refuses a frame says why before it closes: here BAD_CHECKSUM.",
    *("5.3", "PG-LNK-12", "PG-LNK-14", "PG-ERR-4"),
)
async def says_why(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    visit.on[TokenQuery] = no_answer
    visit.begin()
    wire = await visit.link()
    asked = await visit.until(wire, TokenQuery)
    if await wire.comes_within(BOTH_MS):
        await wire.receive()  # the question for the keys, on its way
    wire.send_draft(replace(draft(visit.token, None, asked.correlation_id), checksum=0))
    await wire.expect_error(ErrorCode.BAD_CHECKSUM)
    await visit.end(*UNSENT)


# -- Errors and ends before anything was sent ------------------------------------------------------------


@case(
    "link.query_refused",
    "Error SHUTTING_DOWN in answer to a TokenQuery ends the session; nothing was sent.",
    *("5.6", "6.2", "PG-ERR-5", "PG-CLI-1"),
)
async def query_refused(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    visit.on[TokenQuery] = lambda asked: reply_to(asked, Error(ErrorCode.SHUTTING_DOWN, closes=False, text=""))
    await visit.run(*UNSENT)


@case(
    "link.closing_error",
    "After an Error that closes a client sends no answer and closes; nothing was sent.",
    *("5.6", "PG-ERR-3", "PG-CLI-1"),
)
async def closing_error(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    closing = draft(Error(ErrorCode.INTERNAL, closes=True, text=""), None, 0).encode()
    visit.on[TokenQuery] = lambda _: closing
    visit.begin()
    wire = await visit.link()
    wire.send_bytes(visit.answer_to(await visit.until(wire, TokenQuery)))
    if await wire.next_or_closed():
        reply = await wire.receive()
        require(isinstance(reply.message, BankKeysQuery), "no answer to an Error", reply)
    await wire.expect_closed()
    await visit.end(*UNSENT)


@case(
    "link.cut_before_sending",
    "A link that ends before anything was sent ends the session; nothing was sent, and nothing is.",
    *("6.8", "PG-CLI-1", "PG-LNK-13"),
)
async def cut_before_sending(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    visit.begin()
    wire = await visit.link()
    await visit.until(wire, TokenQuery)
    wire.abort()
    await visit.end(*UNSENT)


@case(
    "link.no_answer",
    "A TokenQuery that has no answer for 10 s ends the session; nothing was sent.",
    *("5.5", "PG-TIM-5", "PG-CLI-1"),
    waits_ms=10_000,
)
async def no_answer_at_all(desk: Desk) -> None:
    visit = desk.visit()
    visit.may_pay = False
    visit.on[TokenQuery] = no_answer
    visit.token = replace(visit.token, session_left_ms=1)  # no session: none is opened
    began_ms = desk.t.now_ms
    await visit.run(*UNSENT)
    waited_ms = desk.t.now_ms - began_ms
    require(waited_ms > 8_000, "the client to wait for an answer, about 10 s", f"{waited_ms} ms")


async def _refused(desk: Desk, message: Message, code: ErrorCode, correlation_id: int | None = None) -> None:
    """A message in place of the TokenAck, under its correlation ID or another, which must be refused."""

    def damage(frame: Draft, _token: TokenAck) -> bytes:
        return draft(message, None, frame.correlation_id if correlation_id is None else correlation_id).encode()

    await refused_token_ack(desk, damage, code)
