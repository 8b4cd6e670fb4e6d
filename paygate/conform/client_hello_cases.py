"""Hello, and what may come instead of its answer, to a client (spec 5.1, 5.3)."""

from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, Error, Message
from paygate.conform.client_options import Said
from paygate.conform.client_side import UNSENT, Desk, Visit, case, expect_refused
from paygate.conform.wire import Reply, Wire

QUIET_MS = 300
"""How long nothing must come before HelloAck: a client that does not wait for it sends its queries at once."""


@case(
    "hello.first",
    "A client says Hello first, and nothing else before HelloAck; its header has version 1.",
    *("5.1", "PG-LNK-1", "PG-LNK-3", "PG-VER-2"),
)
async def hello_first(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.next_connection()
    hello = await visit.hello(wire)
    await wire.expect_silence(QUIET_MS)
    visit.open(wire, hello)
    await visit.end(Said.PAID)


@case("hello.bank_answers", "A HelloAck of a bank is refused with BAD_VALUE.", *("5.1", "PG-LNK-5"))
async def bank_answers(desk: Desk) -> None:
    await _refused_ack(desk, ErrorCode.BAD_VALUE, role=Role.BANK)


@case("hello.client_answers", "A HelloAck of a client is refused with BAD_VALUE.", *("5.1", "PG-LNK-5"))
async def client_answers(desk: Desk) -> None:
    await _refused_ack(desk, ErrorCode.BAD_VALUE, role=Role.CLIENT)


@case(
    "hello.foreign_version",
    "A HelloAck that chooses a version which was not offered is refused with NO_COMMON_VERSION.",
    *("5.1", "PG-LNK-5"),
)
async def foreign_version(desk: Desk) -> None:
    await _refused_ack(desk, ErrorCode.NO_COMMON_VERSION, version=255)


@case(
    "hello.foreign_correlation",
    "A HelloAck with another correlation ID than Hello's is refused with UNKNOWN_CORRELATION.",
    *("5.3", "PG-LNK-9", "PG-LNK-12"),
)
async def foreign_correlation(desk: Desk) -> None:
    visit, wire, hello = await _waiting_for_ack(desk)
    visit.open(wire, Reply(hello.message, hello.correlation_id + 1, hello.raw, hello.at_ms))
    await expect_refused(wire, ErrorCode.UNKNOWN_CORRELATION)
    await visit.end(*UNSENT)


@case(
    "hello.request_instead",
    "An Echo before HelloAck is refused with UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def request_instead(desk: Desk) -> None:
    await _refused_instead(desk, Echo(bytes(8)))


@case(
    "hello.reply_instead",
    "A TokenAck before HelloAck is refused with UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def reply_instead(desk: Desk) -> None:
    await _refused_instead(desk, desk.visit().token)


@case(
    "hello.error_instead",
    "After an Error that closes, in place of HelloAck, a client sends no answer and closes; nothing was sent.",
    *("5.3", "PG-ERR-3", "PG-CLI-1"),
)
async def error_instead(desk: Desk) -> None:
    visit, wire, _hello = await _waiting_for_ack(desk)
    wire.send(Error(ErrorCode.TOO_MANY_CONNECTIONS, closes=True, text="full"), 0)
    await wire.expect_closed()
    await visit.end(*UNSENT)


@case(
    "hello.no_ack",
    "A client that gets no HelloAck within 5 s closes with HELLO_TIMEOUT.",
    *("5.5", "PG-TIM-1"),
    waits_ms=5_000,
)
async def no_ack(desk: Desk) -> None:
    visit, wire, _hello = await _waiting_for_ack(desk)
    await wire.expect_silence(4_000)
    await expect_refused(wire, ErrorCode.HELLO_TIMEOUT)
    await visit.end(*UNSENT)


async def _waiting_for_ack(desk: Desk) -> tuple[Visit, Wire, Reply]:
    visit = desk.visit()
    visit.may_pay = False
    visit.begin()
    wire = await visit.next_connection()
    return visit, wire, await visit.hello(wire)


async def _refused_ack(desk: Desk, code: ErrorCode, **changes: object) -> None:
    visit, wire, hello = await _waiting_for_ack(desk)
    visit.open(wire, hello, **changes)
    await expect_refused(wire, code)
    await visit.end(*UNSENT)


async def _refused_instead(desk: Desk, message: Message) -> None:
    visit, wire, hello = await _waiting_for_ack(desk)
    wire.send(message, hello.correlation_id)
    await expect_refused(wire, ErrorCode.UNEXPECTED_MESSAGE)
    await visit.end(*UNSENT)
