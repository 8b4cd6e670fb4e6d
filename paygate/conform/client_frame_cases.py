"""Frames to a client: cut, glued, damaged, and never finished (spec 4, 9)."""

from collections.abc import Callable
from dataclasses import replace

from paygate.codec.codes import Kind, TokenStatus
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import body_size_range
from paygate.codec.messages import Echo, EchoReply, EncryptedCredentials, TokenAck, TokenQuery
from paygate.conform.cases import require
from paygate.conform.client_options import Said
from paygate.conform.client_plan import Answer
from paygate.conform.client_side import UNSENT, Desk, case, expect_refused
from paygate.conform.craft import Draft, body_with, draft, longer_than_body
from paygate.conform.wire import Reply


@case("frames.byte_by_byte", "Frames that come byte by byte are taken like whole ones.", *("4.1", "PG-FRM-2"))
async def byte_by_byte(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    while visit.sent is None:
        asked = await wire.receive(visit.patience_ms)
        visit.check(asked)
        for byte in visit.answer_to(asked):
            wire.send_bytes(bytes([byte]))
            await desk.t.sleep(0)
    await visit.end(Said.PAID)


@case(
    "frames.glued",
    "Frames that come in one segment are all taken: here each reply comes behind an Echo, which is answered too.",
    *("4.1", "5.4", "PG-FRM-2", "PG-LNK-16"),
)
async def glued(desk: Desk) -> None:
    visit = desk.visit()
    echoes: list[Echo] = []
    answered: list[Echo] = []

    def behind_echo(answer: Answer) -> Answer:
        def both(asked: Reply) -> bytes:
            echoes.append(Echo(desk.t.random_bytes(8)))
            return draft(echoes[-1], None, 1_000 + len(echoes)).encode() + answer(asked)

        return both

    def take(reply: Reply) -> bytes:
        assert isinstance(reply.message, EchoReply)
        answered.append(Echo(reply.message.echo_data))
        require(reply.correlation_id == 1_000 + len(answered), "the Echo's correlation ID in its reply", reply)
        return b""

    visit.on = {cls: behind_echo(answer) for cls, answer in visit.on.items()} | {EchoReply: take}
    visit.begin()
    wire = await visit.link()
    payment = await visit.until(wire, EncryptedCredentials)
    require(answered == echoes, f"EchoReplies to all Echoes before it: {echoes}", answered)
    wire.send_bytes(visit.answer_to(payment))
    await visit.end(Said.PAID)


# -- damage: the TokenAck is not what it should be -------------------------------------------------------

Damage = Callable[[Draft, TokenAck], bytes]


def _damaged(code: ErrorCode, what: str, *where: str) -> Callable[[Damage], None]:
    def declare(damage: Damage) -> None:
        @case(
            f"frames.{code.name.lower()}",
            f"A TokenAck {what} is refused with {code.name}, and nothing is sent.",
            *(*where, "9"),
        )
        async def story(desk: Desk) -> None:
            await refused_token_ack(desk, damage, code)

    return declare


async def refused_token_ack(desk: Desk, damage: Damage, *codes: ErrorCode) -> None:
    """A run in which something else comes in place of a TokenAck, and must be refused."""
    visit = desk.visit()
    visit.may_pay = False
    visit.on[TokenQuery] = lambda asked: damage(draft(visit.token, None, asked.correlation_id), visit.token)
    visit.begin()
    await visit.expect_refused(await visit.link(), *codes)
    await visit.end(*UNSENT)


@_damaged(ErrorCode.BAD_MAGIC, "with another magic", "4.1", "PG-FRM-3")
def _bad_magic(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, magic=0x5048).header()


@_damaged(ErrorCode.UNSUPPORTED_VERSION, "with version 2 in its header", "4.1", "PG-FRM-3")
def _unsupported_version(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, version=2).header()


@_damaged(ErrorCode.UNKNOWN_KIND, "under a reserved kind", "4.2", "PG-FRM-3", "PG-FRM-7")
def _unknown_kind(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, kind=0xA2).header()


@_damaged(ErrorCode.UNKNOWN_FLAG, "with a flag that is not known", "4.1", "PG-FRM-1", "PG-FRM-3")
def _unknown_flag(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, flags=0x0002).header()


@_damaged(ErrorCode.BODY_TOO_SMALL, "whose header says a body that is too small", "4.1", "PG-FRM-3", "PG-FRM-4")
def _body_too_small(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, body_size=body_size_range(Kind.TOKEN_ACK)[0] - 1).header()


@_damaged(ErrorCode.BODY_TOO_LARGE, "whose header says a body that is too large", "4.1", "PG-FRM-3", "PG-FRM-4")
def _body_too_large(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, body_size=body_size_range(Kind.TOKEN_ACK)[1] + 1).header()


@_damaged(ErrorCode.UNEXPECTED_MAC, "with a MAC", "4.4", "PG-MAC-3", "PG-FRM-3")
def _unexpected_mac(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, link_key=bytes(32)).header()


@_damaged(ErrorCode.BAD_CHECKSUM, "with another checksum", "4.3", "PG-FRM-5", "PG-FRM-9")
def _bad_checksum(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, checksum=0).encode()


@_damaged(ErrorCode.TRUNCATED_FIELD, "whose last field runs past the end of the body", "3.3", "PG-ENC-4")
def _truncated_field(frame: Draft, token: TokenAck) -> bytes:
    return replace(frame, body=longer_than_body(token)).encode()


@_damaged(ErrorCode.TRAILING_BYTES, "with a byte behind its last field", "3.3", "PG-ENC-4")
def _trailing_bytes(frame: Draft, _token: TokenAck) -> bytes:
    return replace(frame, body=frame.body + b"\0").encode()


@_damaged(ErrorCode.BAD_VALUE, "with a session of more than 30 seconds", "3.3", "PG-ENC-3")
def _bad_value(frame: Draft, token: TokenAck) -> bytes:
    return replace(frame, body=body_with(token, "session_left_ms", (30_001).to_bytes(4))).encode()


@case(
    "frames.broken_rule",
    "A TokenAck with VALID and a UTR breaks a rule between fields, and is refused with BAD_VALUE.",
    *("3.3", "6.2", "PG-ENC-5"),
)
async def broken_rule(desk: Desk) -> None:
    def damage(frame: Draft, token: TokenAck) -> bytes:
        utr = b"CONFP12026010100000001"
        return replace(frame, body=body_with(token, "utr", bytes([len(utr)]) + utr)).encode()

    await refused_token_ack(desk, damage, ErrorCode.BAD_VALUE)


@case(
    "frames.unknown_code",
    "A TokenAck whose status is not in the registry is refused with BAD_VALUE, though its other fields look paid for.",
    *("3.8", "3.3", "PG-ENC-3"),
)
async def unknown_code(desk: Desk) -> None:
    def damage(frame: Draft, token: TokenAck) -> bytes:
        return replace(frame, body=body_with(token, "status", bytes([max(TokenStatus) + 1]))).encode()

    await refused_token_ack(desk, damage, ErrorCode.BAD_VALUE)


@case(
    "frames.bad_text",
    "A merchant name that is not in normal form C, or turns the direction of writing, is refused with BAD_VALUE.",
    *("3.4", "PG-ENC-10"),
)
async def bad_text(desk: Desk) -> None:
    for name in ("Cafe\u0301", "\u202emoc.knab"):
        encoded = len(name.encode()).to_bytes(1) + name.encode()

        def damage(frame: Draft, token: TokenAck, encoded: bytes = encoded) -> bytes:
            return replace(frame, body=body_with(token, "merchant_name", encoded)).encode()

        await refused_token_ack(desk, damage, ErrorCode.BAD_VALUE)


@case(
    "frames.pipe_kind",
    "A kind of the pipes is refused with UNEXPECTED_MESSAGE or UNKNOWN_KIND.",
    *("4.2", "A", "PG-FRM-8"),
)
async def pipe_kind(desk: Desk) -> None:
    def damage(frame: Draft, _token: TokenAck) -> bytes:
        return replace(frame, kind=Kind.SEALED_CREDENTIALS).header()

    await refused_token_ack(desk, damage, ErrorCode.UNEXPECTED_MESSAGE, ErrorCode.UNKNOWN_KIND)


@case(
    "frames.dripping",
    "A frame that is not whole 10 s after its first byte fails the link with FRAME_TIMEOUT, however many bytes come; "
    "the client connects again and asks.",
    *("5.5", "PG-TIM-2", "PG-CLI-2"),
    waits_ms=10_000,
)
async def dripping(desk: Desk) -> None:
    visit = desk.visit()
    visit.begin()
    wire = await visit.link()
    payment = await visit.until(wire, EncryptedCredentials)
    frame = visit.answer_to(payment)
    began_ms = desk.t.now_ms
    for byte in frame:
        if wire.closed is not None or wire.has_frame or desk.t.now_ms - began_ms > 12_000:
            break
        wire.send_bytes(bytes([byte]))
        await desk.t.sleep(500)
    await expect_refused(wire, ErrorCode.FRAME_TIMEOUT)
    waited_ms = desk.t.now_ms - began_ms
    require(waited_ms > 8_000, "the client to wait for the rest, about 10 s", f"{waited_ms} ms")
    await visit.end(Said.PAID)
