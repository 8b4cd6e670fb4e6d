"""Hello of a gateway that the bank must know, and its MAC, against a bank (spec 4.4, 5.1).

What holds for every answering end is in `answering_hello_cases`.
"""

from dataclasses import replace

from paygate.codec.codes import Role
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error
from paygate.conform.bank_side import BANK, connect_as, hello_of
from paygate.conform.craft import draft
from paygate.conform.trial import Trial


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
    "hello.error_before",
    "An Error before Hello, when no key is known yet to check it with, gets BAD_MAC.",
    *("4.4", "5.3", "PG-LNK-12"),
)
async def error_before_hello(t: Trial) -> None:
    for code in (ErrorCode.INTERNAL, ErrorCode.SHUTTING_DOWN):
        wire = await connect_as(t)
        wire.send(Error(code, code.closes, ""))
        await wire.expect_error(ErrorCode.BAD_MAC)
