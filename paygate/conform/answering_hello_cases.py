"""Hello, and what may not come before or after it, against any answering end (spec 5.1, 5.3)."""

from dataclasses import replace

from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import BankKeysQuery, Echo, EchoReply, HelloAck, Message
from paygate.conform.answering import EVERY_END, AnsweringEnd
from paygate.conform.cases import require
from paygate.conform.craft import draft
from paygate.conform.trial import Trial


@EVERY_END.case(
    "hello.opens",
    "A {caller}'s Hello is answered by a HelloAck of the {end}, and opens the link.",
    *("5.1", "5.3", "PG-LNK-2", "PG-FRM-6", "PG-VER-2"),
)
async def hello_opens(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.connect(t, "")
    ack = await end.say_hello(t, wire, end.hello(t))
    largest = end.frame_size_needed
    require(ack.frame_size_max >= largest, f"a frame_size_max that takes every request, {largest} at least", ack)


@EVERY_END.case(
    "hello.versions",
    "Version 1 is chosen wherever it stands among versions, however often, and whatever else is offered.",
    *("5.1", "PG-LNK-4", "PG-VER-2"),
)
async def hello_versions(t: Trial, end: AnsweringEnd) -> None:
    for versions in ((2, 1), (1, 2), (255, 1, 1, 255), (8, 7, 6, 5, 4, 3, 2, 1)):
        wire = await end.connect(t, "")
        await end.say_hello(t, wire, end.hello(t, versions=versions))


@EVERY_END.case("hello.wrong_role", "A Hello of another role than {caller} gets BAD_VALUE.", *("5.1", "9", "PG-LNK-2"))
async def wrong_role(t: Trial, end: AnsweringEnd) -> None:
    for role in Role:
        if role is not end.caller_role:
            wire = await end.connect(t, "")
            wire.send(end.hello(t, role=role))
            await wire.expect_error(ErrorCode.BAD_VALUE)


@EVERY_END.case(
    "hello.no_common_version",
    "A Hello that does not offer version 1 gets NO_COMMON_VERSION.",
    *("5.1", "9", "PG-LNK-2", "PG-VER-2"),
)
async def no_common_version(t: Trial, end: AnsweringEnd) -> None:
    for versions in ((2,), (255, 2)):
        wire = await end.connect(t, "")
        wire.send(end.hello(t, versions=versions))
        await wire.expect_error(ErrorCode.NO_COMMON_VERSION)


@EVERY_END.case(
    "hello.header_version",
    "A Hello whose header has another version gets UNSUPPORTED_VERSION: it is always version 1.",
    *("5.1", "PG-LNK-3"),
)
async def hello_header_version(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.connect(t, "")
    wire.send_draft(replace(draft(end.hello(t, versions=(1, 2)), wire.link_key), version=2))
    await wire.expect_error(ErrorCode.UNSUPPORTED_VERSION)


@EVERY_END.case("hello.twice", "A second Hello gets UNEXPECTED_MESSAGE.", *("5.3", "9", "PG-LNK-12"))
async def hello_twice(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.send(end.hello(t))
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@EVERY_END.case(
    "hello.requests_before",
    "Any request before Hello gets UNEXPECTED_MESSAGE, from its header alone.",
    *("5.1", "5.3", "PG-LNK-1", "PG-LNK-12", "PG-FRM-3"),
)
async def requests_before_hello(t: Trial, end: AnsweringEnd) -> None:
    requests: list[Message] = [Echo(bytes(8)), BankKeysQuery(t.world.bank_id)]
    requests += [make(t) for make in end.requests.values()]
    for request in requests:
        wire = await end.connect(t, "")
        wire.send_bytes(draft(request, wire.link_key).header())
        await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@EVERY_END.case(
    "hello.replies_before",
    "A reply before Hello, HelloAck among them, gets UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def replies_before_hello(t: Trial, end: AnsweringEnd) -> None:
    for reply in (_hello_ack(end), EchoReply(bytes(8))):
        wire = await end.connect(t, "")
        wire.send(reply)
        await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@EVERY_END.case(
    "hello.ack_to_server", "A HelloAck on an open link gets UNEXPECTED_MESSAGE.", *("5.3", "9", "PG-LNK-12")
)
async def hello_ack_to_server(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
    wire.send(_hello_ack(end))
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


def _hello_ack(end: AnsweringEnd) -> HelloAck:
    return HelloAck(end.caller_role, "paygate-conform", limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
