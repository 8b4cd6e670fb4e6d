"""Framing, kinds, sizes and checksum, against any answering end (spec 4).

What must be refused from its header alone is sent without its body, so an end that waits for one fails by silence.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import FLAG_AUTHENTICATED, body_size_range, frame_mac
from paygate.codec.messages import MESSAGES, Echo, EchoReply, HelloAck, Message
from paygate.codec.record_codec import encode_record
from paygate.conform.answering import EVERY_END, AnsweringEnd
from paygate.conform.cases import require
from paygate.conform.craft import MAGIC_NUMBER, Draft, bad_encodings, body_with, draft, flipped, leaves_of
from paygate.conform.trial import Trial
from paygate.conform.wire import Wire

_UNKNOWN_KINDS: Final = (0x00, 0x04, 0x13, 0x24, 0x50, 0x70, 0x7F, 0x80, 0x84, 0xA4, 0xF0, 0xFE)
_RESERVED_KINDS: Final = (0x22, 0x23, 0xA2, 0xA3)
_PIPE_KINDS: Final = (0x60, 0x61, 0x62, 0x6F, 0xE0, 0xE1, 0xE2, 0xEF)


async def refused_headers(
    t: Trial, end: AnsweringEnd, headers: Iterable[Draft], codes: ErrorCode | Iterable[ErrorCode]
) -> None:
    """Send each header alone on a link of its own, and have it refused."""
    for header in headers:
        wire = await end.open_link(t)
        wire.send_bytes(header.header())
        await wire.expect_error(codes)


def echo_draft(t: Trial, end: AnsweringEnd) -> Draft:
    """A valid Echo, to be altered."""
    return draft(Echo(t.random_bytes(8)), end.key(t))


@EVERY_END.case(
    "header.magic",
    "A frame that does not begin with PG gets BAD_MAGIC, from its header alone.",
    *("4.1", "9", "PG-FRM-3"),
)
async def header_magic(t: Trial, end: AnsweringEnd) -> None:
    wrong = (0x0000, 0x5048, 0x4750, 0xFFFF)
    await refused_headers(t, end, (replace(echo_draft(t, end), magic=magic) for magic in wrong), ErrorCode.BAD_MAGIC)


@EVERY_END.case(
    "header.version",
    "A frame of another version than 1 gets UNSUPPORTED_VERSION, from its header alone.",
    *("4.1", "9", "PG-FRM-3"),
)
async def header_version(t: Trial, end: AnsweringEnd) -> None:
    drafts = (replace(echo_draft(t, end), version=version) for version in (0, 2, 255))
    await refused_headers(t, end, drafts, ErrorCode.UNSUPPORTED_VERSION)


@EVERY_END.case(
    "header.unknown_kind",
    "A frame of an unknown kind gets UNKNOWN_KIND, from its header alone.",
    *("4.1", "4.2", "9", "PG-FRM-3"),
)
async def unknown_kind(t: Trial, end: AnsweringEnd) -> None:
    await refused_headers(
        t, end, (replace(echo_draft(t, end), kind=kind) for kind in _UNKNOWN_KINDS), ErrorCode.UNKNOWN_KIND
    )


@EVERY_END.case(
    "header.reserved_kind",
    "Kinds reserved for refund and reconcile get UNKNOWN_KIND, from the header alone.",
    *("4.2", "PG-FRM-7"),
)
async def reserved_kind(t: Trial, end: AnsweringEnd) -> None:
    await refused_headers(
        t, end, (replace(echo_draft(t, end), kind=kind) for kind in _RESERVED_KINDS), ErrorCode.UNKNOWN_KIND
    )


@EVERY_END.case(
    "header.pipe_kind",
    "Kinds of the pipes get UNEXPECTED_MESSAGE, or UNKNOWN_KIND where they are not known.",
    *("4.2", "A", "PG-FRM-8"),
)
async def pipe_kind(t: Trial, end: AnsweringEnd) -> None:
    for kind in _PIPE_KINDS:
        size = body_size_range(Kind(kind))[0] if kind in set(Kind) else 8
        header = replace(echo_draft(t, end), kind=kind, body_size=size)
        await refused_headers(t, end, [header], (ErrorCode.UNEXPECTED_MESSAGE, ErrorCode.UNKNOWN_KIND))


@EVERY_END.case(
    "header.unknown_flag",
    "Each flag other than AUTHENTICATED gets UNKNOWN_FLAG, from the header alone.",
    *("4.1", "9", "PG-FRM-1", "PG-FRM-3"),
)
async def unknown_flag(t: Trial, end: AnsweringEnd) -> None:
    drafts = (replace(echo_draft(t, end), flags=FLAG_AUTHENTICATED | 1 << bit) for bit in range(1, 16))
    await refused_headers(t, end, drafts, ErrorCode.UNKNOWN_FLAG)


def _declare_sizes(end: AnsweringEnd, kind: Kind) -> None:
    size_min, size_max = body_size_range(kind)
    name = MESSAGES[kind].__name__

    @end.catalogue.case(
        f"size.{kind.name.lower()}_too_small",
        f"{name} with a body below {size_min} bytes gets BODY_TOO_SMALL, from its header alone.",
        *("4.1", "4.2", "9", "PG-FRM-3", "PG-FRM-4"),
    )
    async def too_small(t: Trial) -> None:
        drafts = (replace(echo_draft(t, end), kind=kind, body_size=size) for size in sorted({0, size_min - 1}))
        await refused_headers(t, end, drafts, ErrorCode.BODY_TOO_SMALL)

    @end.catalogue.case(
        f"size.{kind.name.lower()}_too_large",
        f"{name} with a body above {size_max} bytes gets BODY_TOO_LARGE, from its header alone.",
        *("4.1", "4.2", "9", "PG-FRM-3", "PG-FRM-4"),
    )
    async def too_large(t: Trial) -> None:
        drafts = (
            replace(echo_draft(t, end), kind=kind, body_size=size) for size in (size_max + 1, limits.BODY_SIZE_MAX)
        )
        await refused_headers(t, end, drafts, ErrorCode.BODY_TOO_LARGE)


@EVERY_END.for_each
def declare_sizes(end: AnsweringEnd) -> None:
    """Two cases for each kind that may come on an open link."""
    for kind in (*end.request_kinds, Kind.ERROR):
        _declare_sizes(end, kind)


@EVERY_END.case(
    "size.hello",
    "A Hello with too small or too large a body is refused from its header alone.",
    *("4.1", "5.1", "PG-FRM-3", "PG-FRM-4"),
)
async def size_hello(t: Trial, end: AnsweringEnd) -> None:
    size_min, size_max = body_size_range(Kind.HELLO)
    for size, code in ((size_min - 1, ErrorCode.BODY_TOO_SMALL), (size_max + 1, ErrorCode.BODY_TOO_LARGE)):
        wire = await end.connect(t, "")
        wire.send_bytes(replace(draft(end.hello(t), wire.link_key), body_size=size).header())
        await wire.expect_error(code)


@EVERY_END.case(
    "header.order_of_checks",
    "Of several faults in a header the first is told, in the order of the codes; the state comes last.",
    *("4.1", "9", "PG-FRM-3", "PG-ERR-7"),
)
async def header_order(t: Trial, end: AnsweringEnd) -> None:
    right, wrong_mac = (FLAG_AUTHENTICATED, 0) if end.has_mac else (0, FLAG_AUTHENTICATED)
    mends: list[tuple[dict[str, Any], ErrorCode]] = [
        ({"magic": MAGIC_NUMBER}, ErrorCode.UNSUPPORTED_VERSION),
        ({"version": limits.PROTOCOL_VERSION}, ErrorCode.UNKNOWN_KIND),
        ({"kind": int(Kind.HELLO_ACK)}, ErrorCode.UNKNOWN_FLAG),
        ({"flags": wrong_mac}, ErrorCode.BODY_TOO_SMALL),
        ({"body_size": 40}, ErrorCode.BODY_TOO_LARGE),
        ({"body_size": 8}, ErrorCode.NOT_AUTHENTICATED if end.has_mac else ErrorCode.UNEXPECTED_MAC),
        ({"flags": right}, ErrorCode.UNEXPECTED_MESSAGE),
    ]
    wrong = Draft(0x7F, bytes(8), link_key=end.key(t), magic=0, version=9, flags=0x8000, body_size=7)
    await refused_headers(t, end, [wrong], ErrorCode.BAD_MAGIC)
    for mend, code in mends:
        wrong = replace(wrong, **mend)
        await refused_headers(t, end, [wrong], code)


@EVERY_END.case(
    "frame.checksum", "A frame whose checksum does not match gets BAD_CHECKSUM.", *("4.3", "9", "PG-FRM-5", "PG-FRM-9")
)
async def frame_checksum(t: Trial, end: AnsweringEnd) -> None:
    # Each bit of damage in another place: the checksum itself, the correlation ID, the body.
    for place in (limits.HEADER_SIZE - 1, limits.HEADER_SIZE - 4, 8, 15, limits.HEADER_SIZE, limits.HEADER_SIZE + 7):
        wire = await end.open_link(t)
        good = echo_draft(t, end).encode()
        signed = flipped(good[: limits.HEADER_SIZE + limits.ECHO_DATA_SIZE], place)
        wire.send_bytes(signed + (frame_mac(wire.link_key, signed) if wire.link_key else b""))
        await wire.expect_error(ErrorCode.BAD_CHECKSUM)


@EVERY_END.case(
    "frame.order_of_checks",
    "Of several faults in a whole frame the first is told: checksum, MAC, body.",
    *("4.1", "9", "PG-FRM-5", "PG-ERR-7"),
)
async def frame_order(t: Trial, end: AnsweringEnd) -> None:
    request = next(iter(end.requests.values()))(t)
    path, encoded = _first_bad_encoding(request)
    wrong = replace(draft(request, end.key(t)), body=body_with(request, path, encoded), checksum=1)
    steps = [(wrong, ErrorCode.BAD_CHECKSUM), (replace(wrong, checksum=None), ErrorCode.BAD_VALUE)]
    if end.has_mac:
        bad_mac = bytes(limits.MAC_SIZE)
        steps += [
            (replace(wrong, mac=bad_mac), ErrorCode.BAD_CHECKSUM),
            (replace(wrong, checksum=None, mac=bad_mac), ErrorCode.BAD_MAC),
        ]
    for frame, code in steps:
        wire = await end.open_link(t)
        wire.send_draft(frame)
        await wire.expect_error(code)


@EVERY_END.case(
    "body.first_fault",
    "Of several faults in a body the first field's is told: a truncated last field does not hide a bad value.",
    *("3.3", "PG-ENC-7"),
)
async def first_fault(t: Trial, end: AnsweringEnd) -> None:
    request = next(iter(end.requests.values()))(t)
    path, encoded = _first_bad_encoding(request)
    wire = await end.open_link(t)
    wire.send_draft(replace(draft(request, wire.link_key), body=body_with(request, path, encoded)[:-1]))
    await wire.expect_error(ErrorCode.BAD_VALUE)


def _first_bad_encoding(request: Message) -> tuple[str, bytes]:
    path, field = next(leaves_of(type(request)))
    return path, bad_encodings(field)[0][1]


@EVERY_END.case("stream.split", "Frames whose header comes byte by byte are served.", *("4.1", "PG-FRM-2"))
async def stream_split(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.connect(t, "")
    await _send_slowly(t, wire, draft(end.hello(t), wire.link_key).encode())
    await wire.expect(HelloAck)
    wire.is_open = True
    data = t.random_bytes(8)
    await _send_slowly(t, wire, draft(Echo(data), wire.link_key, 77).encode())
    reply = await wire.expect(EchoReply, 77)
    require(reply.echo_data == data, "the Echo's data", reply)


@EVERY_END.case(
    "stream.glued", "Many frames in one segment, and one cut in the middle, are all served.", *("4.1", "PG-FRM-2")
)
async def stream_glued(t: Trial, end: AnsweringEnd) -> None:
    wire = await end.open_link(t)
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


async def _send_slowly(t: Trial, wire: Wire, data: bytes) -> None:
    # The header and a bit more, byte by byte, and the rest in one: a Hello must be there within 5 s (spec 5.5).
    single_count = limits.HEADER_SIZE + 3
    for i in range(single_count):
        wire.send_bytes(data[i : i + 1])
        await t.sleep(0)
    wire.send_bytes(data[single_count:])
