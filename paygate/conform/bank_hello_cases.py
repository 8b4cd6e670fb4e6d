"""Hello and the states of a link, against a bank (spec 5.1, 5.3)."""

from paygate.codec import limits
from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import TransferRequest
from paygate.conform.bank_side import BANK, connect_as, hello_of, open_link, say_hello
from paygate.conform.cases import require
from paygate.conform.trial import Trial


@BANK.case("hello.opens", "A gateway's Hello is answered by HelloAck and opens the link.", sections=["5.1", "5.3"])
async def hello_opens(t: Trial) -> None:
    wire = await connect_as(t)
    ack = await say_hello(t, wire, hello_of(t))
    largest = limits.HEADER_SIZE + body_size_range(TransferRequest.kind)[1] + limits.MAC_SIZE
    require(ack.frame_size_max >= largest, f"a frame_size_max that takes every request, {largest} at least", ack)


@BANK.case("hello.unknown_party", "A Hello of a gateway without a key gets UNKNOWN_PARTY.", sections=["5.1", "9"])
async def unknown_party(t: Trial) -> None:
    wire = await connect_as(t)
    wire.send(hello_of(t, party_id="nobody-knows-me"))
    await wire.expect_error(ErrorCode.UNKNOWN_PARTY)


@BANK.case("hello.wrong_role", "A Hello of a client or a bank gets BAD_VALUE.", sections=["5.1", "9"])
async def wrong_role(t: Trial) -> None:
    for role in (Role.CLIENT, Role.BANK):
        wire = await connect_as(t)
        wire.send(hello_of(t, role=role))
        await wire.expect_error(ErrorCode.BAD_VALUE)


@BANK.case("hello.twice", "A second Hello gets UNEXPECTED_MESSAGE.", sections=["5.3", "9"])
async def hello_twice(t: Trial) -> None:
    wire = await open_link(t)
    wire.send(hello_of(t))
    await wire.expect_error(ErrorCode.UNEXPECTED_MESSAGE)
