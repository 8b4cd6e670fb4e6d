"""Two ends of one link without sockets, for tests of links: `BANK_LINK.opened()` gives both, `transfer` joins them."""

import hmac
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, build_token_ack, example

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.frame import Frame, encode_frame
from paygate.codec.messages import Error, Message
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed

NOW_MS = 1_000_000
OTHER_KEY = b"another key of thirty-two bytes!"
TOKEN_QUERY = example(Kind.TOKEN_QUERY)
TRANSFER_REQUEST = example(Kind.TRANSFER_REQUEST)


def client_end() -> Link:
    return Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=NOW_MS)


def gateway_end() -> Link:
    return Link(Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=NOW_MS)


def gateway_end_to_bank(link_key: bytes = LINK_KEY, gateway_id: str = GATEWAY_ID) -> Link:
    return Link(Role.GATEWAY, gateway_id, Role.BANK, is_caller=True, now_ms=NOW_MS, link_key=link_key)


def bank_end() -> Link:
    keys = {GATEWAY_ID: LINK_KEY, "GW2": OTHER_KEY}
    return Link(Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=NOW_MS, key_of=keys.get)


@dataclass(frozen=True)
class Pairing:
    """A calling and an answering end, and the key under which their frames go."""

    name: str
    make_caller: Callable[[], Link]
    make_answerer: Callable[[], Link]
    link_key: bytes | None
    request: Message
    reply: Message

    def opened(self) -> tuple[Link, Link]:
        caller, answerer = self.make_caller(), self.make_answerer()
        transfer(caller, answerer)
        assert caller.is_open
        assert answerer.is_open
        return caller, answerer

    def frame(self, message: Message, correlation_id: int = 1) -> bytes:
        return encode_frame(message, correlation_id, self.link_key)


CLIENT_LINK = Pairing("client link", client_end, gateway_end, None, TOKEN_QUERY, build_token_ack())
BANK_LINK = Pairing(
    "bank link", gateway_end_to_bank, bank_end, LINK_KEY, TRANSFER_REQUEST, example(Kind.TRANSFER_RESULT)
)
each_pairing = pytest.mark.parametrize("pairing", [CLIENT_LINK, BANK_LINK], ids=lambda p: p.name)


def transfer(one: Link, other: Link, now_ms: int = NOW_MS) -> tuple[list[LinkEvent], list[LinkEvent]]:
    """Carry bytes both ways until neither end has more to say; what each end was told."""
    told: tuple[list[LinkEvent], list[LinkEvent]] = ([], [])
    while True:
        to_other, to_one = one.data_to_send(), other.data_to_send()
        if not to_other and not to_one:
            return told
        told[1].extend(other.receive_data(to_other, now_ms))
        told[0].extend(one.receive_data(to_one, now_ms))


def frames_in(data: bytes) -> list[Frame]:
    buffer = FrameBuffer()
    buffer.receive_data(data)
    found = []
    while (frame := buffer.next_frame()) is not None:
        found.append(frame)
    buffer.receive_eof()
    return found


def messages_in(data: bytes) -> list[Message]:
    return [frame.message() for frame in frames_in(data)]


def raw_frame(kind: int, body: bytes, correlation_id: int, link_key: bytes | None, version: int = 1) -> bytes:
    """A frame by `struct`, not by the code under test, whose body may be anything."""
    head = struct.pack(">2sBBHHQ", b"PG", version, kind, bool(link_key), len(body), correlation_id)
    signed = head + zlib.crc32(head + body).to_bytes(4) + body
    return signed + (hmac.digest(link_key, signed, "sha256")[:16] if link_key else b"")


def assert_failed(link: Link, events: list[LinkEvent], code: ErrorCode) -> None:
    """One LinkFailed, one closing Error on its way, and a closed link."""
    assert [type(event) for event in events] == [LinkFailed]
    failed = events[0]
    assert isinstance(failed, LinkFailed)
    assert failed.error.code is code
    assert link.is_closed
    said = frames_in(link.data_to_send())[-1]
    assert said.message() == Error(code=code, closes=True, text=failed.error.text[: limits.ERROR_TEXT_SIZE_MAX])
    assert said.correlation_id == 0
    assert link.next_deadline_ms() is None
