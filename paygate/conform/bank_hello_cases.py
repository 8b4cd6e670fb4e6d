"""Hello, and what may not come before or after it, against a bank (spec 5.1, 5.3)."""

from dataclasses import replace

from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import (
    BankKeysQuery,
    Echo,
    EchoReply,
    Error,
    HelloAck,
    Message,
    TransferRequest,
)
from paygate.conform.bank_side import (
    BANK,
    connect_as,
    hello_of,
    open_link,
    say_hello,
    unsealed_resolve,
    unsealed_transfer,
)
from paygate.conform.cases import require
from paygate.conform.craft import draft
from paygate.conform.trial import Trial


@BANK.case(
    "hello.opens",
    "A gateway's Hello is answered by a HelloAck of the bank, and opens the link.",
    *("5.1", "5.3", "PG-LNK-2", "PG-MAC-1", "PG-FRM-6", "PG-VER-2"),
)
async def hello_opens(t: Trial) -> None:
    wire = await connect_as(t)
    ack = await say_hello(t, wire, hello_of(t))
    largest = limits.HEADER_SIZE + body_size_range(TransferRequest.kind)[1] + limits.MAC_SIZE
    require(ack.frame_size_max >= largest, f"a frame_size_max that takes every request, {largest} at least", ack)


@BANK.case(
    "hello.versions",
    "Version 1 is chosen wherever it stands among versions, however often, and whatever else is offered.",
    *("5.1", "PG-LNK-4", "PG-VER-2"),
)
async def hello_versions(t: Trial) -> None:
    for versions in ((2, 1), (1, 2), (255, 1, 1, 255), (8, 7, 6, 5, 4, 3, 2, 1)):
        wire = await connect_as(t)
        await say_hello(t, wire, hello_of(t, versions=versions))


@BANK.case(
    "hello.unknown_party",
    "A Hello of a gateway without a key gets UNKNOWN_PARTY.",
    *("5.1", "9", "PG-LNK-2", "PG-MAC-4"),
)
async def unknown_party(t: Trial) -> None:
    wire = await connect_as(t)
    wire.send(hello_of(t, party_id="nobody-knows-me"))
    await wire.expect_error(ErrorCode.UNKNOWN_PARTY)


@BANK.case(
    "hello.wrong_mac", "A Hello with another key's MAC gets BAD_MAC.", *("5.1", "4.4", "9", "PG-LNK-2", "PG-MAC-2")
)
async def hello_wrong_mac(t: Trial) -> None:
    wire = await connect_as(t)
    right_key = wire.link_key
    wire.link_key = t.random_bytes(32)
    wire.send(hello_of(t))
    wire.link_key = right_key
    await wire.expect_error(ErrorCode.BAD_MAC)


@BANK.case(
    "hello.no_mac",
    "A Hello without a MAC gets NOT_AUTHENTICATED, from its header alone.",
    *("4.4", "9", "PG-MAC-1", "PG-FRM-3"),
)
async def hello_no_mac(t: Trial) -> None:
    wire = await connect_as(t)
    wire.send_bytes(draft(hello_of(t), None).header())
    await wire.expect_error(ErrorCode.NOT_AUTHENTICATED)


@BANK.case("hello.wrong_role", "A Hello of a client or of a bank gets BAD_VALUE.", *("5.1", "9", "PG-LNK-2"))
async def wrong_role(t: Trial) -> None:
    for role in (Role.CLIENT, Role.BANK):
        wire = await connect_as(t)
        wire.send(hello_of(t, role=role))
        await wire.expect_error(ErrorCode.BAD_VALUE)


@BANK.case(
    "hello.no_common_version",
    "A Hello that does not offer version 1 gets NO_COMMON_VERSION.",
    *("5.1", "9", "PG-LNK-2", "PG-VER-2"),
)
async def no_common_version(t: Trial) -> None:
    for versions in ((2,), (255, 2)):
        wire = await connect_as(t)
        wire.send(hello_of(t, versions=versions))
        await wire.expect_error(ErrorCode.NO_COMMON_VERSION)


@BANK.case(
    "hello.order_of_checks",
    "Of several faults in a Hello the first is told: party, MAC, role, version.",
    *("5.1", "PG-LNK-2", "PG-ERR-7"),
)
async def hello_order(t: Trial) -> None:
    all_wrong = hello_of(t, party_id="nobody-knows-me", role=Role.CLIENT, versions=(2,))
    known = replace(all_wrong, party_id=t.world.gateway.gateway_id)
    for hello, has_right_key, code in (
        (all_wrong, False, ErrorCode.UNKNOWN_PARTY),
        (known, False, ErrorCode.BAD_MAC),
        (known, True, ErrorCode.BAD_VALUE),
        (replace(known, role=Role.GATEWAY), True, ErrorCode.NO_COMMON_VERSION),
    ):
        wire = await connect_as(t)
        key = t.world.gateway.link_key if has_right_key else t.random_bytes(32)
        wire.send_draft(draft(hello, key))
        await wire.expect_error(code)


@BANK.case(
    "hello.header_version",
    "A Hello whose header has another version gets UNSUPPORTED_VERSION: it is always version 1.",
    *("5.1", "PG-LNK-3"),
)
async def hello_header_version(t: Trial) -> None:
    wire = await connect_as(t)
    wire.send_draft(replace(draft(hello_of(t, versions=(1, 2)), wire.link_key), version=2))
    await wire.expect_error(ErrorCode.UNSUPPORTED_VERSION)


@BANK.case("hello.twice", "A second Hello gets UNEXPECTED_MESSAGE.", *("5.3", "9", "PG-LNK-12"))
async def hello_twice(t: Trial) -> None:
    wire = await open_link(t)
    wire.send(hello_of(t))
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@BANK.case(
    "hello.requests_before",
    "Any request before Hello gets UNEXPECTED_MESSAGE, from its header alone.",
    *("5.1", "5.3", "PG-LNK-1", "PG-LNK-12", "PG-FRM-3"),
)
async def requests_before_hello(t: Trial) -> None:
    requests: list[Message] = [
        Echo(bytes(8)),
        BankKeysQuery(t.world.bank_id),
        unsealed_transfer(t),
        unsealed_resolve(t),
    ]
    for request in requests:
        wire = await connect_as(t)
        wire.send_bytes(draft(request, wire.link_key).header())
        await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@BANK.case(
    "hello.replies_before",
    "A reply before Hello, HelloAck among them, gets UNEXPECTED_MESSAGE.",
    *("5.3", "PG-LNK-12"),
)
async def replies_before_hello(t: Trial) -> None:
    for reply in (_hello_ack(t), EchoReply(bytes(8))):
        wire = await connect_as(t)
        wire.send(reply)
        await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


@BANK.case(
    "hello.error_before",
    "An Error before Hello, when no key is known yet to check it with, gets BAD_MAC.",
    *("4.4", "5.3", "PG-LNK-12"),
)
async def error_before_hello(t: Trial) -> None:
    for code in (ErrorCode.INTERNAL, ErrorCode.SHUTTING_DOWN):
        wire = await connect_as(t)
        wire.send(Error(code, code.closes, ""))
        await wire.expect_error(ErrorCode.BAD_MAC)


@BANK.case("hello.ack_to_server", "A HelloAck on an open link gets UNEXPECTED_MESSAGE.", *("5.3", "9", "PG-LNK-12"))
async def hello_ack_to_server(t: Trial) -> None:
    wire = await open_link(t)
    wire.send(_hello_ack(t))
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)


def _hello_ack(t: Trial) -> HelloAck:
    return HelloAck(Role.GATEWAY, t.world.gateway.gateway_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)
