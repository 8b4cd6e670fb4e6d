"""What a gateway refuses from its bank on an open link (spec 5.3). They run alone, since each breaks that link."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, PaymentStatus, Reason, Role, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Echo,
    Error,
    Hello,
    HelloAck,
    Message,
    ResolveResult,
    StatusQuery,
    TransferRequest,
    TransferResult,
)
from paygate.codec.record_codec import encode_record
from paygate.conform.craft import Draft, draft, flipped
from paygate.conform.gateway_side import GATEWAY, played_bank
from paygate.conform.shopper import begin, expect_answer, open_shopper, resolved_on_new_link
from paygate.conform.trial import Trial

Made = Callable[[bytes], bytes]
"""Bytes for the link with this key."""


def _declare_refused(name: str, what: str, code: ErrorCode, make: Made, *where: str) -> None:
    @GATEWAY.case(
        f"bank_link.refuses.{name}",
        f"{what} from the bank gets {code.name}; the gateway links again, and payments go on.",
        *where,
        exclusive=True,
    )
    async def refused(t: Trial) -> None:
        bank = played_bank(t)
        link = await bank.ready_link()
        assert link.wire.link_key is not None
        link.wire.send_bytes(make(link.wire.link_key))
        await link.expect_refused(code)
        await bank.open_link_after(link.number)
        await (await open_shopper(t)).pay()


def _echo(key: bytes) -> Draft:
    return draft(Echo(b"paygate!"), key, 7)


def _framed(message: Message, correlation_id: int = 7) -> Made:
    return lambda key: draft(message, key, correlation_id).encode()


_UNASKED: Final = TransferResult(bytes([1] * 16), TransferOutcome.UNAVAILABLE, Reason.NONE, "", b"")
_UNASKED_ID: Final = (1 << 63) + 7
"""A correlation ID that no gateway has come to."""


def _draft_of_unasked(key: bytes) -> Draft:
    return draft(_UNASKED, key, _UNASKED_ID)


def _with_outcome(code: int) -> bytes:
    body = encode_record(_UNASKED)
    return body[: limits.PAYMENT_ID_SIZE] + bytes([code]) + body[limits.PAYMENT_ID_SIZE + 1 :]


_declare_refused(
    "magic", "Bytes that do not begin with PG", ErrorCode.BAD_MAGIC, lambda _: bytes(20), "5.3", "9", "PG-FRM-3"
)
_declare_refused(
    "version",
    "A header of version 2",
    ErrorCode.UNSUPPORTED_VERSION,
    lambda key: replace(_echo(key), version=2).header(),
    *("5.3", "9", "PG-FRM-3"),
)
_declare_refused(
    "unknown_kind",
    "An unknown kind",
    ErrorCode.UNKNOWN_KIND,
    lambda key: replace(_echo(key), kind=0x7F).header(),
    *("5.3", "9", "PG-FRM-3"),
)
_declare_refused(
    "unknown_flag",
    "An unknown flag",
    ErrorCode.UNKNOWN_FLAG,
    lambda key: replace(_echo(key), flags=3).header(),
    *("4.1", "9", "PG-FRM-1"),
)
_declare_refused(
    "too_small",
    "A body below its kind's size",
    ErrorCode.BODY_TOO_SMALL,
    lambda key: replace(_echo(key), body_size=7).header(),
    *("4.1", "9", "PG-FRM-4"),
)
_declare_refused(
    "too_large",
    "A body above its kind's size",
    ErrorCode.BODY_TOO_LARGE,
    lambda key: replace(_echo(key), body_size=limits.BODY_SIZE_MAX).header(),
    *("4.1", "9", "PG-FRM-4"),
)
_declare_refused(
    "no_mac",
    "A frame without a MAC",
    ErrorCode.NOT_AUTHENTICATED,
    lambda key: replace(_echo(key), flags=0).header(),
    *("4.4", "9", "PG-MAC-1", "PG-FRM-3"),
)
_declare_refused(
    "plain_error",
    "An Error without a MAC, now that the link is open,",
    ErrorCode.NOT_AUTHENTICATED,
    lambda _: draft(Error(ErrorCode.INTERNAL, closes=True, text=""), None, 0).encode(),
    *("4.4", "9", "PG-MAC-4"),
)
_declare_refused(
    "checksum",
    "A wrong checksum under a right MAC",
    ErrorCode.BAD_CHECKSUM,
    lambda key: replace(_echo(key), checksum=1).encode(),
    *("4.3", "9", "PG-FRM-5", "PG-FRM-9"),
)
_declare_refused(
    "mac",
    "A MAC with one bit wrong",
    ErrorCode.BAD_MAC,
    lambda key: flipped(_echo(key).encode(), -1),
    *("4.4", "9", "PG-MAC-2", "PG-FRM-5"),
)
_declare_refused(
    "value",
    "A result with an unknown outcome",
    ErrorCode.BAD_VALUE,
    lambda key: replace(_draft_of_unasked(key), body=_with_outcome(99)).encode(),
    *("3.3", "9", "PG-ENC-3"),
)
_declare_refused(
    "trailing",
    "A result with a byte after its last field",
    ErrorCode.TRAILING_BYTES,
    lambda key: replace(_draft_of_unasked(key), body=encode_record(_UNASKED) + b"\0").encode(),
    *("3.3", "9", "PG-ENC-4"),
)
_declare_refused(
    "hello",
    "A Hello",
    ErrorCode.UNEXPECTED_MESSAGE,
    _framed(Hello(Role.BANK, "BANK", (1,))),
    *("5.3", "9", "PG-LNK-12"),
)
_declare_refused(
    "second_ack",
    "A second HelloAck",
    ErrorCode.UNEXPECTED_MESSAGE,
    _framed(HelloAck(Role.BANK, "BANK", 1, limits.FRAME_SIZE_MAX)),
    *("5.3", "9", "PG-LNK-12"),
)
_declare_refused(
    "keys_query",
    "A BankKeysQuery, which goes the other way,",
    ErrorCode.UNEXPECTED_MESSAGE,
    _framed(BankKeysQuery("BANK")),
    *("5.2", "5.3", "9", "PG-LNK-10", "PG-LNK-12"),
)
_declare_refused(
    "clients_request",
    "A StatusQuery, which a client asks,",
    ErrorCode.UNEXPECTED_MESSAGE,
    _framed(StatusQuery(bytes([1] * 16), "T", "1")),
    *("5.2", "5.3", "9", "PG-LNK-10", "PG-LNK-12"),
)
_declare_refused(
    "unasked_result",
    "A result that nobody asked for",
    ErrorCode.UNKNOWN_CORRELATION,
    _framed(_UNASKED, _UNASKED_ID),
    *("5.2", "5.3", "9", "PG-LNK-9", "PG-LNK-12"),
)
_declare_refused(
    "unasked_keys",
    "A key list that nobody asked for",
    ErrorCode.UNKNOWN_CORRELATION,
    _framed(BankKeys(KeysStatus.UNAVAILABLE, b""), _UNASKED_ID),
    *("5.2", "5.3", "9", "PG-LNK-9", "PG-LNK-12"),
)
_declare_refused(
    "error_to_none",
    "An Error that does not close, to a request that nobody made,",
    ErrorCode.UNKNOWN_CORRELATION,
    _framed(Error(ErrorCode.TOO_MANY_REQUESTS, closes=False, text=""), _UNASKED_ID),
    *("5.3", "5.6", "9", "PG-ERR-5", "PG-LNK-12"),
)


@GATEWAY.case(
    "bank_link.refuses.another_reply",
    "A ResolveResult in answer to a TransferRequest gets UNEXPECTED_MESSAGE; the payment, in doubt, is resolved.",
    *("5.2", "5.3", "9", "PG-LNK-9", "PG-RES-4"),
    exclusive=True,
)
async def another_reply(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    wrong = ResolveResult(watched.payment.payment_id, TransferOutcome.UNAVAILABLE, Reason.NONE, "", b"")
    watched.desk.send(asked, wrong)
    await link.expect_refused(ErrorCode.UNEXPECTED_MESSAGE)
    await resolved_on_new_link(bank, link, watched)


@GATEWAY.case(
    "bank_link.refuses.reply_twice",
    "A result that is sent twice gets UNKNOWN_CORRELATION the second time; the first one counts.",
    *("5.2", "5.3", "9", "PG-LNK-7", "PG-LNK-9"),
    exclusive=True,
)
async def reply_twice(t: Trial) -> None:
    bank = played_bank(t)
    link = await bank.ready_link()
    watched = await begin(t)
    asked, _ = await watched.desk.next(TransferRequest)
    for _ in range(2):
        watched.desk.answer(asked, TransferOutcome.POSTED)
    await link.expect_refused(ErrorCode.UNKNOWN_CORRELATION)
    await expect_answer(watched, PaymentStatus.PAID)
    await bank.open_link_after(link.number)
