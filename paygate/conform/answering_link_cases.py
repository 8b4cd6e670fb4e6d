"""Requests and replies, Echo, Error, the end of a link, and its timers, against any answering end (spec 5.2 to 5.6)."""

from typing import Final

from paygate.codec.codes import KeysStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import BankKeys, BankKeysQuery, Echo, EchoReply, Error, Message
from paygate.conform.answering import EVERY_END, AnsweringEnd
from paygate.conform.cases import require
from paygate.conform.craft import Draft, draft
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire

PIPELINED_COUNT: Final = 200
WAITING_COUNT: Final = 4_096
"""Requests of one peer that a server must serve at a time (PG-LNK-6)."""
EARLY_MS_MAX: Final = 100
"""How much too early by our clock a timer may run out: clocks that are read once a tick are behind by some."""


async def require_echo(t: Trial, wire: Wire) -> None:
    """Have an Echo answered: the link works."""
    data = t.random_bytes(8)
    reply = await wire.ask(Echo(data), EchoReply)
    require(reply.echo_data == data, "an EchoReply with the Echo's data", reply)


# -- requests and replies --------------------------------------------------------------------------------


@EVERY_END.case("echo.answered", "An Echo is answered by an EchoReply with its data.", *("5.4", "PG-LNK-16"))
async def echo_answered(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    for _ in range(3):
        await require_echo(t, wire)


@EVERY_END.case(
    "requests.pipelined",
    f"{PIPELINED_COUNT} requests sent at once are each answered under their own correlation ID, in any order.",
    *("5.2", "PG-LNK-6", "PG-LNK-7", "PG-LNK-8"),
)
async def requests_pipelined(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    waiting: dict[int, Message] = {}
    for number in range(PIPELINED_COUNT):
        bank_id = t.world.bank_id if number % 3 == 1 else f"NOT-{number}"
        message = BankKeysQuery(bank_id) if number % 3 else Echo(t.random_bytes(8))
        waiting[wire.send(message, 1 + number * 7_919)] = message
    while waiting:
        reply = await wire.receive()
        request = waiting.pop(reply.correlation_id, None)
        match request, reply.message:
            case Echo(), EchoReply():
                is_right = reply.message.echo_data == request.echo_data
            case BankKeysQuery(), BankKeys():
                is_known = reply.message.status is not KeysStatus.UNKNOWN_BANK
                is_right = is_known is (request.bank_id == t.world.bank_id)
            case _:
                is_right = False
        require(is_right, "the reply to the request of its correlation ID, once", reply)


@EVERY_END.case(
    "requests.correlation_extremes",
    "Correlation IDs 0 and 2^64-1 are repeated in the reply like any other.",
    *("5.2", "PG-LNK-7"),
)
async def correlation_extremes(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    for correlation_id in (0, (1 << 64) - 1, 1 << 63):
        wire.send(Echo(bytes(8)), correlation_id)
        await wire.expect(EchoReply, correlation_id)


@EVERY_END.case(
    "requests.correlation_free_again",
    "A correlation ID may be used again as soon as its reply was received.",
    *("5.2", "PG-LNK-7"),
)
async def correlation_again(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    for message, reply in ((BankKeysQuery(t.world.bank_id), BankKeys), (Echo(bytes(8)), EchoReply)):
        for _ in range(2):
            wire.send(message, 5)
            await wire.expect(reply, 5)


@EVERY_END.case(
    "requests.wrong_route",
    "Requests that do not go from {caller} to {end} get UNEXPECTED_MESSAGE, from their headers alone.",
    *("4.2", "5.2", "5.3", "PG-LNK-10", "PG-FRM-3"),
)
async def wrong_route(t: Trial, end: AnsweringEnd) -> None:
    for kind in end.foreign_kinds:
        wire = await end.open_link(t)
        wire.send_bytes(Draft(kind, bytes(body_size_range(kind)[0]), link_key=wire.link_key).header())
        await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@EVERY_END.case(
    "requests.unasked_reply",
    "A reply that nobody asked for gets UNKNOWN_CORRELATION; an EchoReply is never answered by a reply.",
    *("5.2", "5.3", "5.4", "9", "PG-LNK-9", "PG-LNK-12", "PG-LNK-16"),
)
async def unasked_reply(t: Trial, end: AnsweringEnd) -> None:
    for reply in (EchoReply(bytes(8)), BankKeys(KeysStatus.UNAVAILABLE, b"")):
        wire = await end.open_link(t)
        wire.send(reply, 3)
        await wire.expect_error(ErrorCode.UNKNOWN_CORRELATION)


@EVERY_END.case(
    "requests.many",
    f"{WAITING_COUNT} requests sent without waiting are all served.",
    *("5.2", "PG-LNK-6"),
    exclusive=True,
)
async def requests_many(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    frames = [draft(Echo(n.to_bytes(8)), wire.link_key, n).encode() for n in range(1, WAITING_COUNT + 1)]
    wire.send_bytes(b"".join(frames))
    waiting = set(range(1, WAITING_COUNT + 1))
    while waiting:
        reply = await wire.receive()
        is_right = isinstance(reply.message, EchoReply) and reply.correlation_id in waiting
        require(is_right, "an EchoReply to each Echo", reply)
        waiting.remove(reply.correlation_id)


# -- Error -----------------------------------------------------------------------------------------------


@EVERY_END.case(
    "error.passing_to_none",
    "An Error that does not close, and answers nothing, gets UNKNOWN_CORRELATION.",
    *("5.3", "5.6", "9", "PG-ERR-5", "PG-LNK-12"),
)
async def error_passing_to_none(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.send(Error(ErrorCode.SHUTTING_DOWN, closes=False, text="to nobody"), 4)
    await wire.expect_error(ErrorCode.UNKNOWN_CORRELATION)


@EVERY_END.case(
    "error.closing_is_not_answered",
    "An Error that closes is not answered; the {end} closes the link.",
    *("5.3", "5.6", "PG-ERR-3", "PG-LNK-12"),
)
async def error_closing(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.send(Error(ErrorCode.INTERNAL, closes=True, text="the other end gives up"), 0)
    await wire.expect_closed()


@EVERY_END.case(
    "error.disturbs_no_other_link",
    "What goes wrong on one link of a {caller} disturbs no other: it goes on, and new ones open.",
    *("5.3", "9", "PG-LNK-15"),
)
async def other_links(t: Trial, end: AnsweringEnd) -> None:
    other = await end.open_link(t, name="the other link")
    for data in (b"GET / HTTP/1.1\r\nHost: paygate\r\n\r\n", bytes(64), b"\xff" * 64):
        wire = await end.open_link(t)
        wire.send_bytes(data)
        await wire.expect_error(ErrorCode.BAD_MAGIC)
        await require_echo(t, other)
    await require_echo(t, await end.open_link(t))


@EVERY_END.case(
    "error.nothing_after",
    "After an Error that closes nothing more is read: a valid request behind the faulty frame gets no reply.",
    *("5.3", "PG-LNK-12", "PG-ERR-4"),
)
async def nothing_after(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    good = draft(Echo(bytes(8)), wire.link_key, 8).encode()
    wire.send_bytes(bytes(20) + good * 3)
    await wire.expect_error(ErrorCode.BAD_MAGIC)


@EVERY_END.case(
    "error.earlier_is_answered",
    "What was asked and answered at once before a faulty frame is sent before the Error.",
    *("5.3", "PG-LNK-14"),
)
async def earlier_is_answered(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.send_bytes(draft(Echo(b"earlier!"), wire.link_key, 8).encode() + bytes(20))
    await wire.expect(EchoReply, 8)
    await wire.expect_error(ErrorCode.BAD_MAGIC)


# -- the end of a link -----------------------------------------------------------------------------------


@EVERY_END.case(
    "end.between_frames",
    "When the {caller} ends its side between two frames the {end} closes the link, without an Error.",
    *("5.3", "PG-LNK-12", "PG-LNK-13"),
)
async def end_between_frames(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.end_output()
    await wire.expect_closed()


@EVERY_END.case(
    "end.within_a_frame",
    "When the stream ends in the middle of a frame the {end} says TRUNCATED_FRAME and closes.",
    *("5.3", "9", "PG-LNK-12"),
)
async def end_within_a_frame(t: Trial, end: AnsweringEnd) -> None:
    for size in (1, 20, 27):
        wire = await end.open_link(t)
        wire.send_bytes(draft(Echo(bytes(8)), wire.link_key).encode()[:size])
        await t.sleep(20)
        wire.end_output()
        await wire.expect_error(ErrorCode.TRUNCATED_FRAME)


# -- timers ----------------------------------------------------------------------------------------------


async def expect_timeout(wire: Wire, began_ms: int, t: Trial, code: ErrorCode, after_ms: int) -> None:
    """The Error of a timer: not before its time, and no later than our patience after it."""
    await wire.expect_error(code, within_ms=after_ms - (t.now_ms - began_ms) + t.settings.patience_ms)
    took_ms = t.now_ms - began_ms
    require(took_ms >= after_ms - EARLY_MS_MAX, f"{code.name} after {after_ms} ms", f"after {took_ms} ms")


async def drip(t: Trial, wire: Wire, data: bytes, count: int, for_ms: int) -> None:
    """Send the first `count` bytes one by one, evenly over this time, in which nothing may come."""
    began_ms = t.now_ms
    for i in range(count):
        wire.send_bytes(data[i : i + 1])
        # By the clock and not step by step, so that small delays do not add up to a timer's time. A kit that looks
        # later than that can't tell that something came too early.
        left_ms = began_ms + for_ms * (i + 1) // count - t.now_ms
        if left_ms > 0:
            await wire.expect_silence(left_ms)


@EVERY_END.case(
    "timer.hello",
    "A connection that says nothing gets HELLO_TIMEOUT after 5 s.",
    *("5.5", "9", "PG-TIM-1"),
    waits_ms=5_000,
)
async def hello_timeout(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.connect(t, "")
    await expect_timeout(wire, t.now_ms, t, ErrorCode.HELLO_TIMEOUT, 5_000)


@EVERY_END.case(
    "timer.hello_dripping",
    "A Hello that comes a byte at a time gets HELLO_TIMEOUT 5 s after connecting, not later.",
    *("5.5", "PG-TIM-1"),
    waits_ms=5_000,
)
async def hello_timeout_dripping(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.connect(t, "")
    began_ms = t.now_ms
    data = draft(end.hello(t), wire.link_key).encode()
    await drip(t, wire, data, 8, 4_000)
    await expect_timeout(wire, began_ms, t, ErrorCode.HELLO_TIMEOUT, 5_000)


@EVERY_END.case(
    "timer.frame",
    "A frame of which a byte comes each second gets FRAME_TIMEOUT 10 s after its first byte.",
    *("5.5", "9", "PG-TIM-2"),
    waits_ms=10_000,
)
async def frame_timeout(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    await t.sleep(1_000)  # the frame's first byte counts, not the link's first
    began_ms = t.now_ms
    data = draft(Echo(bytes(8)), wire.link_key).encode()
    await drip(t, wire, data, 9, 9_000)
    await expect_timeout(wire, began_ms, t, ErrorCode.FRAME_TIMEOUT, 10_000)


@EVERY_END.case(
    "timer.idle",
    "A link gets IDLE_TIMEOUT 60 s after its last whole frame, and not after its first.",
    *("5.5", "9", "PG-TIM-3"),
    waits_ms=64_000,
)
async def idle_timeout(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    await t.sleep(4_000)
    began_ms = t.now_ms
    await require_echo(t, wire)
    await expect_timeout(wire, began_ms, t, ErrorCode.IDLE_TIMEOUT, 60_000)
