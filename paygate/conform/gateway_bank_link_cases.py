"""The gateway's own link to its bank: hello, Echo, its end and its timers (spec 4.4, 5).

Cases that break the link run alone.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import PaymentStatus, Role, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Echo, Error, Hello, HelloAck, TransferRequest
from paygate.conform.cases import require
from paygate.conform.craft import draft
from paygate.conform.gateway_side import GATEWAY, played_bank
from paygate.conform.played_bank import RELINK_MS, BankLink, PlayedBank
from paygate.conform.shopper import begin, expect_answer, open_shopper
from paygate.conform.trial import Trial

HELLO_MS: Final = 5_000
FRAME_MS: Final = 10_000
TEST_AFTER_MS: Final = 15_000
TEST_UNANSWERED_MS: Final = 10_000
EARLY_MS: Final = 150
"""How much too early by our clock something may come: clocks that are read once a tick are behind by some."""


@GATEWAY.case(
    "bank_link.hello",
    "The gateway's Hello to its bank is of role GATEWAY under its own ID, offers version 1, and has the right MAC.",
    *("5.1", "4.4", "PG-LNK-1", "PG-LNK-3", "PG-LNK-7", "PG-MAC-1"),
)
async def bank_link_hello(t: Trial) -> None:
    hello = (await played_bank(t).ready_link()).hello
    assert hello is not None
    message = hello.message
    assert isinstance(message, Hello)
    require(message.role is Role.GATEWAY, "a Hello of role GATEWAY", hello)
    gateway_id = t.world.gateway.gateway_id
    require(message.party_id == gateway_id, f"a Hello of {gateway_id}", hello)
    require(limits.PROTOCOL_VERSION in message.versions, "version 1 among the versions", hello)
    require(hello.correlation_id != 0, "another correlation ID than 0, which an Error that closes carries", hello)


@GATEWAY.case(
    "bank_link.echo",
    "The bank's Echo is answered by an EchoReply with its data.",
    *("5.4", "PG-LNK-8", "PG-LNK-16", "PG-MAC-1"),
)
async def bank_link_echo(t: Trial) -> None:
    link = await played_bank(t).ready_link()
    for _ in range(3):
        await link.echo()


# -- hello -----------------------------------------------------------------------------------------------


async def _relink(bank: PlayedBank, link: BankLink) -> BankLink:
    """End the link, and have the gateway open another."""
    link.cut()
    return await bank.open_link_after(link.number)


@GATEWAY.case(
    "bank_link.waits_for_ack",
    "Before HelloAck the gateway sends nothing but Hello.",
    *("5.1", "5.3", "PG-LNK-1"),
    exclusive=True,
)
async def waits_for_ack(t: Trial) -> None:
    bank = played_bank(t)

    async def greet_late(link: BankLink) -> bool:
        await link.wire.expect_silence(600)
        bank.acknowledge(link)
        return True

    link = await bank.ready_link()
    bank.greeting = greet_late
    try:
        await _relink(bank, link)
    finally:
        bank.greeting = bank.say_hello


Answer = Callable[[PlayedBank, BankLink], None]


def _declare_bad_hello(name: str, expects: str, code: ErrorCode | None, answer: Answer, *where: str) -> None:
    """A HelloAck that opens no link: an Error of this code follows it, or without one only the end."""

    @GATEWAY.case(f"bank_link.{name}", expects, *where, exclusive=True)
    async def bad_hello(t: Trial) -> None:
        bank = played_bank(t)
        link = await bank.ready_link()
        met: list[BankLink] = []

        async def greet(new: BankLink) -> bool:
            met.append(new)
            answer(bank, new)
            return True  # so that what the gateway says is heard

        bank.greeting = greet
        try:
            link.cut()
            deadline_ms = t.now_ms + RELINK_MS
            while not met:
                require(t.now_ms < deadline_ms, f"a new link to the bank within {RELINK_MS} ms", "none")
                await t.sleep(10)
            new = met[0]
            bank.greeting = bank.say_hello
            if code is None:
                await new.expect_end()
                require(not new.errors, "the end of the link, and nothing more", new.errors[:1])
            else:
                await new.expect_refused(code)
        finally:
            bank.greeting = bank.say_hello
        await bank.open_link_after(new.number)
        await (await open_shopper(t)).pay()


_declare_bad_hello(
    "another_bank",
    "When another bank answers than the one that it was set up for, the gateway closes and sends nothing more.",
    None,
    lambda bank, link: bank.acknowledge(link, party_id="ANOTHER-BANK"),
    *("5.1", "PG-LNK-5"),
)
_declare_bad_hello(
    "another_role",
    "A HelloAck of another role than BANK gets BAD_VALUE.",
    ErrorCode.BAD_VALUE,
    lambda bank, link: bank.acknowledge(link, role=Role.GATEWAY),
    *("5.1", "9", "PG-LNK-5"),
)
_declare_bad_hello(
    "another_version",
    "A HelloAck that chooses a version which was not offered gets NO_COMMON_VERSION.",
    ErrorCode.NO_COMMON_VERSION,
    lambda bank, link: bank.acknowledge(link, version=9),
    *("5.1", "9", "PG-LNK-5", "PG-VER-2"),
)
_declare_bad_hello(
    "unauthenticated_error",
    "Before the link is open the bank's Error is taken without a MAC: the gateway closes, and tries again.",
    None,
    lambda _, link: link.wire.send_draft(draft(Error(ErrorCode.BAD_MAC, closes=True, text=""), None, 0)),
    *("4.4", "5.3", "PG-MAC-4", "PG-ERR-3"),
)
_declare_bad_hello(
    "ack_without_mac",
    "A HelloAck without a MAC gets NOT_AUTHENTICATED.",
    ErrorCode.NOT_AUTHENTICATED,
    lambda bank, link: link.wire.send_draft(draft(_ack(bank), None, _hello_id(link))),
    *("4.4", "9", "PG-MAC-1", "PG-MAC-4"),
)
_declare_bad_hello(
    "ack_of_another_key",
    "A HelloAck whose MAC is of another key gets BAD_MAC.",
    ErrorCode.BAD_MAC,
    lambda bank, link: link.wire.send_draft(draft(_ack(bank), bytes(32), _hello_id(link))),
    *("4.4", "9", "PG-MAC-2"),
)
_declare_bad_hello(
    "request_before_ack",
    "A request of the bank before its HelloAck gets UNEXPECTED_MESSAGE.",
    ErrorCode.UNEXPECTED_MESSAGE,
    lambda _, link: link.wire.send_draft(draft(Echo(bytes(8)), link.wire.link_key)),
    *("5.3", "9", "PG-LNK-12"),
)


def _ack(bank: PlayedBank) -> HelloAck:
    return HelloAck(Role.BANK, bank.keys.bank_id, limits.PROTOCOL_VERSION, limits.FRAME_SIZE_MAX)


def _hello_id(link: BankLink) -> int:
    assert link.hello is not None
    return link.hello.correlation_id


# -- errors, ends, streams --------------------------------------------------------------------------------


@GATEWAY.case(
    "bank_link.closing_error",
    "An Error of the bank that closes is not answered; the gateway closes the link, and links again.",
    *("5.3", "5.6", "PG-ERR-3", "PG-ERR-4", "PG-LNK-12"),
    exclusive=True,
)
async def closing_error(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()
    link.wire.send(Error(ErrorCode.INTERNAL, closes=True, text="the bank gives up"), 0)
    await link.expect_end()
    require(not link.errors, "no answer to an Error", link.errors[:1])
    await bank.open_link_after(link.number)
    await (await open_shopper(t)).pay()


@GATEWAY.case(
    "bank_link.split",
    "A result that comes in small pieces, and many in one segment, are taken.",
    *("4.1", "PG-FRM-2"),
    exclusive=True,
)
async def bank_link_split(t: Trial) -> None:
    bank = played_bank(t)
    begun = [await begin(t) for _ in range(4)]
    asked = [(await watched.desk.next(TransferRequest))[0] for watched in begun]
    wire = (await bank.ready_link()).wire
    frames = [draft(bank.answer_to(a, TransferOutcome.POSTED), wire.link_key, a.correlation_id).encode() for a in asked]
    wire.send_bytes(b"".join(frames[1:]))
    for watched in begun[1:]:
        await expect_answer(watched, PaymentStatus.PAID)
    # The header byte by byte, the rest in larger pieces: it must all be there within 10 s (spec 5.5).
    places = [*range(limits.HEADER_SIZE), *range(limits.HEADER_SIZE, len(frames[0]), 16), len(frames[0])]
    for start, end in pairwise(places):
        wire.send_bytes(frames[0][start:end])
        await t.sleep(0)
    await expect_answer(begun[0], PaymentStatus.PAID)


# -- timers ----------------------------------------------------------------------------------------------


@GATEWAY.case(
    "bank_link.hello_timeout",
    "A bank that does not answer Hello gets HELLO_TIMEOUT after 5 s; the gateway tries again.",
    *("5.5", "9", "PG-TIM-1"),
    waits_ms=HELLO_MS,
    exclusive=True,
)
async def hello_timeout(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()

    async def say_nothing(_: BankLink) -> bool:
        return True  # what the gateway says next is heard

    bank.greeting = say_nothing
    try:
        link.cut()
        new = await bank.link_after(link.number)
        began_ms = t.now_ms
        await new.expect_refused(ErrorCode.HELLO_TIMEOUT, HELLO_MS + t.settings.patience_ms)
        require(t.now_ms - began_ms >= HELLO_MS - EARLY_MS, f"HELLO_TIMEOUT after {HELLO_MS} ms", t.now_ms - began_ms)
    finally:
        bank.greeting = bank.say_hello
    await bank.open_link_after(new.number)


@GATEWAY.case(
    "bank_link.frame_timeout",
    "A frame of the bank that is not complete after 10 s gets FRAME_TIMEOUT, though bytes of it go on coming.",
    *("5.5", "9", "PG-TIM-2"),
    waits_ms=FRAME_MS,
    exclusive=True,
)
async def frame_timeout(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()
    assert link.wire.link_key is not None
    data = draft(Echo(bytes(8)), link.wire.link_key).encode()
    began_ms = t.now_ms
    for place in range(9):
        link.wire.send_bytes(data[place : place + 1])
        await t.sleep(1_000)
        require(not link.is_over, "an open link", f"it ended after {t.now_ms - began_ms} ms")
    await link.expect_refused(ErrorCode.FRAME_TIMEOUT, 1_000 + t.settings.patience_ms)
    took_ms = t.now_ms - began_ms
    require(took_ms >= FRAME_MS - EARLY_MS, f"FRAME_TIMEOUT after {FRAME_MS} ms", f"after {took_ms} ms")
    await bank.open_link_after(link.number)


@GATEWAY.case(
    "bank_link.tested",
    "After 15 s without a frame of the bank the gateway sends Echo; 10 s more without one, and it says IDLE_TIMEOUT.",
    *("5.4", "5.5", "9", "PG-TIM-4"),
    waits_ms=TEST_AFTER_MS + TEST_UNANSWERED_MS + 5_000,
    exclusive=True,
)
async def link_tested(t: Trial) -> None:
    bank = played_bank(t)
    link = await _relink(bank, await bank.ready_link())
    link.wire.answers_echo = False
    # The key list that every new link asks for is, as a rule, the last frame that we send.
    test = await link.expect_test(2 * TEST_AFTER_MS)
    waited_ms = test.at_ms - max(entry.at_ms for entry in link.wire.entries if entry.what == "sent")
    is_right = TEST_AFTER_MS - EARLY_MS <= waited_ms <= TEST_AFTER_MS + t.settings.patience_ms
    require(is_right, f"an Echo after {TEST_AFTER_MS} ms", f"after {waited_ms} ms")
    began_ms = t.now_ms
    await link.expect_refused(ErrorCode.IDLE_TIMEOUT, TEST_UNANSWERED_MS + t.settings.patience_ms)
    took_ms = t.now_ms - began_ms
    require(took_ms >= TEST_UNANSWERED_MS - EARLY_MS, f"IDLE_TIMEOUT after {TEST_UNANSWERED_MS} ms", f"{took_ms} ms")
    await bank.open_link_after(link.number)
