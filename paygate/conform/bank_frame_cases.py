"""Framing, kinds, sizes, checksum and MAC, against a bank (spec 4).

What must be refused from its header alone is sent without its body, so a bank that waits for one fails by silence.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Kind, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import FLAG_AUTHENTICATED, body_size_range, encode_record, frame_mac
from paygate.codec.messages import MESSAGES, BankKeys, BankKeysQuery, Echo, EchoReply, TransferRequest, TransferResult
from paygate.conform.bank_side import BANK, ask, connect_as, hello_of, open_link, open_till, unsealed_transfer
from paygate.conform.cases import Failed, require
from paygate.conform.craft import MAGIC_NUMBER, Draft, body_with, draft, encode_any, leaves_of
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire

_REQUESTS: Final = (Kind.ECHO, Kind.BANK_KEYS_QUERY, Kind.TRANSFER_REQUEST, Kind.RESOLVE_REQUEST)
_UNKNOWN_KINDS: Final = (0x00, 0x04, 0x13, 0x24, 0x50, 0x70, 0x7F, 0x80, 0x84, 0xA4, 0xF0, 0xFE)
_RESERVED_KINDS: Final = (0x22, 0x23, 0xA2, 0xA3)
_PIPE_KINDS: Final = (0x60, 0x61, 0x62, 0x6F, 0xE0, 0xE1, 0xE2, 0xEF)


async def _refused_headers(t: Trial, headers: Iterable[Draft], codes: ErrorCode | Iterable[ErrorCode]) -> None:
    for header in headers:
        wire = await open_link(t)
        wire.send_bytes(header.header())
        await wire.expect_error(codes)


def _echo(t: Trial) -> Draft:
    return draft(Echo(t.random_bytes(8)), t.world.gateway.link_key)


@BANK.case(
    "header.magic",
    "A frame that does not begin with PG gets BAD_MAGIC, from its header alone.",
    *("4.1", "9", "PG-FRM-3"),
)
async def header_magic(t: Trial) -> None:
    wrong = (0x0000, 0x5048, 0x4750, 0xFFFF)
    await _refused_headers(t, (replace(_echo(t), magic=magic) for magic in wrong), ErrorCode.BAD_MAGIC)


@BANK.case(
    "header.version",
    "A frame of another version than 1 gets UNSUPPORTED_VERSION, from its header alone.",
    *("4.1", "9", "PG-FRM-3"),
)
async def header_version(t: Trial) -> None:
    drafts = (replace(_echo(t), version=version) for version in (0, 2, 255))
    await _refused_headers(t, drafts, ErrorCode.UNSUPPORTED_VERSION)


@BANK.case(
    "header.unknown_kind",
    "A frame of an unknown kind gets UNKNOWN_KIND, from its header alone.",
    *("4.1", "4.2", "9", "PG-FRM-3"),
)
async def unknown_kind(t: Trial) -> None:
    await _refused_headers(t, (replace(_echo(t), kind=kind) for kind in _UNKNOWN_KINDS), ErrorCode.UNKNOWN_KIND)


@BANK.case(
    "header.reserved_kind",
    "Kinds reserved for refund and reconcile get UNKNOWN_KIND, from the header alone.",
    *("4.2", "PG-FRM-7"),
)
async def reserved_kind(t: Trial) -> None:
    await _refused_headers(t, (replace(_echo(t), kind=kind) for kind in _RESERVED_KINDS), ErrorCode.UNKNOWN_KIND)


@BANK.case(
    "header.pipe_kind",
    "Kinds of the pipes get UNEXPECTED_MESSAGE, or UNKNOWN_KIND where they are not known.",
    *("4.2", "A", "PG-FRM-8"),
)
async def pipe_kind(t: Trial) -> None:
    for kind in _PIPE_KINDS:
        size = body_size_range(Kind(kind))[0] if kind in set(Kind) else 8
        header = replace(_echo(t), kind=kind, body_size=size)
        await _refused_headers(t, [header], (ErrorCode.UNEXPECTED_MESSAGE, ErrorCode.UNKNOWN_KIND))


@BANK.case(
    "header.unknown_flag",
    "Each flag other than AUTHENTICATED gets UNKNOWN_FLAG, from the header alone.",
    *("4.1", "9", "PG-FRM-1", "PG-FRM-3"),
)
async def unknown_flag(t: Trial) -> None:
    drafts = (replace(_echo(t), flags=FLAG_AUTHENTICATED | 1 << bit) for bit in range(1, 16))
    await _refused_headers(t, drafts, ErrorCode.UNKNOWN_FLAG)


def _declare_sizes(kind: Kind) -> None:
    size_min, size_max = body_size_range(kind)
    name = MESSAGES[kind].__name__

    @BANK.case(
        f"size.{kind.name.lower()}_too_small",
        f"{name} with a body below {size_min} bytes gets BODY_TOO_SMALL, from its header alone.",
        *("4.1", "4.2", "9", "PG-FRM-3", "PG-FRM-4"),
    )
    async def too_small(t: Trial) -> None:
        drafts = (replace(_echo(t), kind=kind, body_size=size) for size in sorted({0, size_min - 1}))
        await _refused_headers(t, drafts, ErrorCode.BODY_TOO_SMALL)

    @BANK.case(
        f"size.{kind.name.lower()}_too_large",
        f"{name} with a body above {size_max} bytes gets BODY_TOO_LARGE, from its header alone.",
        *("4.1", "4.2", "9", "PG-FRM-3", "PG-FRM-4"),
    )
    async def too_large(t: Trial) -> None:
        drafts = (replace(_echo(t), kind=kind, body_size=size) for size in (size_max + 1, limits.BODY_SIZE_MAX))
        await _refused_headers(t, drafts, ErrorCode.BODY_TOO_LARGE)


for _kind in (*_REQUESTS, Kind.ERROR):
    _declare_sizes(_kind)


@BANK.case(
    "size.hello",
    "A Hello with too small or too large a body is refused from its header alone.",
    *("4.1", "5.1", "PG-FRM-3", "PG-FRM-4"),
)
async def size_hello(t: Trial) -> None:
    size_min, size_max = body_size_range(Kind.HELLO)
    for size, code in ((size_min - 1, ErrorCode.BODY_TOO_SMALL), (size_max + 1, ErrorCode.BODY_TOO_LARGE)):
        wire = await connect_as(t)
        wire.send_bytes(replace(draft(hello_of(t), wire.link_key), body_size=size).header())
        await wire.expect_error(code)


@BANK.case(
    "size.extremes",
    "Requests with the smallest and the largest fields are served.",
    *("3.2", "4.2", "PG-FRM-4", "PG-ENC-2", "PG-ENC-8"),
)
async def size_extremes(t: Trial) -> None:
    till = await open_till(t)
    for bank_id in ("X", "x" * limits.IDENTIFIER_SIZE_MAX, "9._-"):
        keys = await ask(till.wire, BankKeysQuery(bank_id), BankKeys)
        require(keys.status is KeysStatus.UNKNOWN_BANK, f"UNKNOWN_BANK for {bank_id}", keys)
    for size in (1, limits.ENVELOPE_SIZE_MAX):
        payment = replace(till.payment(transaction_id="T" * 32, merchant_id="m"), envelope=t.random_bytes(size))
        await till.decline(payment, Reason.TERMS)


@BANK.case(
    "header.no_mac",
    "A request without a MAC gets NOT_AUTHENTICATED, from its header alone.",
    *("4.4", "9", "PG-MAC-1", "PG-FRM-3"),
)
async def header_no_mac(t: Trial) -> None:
    drafts = (replace(_echo(t), kind=kind, body_size=body_size_range(kind)[1], flags=0) for kind in _REQUESTS)
    await _refused_headers(t, drafts, ErrorCode.NOT_AUTHENTICATED)


@BANK.case(
    "header.order_of_checks",
    "Of several faults in a header the first is told, in the order of the codes; the state comes last.",
    *("4.1", "9", "PG-FRM-3", "PG-ERR-7"),
)
async def header_order(t: Trial) -> None:
    mends: list[tuple[dict[str, Any], ErrorCode]] = [
        ({"magic": MAGIC_NUMBER}, ErrorCode.UNSUPPORTED_VERSION),
        ({"version": limits.PROTOCOL_VERSION}, ErrorCode.UNKNOWN_KIND),
        ({"kind": int(Kind.HELLO_ACK)}, ErrorCode.UNKNOWN_FLAG),
        ({"flags": 0}, ErrorCode.BODY_TOO_SMALL),
        ({"body_size": 40}, ErrorCode.BODY_TOO_LARGE),
        ({"body_size": 8}, ErrorCode.NOT_AUTHENTICATED),
        ({"flags": FLAG_AUTHENTICATED}, ErrorCode.UNEXPECTED_MESSAGE),
    ]
    wrong = Draft(0x7F, bytes(8), link_key=t.world.gateway.link_key, magic=0, version=9, flags=0x8000, body_size=7)
    await _refused_headers(t, [wrong], ErrorCode.BAD_MAGIC)
    for mend, code in mends:
        wrong = replace(wrong, **mend)
        await _refused_headers(t, [wrong], code)


@BANK.case(
    "frame.checksum", "A frame whose checksum does not match gets BAD_CHECKSUM.", *("4.3", "9", "PG-FRM-5", "PG-FRM-9")
)
async def frame_checksum(t: Trial) -> None:
    # Each bit of damage in another place: the checksum itself, the correlation ID, the body.
    for place in (limits.HEADER_SIZE - 1, limits.HEADER_SIZE - 4, 8, 15, limits.HEADER_SIZE, limits.HEADER_SIZE + 7):
        wire = await open_link(t)
        assert wire.link_key is not None
        good = _echo(t).encode()
        signed = _flipped(good[: -limits.MAC_SIZE], place)
        wire.send_bytes(signed + frame_mac(wire.link_key, signed))
        await wire.expect_error(ErrorCode.BAD_CHECKSUM)


@BANK.case(
    "frame.mac",
    "A MAC with any bit wrong, of another key, or over another header or body, gets BAD_MAC.",
    *("4.4", "9", "PG-MAC-1", "PG-MAC-2", "PG-FRM-5"),
)
async def frame_mac_wrong(t: Trial) -> None:
    good = _echo(t)
    mac = good.encode()[-limits.MAC_SIZE :]
    wrong = [replace(good, mac=_flipped(mac, place)) for place in range(limits.MAC_SIZE)]
    wrong += [replace(good, mac=bytes(16)), replace(good, mac=replace(good, link_key=bytes(32)).encode()[-16:])]
    # The checksum is right, the MAC is that of another correlation ID, and of another body.
    wrong += [replace(good, mac=mac, correlation_id=2), replace(good, mac=mac, body=bytes(8))]
    for frame in wrong:
        wire = await open_link(t)
        wire.send_draft(frame)
        await wire.expect_error(ErrorCode.BAD_MAC)


@BANK.case(
    "frame.order_of_checks",
    "Of several faults in a whole frame the first is told: checksum, MAC, body.",
    *("4.1", "9", "PG-FRM-5", "PG-ERR-7"),
)
async def frame_order(t: Trial) -> None:
    request = unsealed_transfer(t)
    field = dict(leaves_of(TransferRequest))["terms.amount_minor"]
    body = body_with(request, "terms.amount_minor", encode_any(field, 0))
    wrong = replace(draft(request, t.world.gateway.link_key), body=body, checksum=1, mac=bytes(16))
    for frame, code in (
        (wrong, ErrorCode.BAD_CHECKSUM),
        (replace(wrong, checksum=None), ErrorCode.BAD_MAC),
        (replace(wrong, checksum=None, mac=None), ErrorCode.BAD_VALUE),
    ):
        wire = await open_link(t)
        wire.send_draft(frame)
        await wire.expect_error(code)


@BANK.case("stream.split", "Frames that come byte by byte are served.", *("4.1", "PG-FRM-2"))
async def stream_split(t: Trial) -> None:
    wire = await connect_as(t)
    await _send_slowly(t, wire, draft(hello_of(t), wire.link_key).encode())
    await wire.receive()
    wire.is_open = True
    data = t.random_bytes(8)
    await _send_slowly(t, wire, draft(Echo(data), wire.link_key, 77).encode())
    reply = await wire.expect(EchoReply, 77)
    require(reply.echo_data == data, "the Echo's data", reply)


@BANK.case(
    "stream.glued", "Many frames in one segment, and one cut in the middle, are all served.", *("4.1", "PG-FRM-2")
)
async def stream_glued(t: Trial) -> None:
    wire = await open_link(t)
    assert wire.link_key is not None
    frames = b"".join(draft(Echo(n.to_bytes(8)), wire.link_key, n).encode() for n in range(1, 41))
    cut = len(frames) - 30
    wire.send_bytes(frames[:cut])
    await t.sleep(20)
    wire.send_bytes(frames[cut:])
    for _ in range(40):
        reply = await wire.receive()
        is_right = isinstance(reply.message, EchoReply)
        is_right = is_right and encode_record(reply.message) == reply.correlation_id.to_bytes(8)
        require(is_right, "an EchoReply with the data of its own Echo", reply)


@BANK.case(
    "stream.glued_transfers",
    "Transfers and resolves glued into one segment are each answered under their own correlation ID.",
    *("4.1", "7.2", "PG-FRM-2", "PG-LNK-8"),
)
async def stream_glued_transfers(t: Trial) -> None:
    till = await open_till(t)
    payments = [till.payment() for _ in range(8)]
    by_correlation = {till.wire.send(payment.transfer()): payment for payment in payments}
    for _ in payments:
        reply = await till.wire.receive()
        payment = by_correlation.pop(reply.correlation_id, None)
        if not isinstance(reply.message, TransferResult) or payment is None:
            raise Failed("a TransferResult for one of the requests that wait", reply)
        till.check(payment, reply.message)
        require(reply.message.outcome is TransferOutcome.POSTED, "POSTED", reply)


async def _send_slowly(t: Trial, wire: Wire, data: bytes) -> None:
    for i in range(len(data)):
        wire.send_bytes(data[i : i + 1])
        await t.sleep(0)


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
