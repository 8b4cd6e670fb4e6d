"""One link between two ends without sockets: what each says, refuses, and does when time passes (spec 5)."""

import hmac
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, build_token_ack, example, with_changes
from hypothesis import given
from hypothesis import strategies as st

from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind, Role, Route
from paygate.codec.errors import ErrorCode, LocalProtocolError
from paygate.codec.frame import Frame, body_size_range, encode_frame, encode_record
from paygate.codec.messages import MESSAGES, Echo, EchoReply, Error, Hello, HelloAck, Message
from paygate.link import (
    ECHO_AFTER_MS,
    ECHO_TIMEOUT_MS,
    FRAME_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    REQUEST_COUNT_MAX,
    TRANSITIONS,
    TURN_FRAME_COUNT_MAX,
    Link,
    LinkEvent,
    LinkFailed,
    LinkInput,
    LinkState,
    Opened,
    PeerClosed,
    ReplyReceived,
    RequestReceived,
)

NOW_MS = 1_000_000
OTHER_KEY = b"another key of thirty-two bytes!"
TOKEN_QUERY = example(Kind.TOKEN_QUERY)
TRANSFER_REQUEST = example(Kind.TRANSFER_REQUEST)


# -- two ends --------------------------------------------------------------------------------------------


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


# -- hello -----------------------------------------------------------------------------------------------


@each_pairing
def test_hello_opens_both_ends(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()
    assert (caller.state, answerer.state) == (LinkState.WAIT_HELLO_ACK, LinkState.WAIT_HELLO)
    caller_told, answerer_told = transfer(caller, answerer)
    assert caller_told == [Opened(answerer.role, answerer.party_id)]
    assert answerer_told == [Opened(caller.role, caller.party_id)]
    assert (caller.peer_id, answerer.peer_id) == (answerer.party_id, caller.party_id)


@pytest.mark.pg("PG-LNK-1", "PG-MAC-1", "PG-MAC-3")
@each_pairing
def test_every_frame_of_a_bank_link_has_a_mac_and_none_of_a_clients(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()
    hello = caller.data_to_send()
    assert hello == pairing.frame(Hello(role=caller.role, party_id=caller.party_id, versions=(1,)))
    answerer.receive_data(hello, NOW_MS)
    ack = HelloAck(role=answerer.role, party_id=answerer.party_id, version=1, frame_size_max=limits.FRAME_SIZE_MAX)
    assert answerer.data_to_send() == pairing.frame(ack)


@pytest.mark.pg("PG-LNK-1")
def test_nothing_is_sent_before_the_link_is_open() -> None:
    for link in (client_end(), gateway_end()):
        before = link.data_to_send()
        with pytest.raises(LocalProtocolError, match="on a link that is"):
            link.send_request(TOKEN_QUERY)
        with pytest.raises(LocalProtocolError):
            link.send_reply(1, build_token_ack())
        assert link.data_to_send() == b""
        assert bool(before) is link.is_caller


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.BANK])
def test_a_hello_of_another_role_is_refused(role: Role) -> None:
    link = gateway_end()
    events = link.receive_data(encode_frame(Hello(role=role, party_id="x", versions=(1,)), 1), NOW_MS)
    assert_failed(link, events, ErrorCode.BAD_VALUE)


@pytest.mark.pg("PG-LNK-5")
def test_a_hello_ack_of_another_role_or_version_is_refused() -> None:
    for changes, code in (
        ({"role": Role.BANK}, ErrorCode.BAD_VALUE),
        ({"version": 2}, ErrorCode.NO_COMMON_VERSION),
    ):
        ack = HelloAck(role=Role.GATEWAY, party_id=GATEWAY_ID, version=1, frame_size_max=1_000)
        link = client_end()
        link.data_to_send()
        assert_failed(link, link.receive_data(encode_frame(replace(ack, **changes), 1), NOW_MS), code)


@pytest.mark.pg("PG-LNK-2", "PG-LNK-4", "PG-VER-2")
def test_versions_are_negotiated() -> None:
    for versions in ((1,), (9, 1), (1, 9), (255, 1, 9, 1, 9, 2)):
        link = gateway_end()
        events = link.receive_data(encode_frame(Hello(Role.CLIENT, "c", versions), 1), NOW_MS)
        assert events == [Opened(Role.CLIENT, "c")]
        (ack,) = messages_in(link.data_to_send())
        assert isinstance(ack, HelloAck)
        assert ack.version == 1
    link = gateway_end()
    events = link.receive_data(encode_frame(Hello(Role.CLIENT, "c", (2, 9)), 1), NOW_MS)
    assert_failed(link, events, ErrorCode.NO_COMMON_VERSION)


@pytest.mark.pg("PG-LNK-3")
@each_pairing
def test_hello_and_its_answer_have_version_1_in_their_headers(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()
    hello = caller.data_to_send()
    answerer.receive_data(hello, NOW_MS)
    assert (hello[2], answerer.data_to_send()[2]) == (1, 1)
    newer = raw_frame(Kind.HELLO, b"\x01\x01c\x02\x02\x01", 1, pairing.link_key, version=2)
    answerer = pairing.make_answerer()
    assert_failed(answerer, answerer.receive_data(newer, NOW_MS), ErrorCode.UNSUPPORTED_VERSION)


@pytest.mark.pg("PG-ENC-8", "PG-LNK-2")
@pytest.mark.parametrize(
    ("party_id", "link_key", "role", "version", "code"),
    [
        ("GW9", b"w" * 32, Role.CLIENT, 2, ErrorCode.UNKNOWN_PARTY),
        ("gw1", LINK_KEY, Role.GATEWAY, 1, ErrorCode.UNKNOWN_PARTY),  # identifiers are compared byte by byte
        (GATEWAY_ID, b"w" * 32, Role.CLIENT, 2, ErrorCode.BAD_MAC),
        (GATEWAY_ID, LINK_KEY, Role.CLIENT, 2, ErrorCode.BAD_VALUE),
        (GATEWAY_ID, LINK_KEY, Role.GATEWAY, 2, ErrorCode.NO_COMMON_VERSION),
    ],
)
def test_a_bank_checks_party_mac_role_and_version_of_hello_in_this_order(
    party_id: str, link_key: bytes, role: Role, version: int, code: ErrorCode
) -> None:
    bank = bank_end()
    hello = encode_frame(Hello(role=role, party_id=party_id, versions=(version,)), 1, link_key)
    assert_failed(bank, bank.receive_data(hello, NOW_MS), code)


# -- the order of checks (spec 4.1) ----------------------------------------------------------------------


@pytest.mark.pg("PG-ERR-7", "PG-FRM-3")
@each_pairing
def test_a_header_is_checked_in_the_order_of_the_spec_before_a_byte_of_its_body(pairing: Pairing) -> None:
    has_mac = pairing.link_key is not None
    stray = Kind.TOKEN_QUERY if has_mac else Kind.TRANSFER_REQUEST
    size_min, size_max = body_size_range(stray)
    good = {
        "magic": b"PG",
        "version": 1,
        "kind": int(pairing.request.kind),
        "flags": int(has_mac),
        "body_size": body_size_range(pairing.request.kind)[0],
    }
    for bad_size, size_code in (
        (size_min - 1, ErrorCode.BODY_TOO_SMALL),
        (size_max + 1, ErrorCode.BODY_TOO_LARGE),
    ):
        faults: list[tuple[ErrorCode, dict[str, Any]]] = [
            (ErrorCode.BAD_MAGIC, {"magic": b"GP"}),
            (ErrorCode.UNSUPPORTED_VERSION, {"version": 2}),
            (ErrorCode.UNKNOWN_KIND, {"kind": 0x22}),
            (ErrorCode.UNKNOWN_FLAG, {"flags": 0x8000 | (not has_mac)}),
            (size_code, {"body_size": bad_size}),
            (ErrorCode.NOT_AUTHENTICATED if has_mac else ErrorCode.UNEXPECTED_MAC, {"flags": int(not has_mac)}),
            (ErrorCode.UNEXPECTED_MESSAGE, {"kind": int(stray), "body_size": size_min}),
        ]
        header = dict(good)
        for code, fault in reversed(faults):
            header |= fault
            data = struct.pack(">2sBBHHQI", *header.values(), 9, 0)
            _, answerer = pairing.opened()
            assert answerer.receive_data(data[:19], NOW_MS) == []
            assert_failed(answerer, answerer.receive_data(data[19:], NOW_MS), code)


@pytest.mark.pg("PG-ERR-7", "PG-FRM-5")
def test_a_whole_frame_is_checked_by_checksum_then_mac_and_then_decoded() -> None:
    body = encode_record(TRANSFER_REQUEST).replace((125_000).to_bytes(8), bytes(8))  # no amount
    good = raw_frame(Kind.TRANSFER_REQUEST, body, 9, LINK_KEY)
    bad_mac = raw_frame(Kind.TRANSFER_REQUEST, body, 9, OTHER_KEY)
    bad_checksum = bad_mac[:19] + bytes([bad_mac[19] ^ 1]) + bad_mac[20:]
    for frame, code in (
        (bad_checksum, ErrorCode.BAD_CHECKSUM),
        (bad_mac, ErrorCode.BAD_MAC),
        (good, ErrorCode.BAD_VALUE),
    ):
        _, bank = BANK_LINK.opened()
        assert bank.receive_data(frame[:-1], NOW_MS) == []
        assert_failed(bank, bank.receive_data(frame[-1:], NOW_MS), code)


@pytest.mark.pg("PG-FRM-8")
@pytest.mark.parametrize("kind_code", [*range(0x60, 0x70), *range(0xE0, 0xF0)])
@each_pairing
def test_a_kind_of_the_pipes_is_refused_on_every_socket(pairing: Pairing, kind_code: int) -> None:
    is_known = kind_code in set(Kind)
    size = body_size_range(Kind(kind_code))[0] if is_known else 8
    header = struct.pack(">2sBBHHQI", b"PG", 1, kind_code, bool(pairing.link_key), size, 1, 0)
    code = ErrorCode.UNEXPECTED_MESSAGE if is_known else ErrorCode.UNKNOWN_KIND
    for link in (pairing.make_caller(), pairing.make_answerer(), *pairing.opened()):
        link.data_to_send()
        assert_failed(link, link.receive_data(header, NOW_MS), code)


# -- who may speak on the bank link (T13, T14) -----------------------------------------------------------


@pytest.mark.pg("PG-MAC-1")
def test_a_strangers_frame_is_refused_from_its_header_alone() -> None:
    asked: list[str] = []

    def key_of(gateway_id: str) -> bytes | None:
        asked.append(gateway_id)
        return None

    link = Link(Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=NOW_MS, key_of=key_of)
    hello = encode_frame(Hello(role=Role.GATEWAY, party_id=GATEWAY_ID, versions=(1,)), 1)
    assert link.receive_data(hello[:19], NOW_MS) == []
    events = link.receive_data(hello[19:20], NOW_MS)
    assert_failed(link, events, ErrorCode.NOT_AUTHENTICATED)
    assert asked == []  # T13: before any cryptography, before any look at who it claims to be


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_whatever_comes_first_without_a_mac_is_refused(kind: Kind) -> None:
    link = bank_end()
    events = link.receive_data(encode_frame(example(kind), 1)[:20], NOW_MS)
    assert_failed(link, events, ErrorCode.NOT_AUTHENTICATED)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_whatever_comes_first_under_a_made_up_mac_closes_the_link(kind: Kind) -> None:
    # A stranger can set the flag and append any 16 bytes; only a Hello says whose key to check them with.
    link = bank_end()
    events = link.receive_data(encode_frame(example(kind), 1, OTHER_KEY), NOW_MS)
    code = {Kind.HELLO: ErrorCode.BAD_MAC, Kind.ERROR: ErrorCode.BAD_MAC}.get(kind, ErrorCode.UNEXPECTED_MESSAGE)
    assert_failed(link, events, code)


@pytest.mark.pg("PG-MAC-4")
def test_an_unknown_gateway_is_refused_without_a_mac() -> None:
    gateway, bank = gateway_end_to_bank(gateway_id="GW9"), bank_end()
    told = transfer(gateway, bank)
    assert [type(event) for event in told[1]] == [LinkFailed]
    assert told[0] == [
        PeerClosed(
            "peer says: unknown_party: unknown party at party_id: expected a gateway that this bank knows",
            ErrorCode.UNKNOWN_PARTY,
        )
    ]
    assert gateway.is_closed
    assert bank.is_closed


@pytest.mark.pg("PG-MAC-4")
def test_a_gateway_with_another_key_hears_why() -> None:
    gateway, bank = gateway_end_to_bank(link_key=b"w" * 32), bank_end()
    told = transfer(gateway, bank)
    assert [type(event) for event in told[1]] == [LinkFailed]
    assert told[0] == [PeerClosed("peer says: bad_mac: bad mac", ErrorCode.BAD_MAC)]


def test_one_gateway_can_not_speak_for_another() -> None:
    # T14: GW2's own key proves GW2 and nobody else.
    gateway, bank = gateway_end_to_bank(link_key=OTHER_KEY), bank_end()
    assert [type(event) for event in transfer(gateway, bank)[1]] == [LinkFailed]
    gateway, bank = gateway_end_to_bank(link_key=OTHER_KEY, gateway_id="GW2"), bank_end()
    assert transfer(gateway, bank)[1] == [Opened(Role.GATEWAY, "GW2")]


@pytest.mark.pg("PG-MAC-2")
def test_every_flipped_bit_of_a_mac_is_refused() -> None:
    frame = bytearray(BANK_LINK.frame(TRANSFER_REQUEST, 9))
    for bit in range(8 * (len(frame) - limits.MAC_SIZE), 8 * len(frame)):
        _, bank = BANK_LINK.opened()
        frame[bit // 8] ^= 1 << bit % 8
        assert_failed(bank, bank.receive_data(frame, NOW_MS), ErrorCode.BAD_MAC)
        frame[bit // 8] ^= 1 << bit % 8


@pytest.mark.pg("PG-MAC-3")
def test_a_mac_where_none_belongs_is_refused() -> None:
    for link in CLIENT_LINK.opened():
        events = link.receive_data(encode_frame(Echo(b"echoecho"), 9, LINK_KEY)[:20], NOW_MS)
        assert_failed(link, events, ErrorCode.UNEXPECTED_MAC)


@pytest.mark.pg("PG-MAC-1", "PG-MAC-4")
@pytest.mark.parametrize("message", [Echo(b"echoecho"), TRANSFER_REQUEST, example(Kind.ERROR)], ids=repr)
def test_on_an_open_bank_link_nothing_goes_without_a_mac(message: Message) -> None:
    for link in BANK_LINK.opened():
        events = link.receive_data(encode_frame(message, 9)[:20], NOW_MS)
        assert_failed(link, events, ErrorCode.NOT_AUTHENTICATED)


def test_a_calling_end_does_not_open_on_an_ack_without_a_mac() -> None:
    gateway = gateway_end_to_bank()
    gateway.data_to_send()
    ack = HelloAck(role=Role.BANK, party_id=BANK_ID, version=1, frame_size_max=1_000)
    assert_failed(gateway, gateway.receive_data(encode_frame(ack, 1)[:20], NOW_MS), ErrorCode.NOT_AUTHENTICATED)
    gateway = gateway_end_to_bank()
    gateway.data_to_send()
    assert_failed(gateway, gateway.receive_data(encode_frame(ack, 1, OTHER_KEY), NOW_MS), ErrorCode.BAD_MAC)


def test_keys_belong_to_one_end_each() -> None:
    # An answering end with one fixed key would take a Hello without checking it.
    with pytest.raises(AssertionError):
        Link(Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=NOW_MS, link_key=LINK_KEY)
    with pytest.raises(AssertionError):
        Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=NOW_MS, key_of=lambda _: LINK_KEY)


# -- requests and replies --------------------------------------------------------------------------------


@pytest.mark.pg("PG-LNK-7")
@each_pairing
def test_a_request_is_answered(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    assert transfer(caller, answerer)[1] == [RequestReceived(correlation_id, pairing.request)]
    assert answerer.waiting_count == 1
    answerer.send_reply(correlation_id, pairing.reply)
    assert transfer(caller, answerer)[0] == [ReplyReceived(correlation_id, pairing.reply)]
    assert answerer.waiting_count == 0


@pytest.mark.pg("PG-LNK-6", "PG-LNK-8")
@each_pairing
def test_replies_may_overtake_each_other(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    asked = [caller.send_request(pairing.request) for _ in range(5)]
    assert len(set(asked)) == 5
    transfer(caller, answerer)
    order = [asked[i] for i in (3, 0, 4, 2, 1)]
    for correlation_id in order:
        answerer.send_reply(correlation_id, pairing.reply)
    told = transfer(caller, answerer)[0]
    assert told == [ReplyReceived(correlation_id, pairing.reply) for correlation_id in order]


@pytest.mark.pg("PG-FRM-2")
@each_pairing
def test_a_session_is_the_same_byte_by_byte(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()

    def drip(sender: Link, receiver: Link) -> list[LinkEvent]:
        events: list[LinkEvent] = []
        for byte in sender.data_to_send():
            events += receiver.receive_data(bytes([byte]), NOW_MS)
        return events

    assert drip(caller, answerer) == [Opened(caller.role, caller.party_id)]
    assert drip(answerer, caller) == [Opened(answerer.role, answerer.party_id)]
    correlation_id = caller.send_request(pairing.request)
    assert drip(caller, answerer) == [RequestReceived(correlation_id, pairing.request)]
    answerer.send_reply(correlation_id, pairing.reply)
    assert drip(answerer, caller) == [ReplyReceived(correlation_id, pairing.reply)]


@each_pairing
def test_frames_glued_to_one_read_all_count(pairing: Pairing) -> None:
    caller, answerer = pairing.make_caller(), pairing.make_answerer()
    hello = caller.data_to_send()
    glued = hello + pairing.frame(pairing.request, 2) + pairing.frame(pairing.request, 3)
    assert [type(event) for event in answerer.receive_data(glued, NOW_MS)] == [Opened, RequestReceived, RequestReceived]


@pytest.mark.pg("PG-ERR-4", "PG-LNK-11")
@each_pairing
def test_good_frames_before_a_bad_one_still_count(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    events = answerer.receive_data(pairing.frame(pairing.request, 2) + b"x" * 20 + b"more", NOW_MS)
    assert events[0] == RequestReceived(2, pairing.request)
    assert_failed(answerer, events[1:], ErrorCode.BAD_MAGIC)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_reply_nobody_asked_for_is_refused(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    for link in (caller, answerer):
        assert_failed(link, link.receive_data(pairing.frame(pairing.reply, 77), NOW_MS), ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_second_reply_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    caller.data_to_send()
    reply = pairing.frame(pairing.reply, correlation_id)
    assert caller.receive_data(reply, NOW_MS) == [ReplyReceived(correlation_id, pairing.reply)]
    assert_failed(caller, caller.receive_data(reply, NOW_MS), ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-LNK-9")
@each_pairing
def test_a_reply_of_another_kind_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    caller.data_to_send()
    events = caller.receive_data(pairing.frame(example(Kind.BANK_KEYS), correlation_id), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNEXPECTED_MESSAGE)


@pytest.mark.pg("PG-LNK-7")
@each_pairing
def test_a_correlation_id_in_use_is_refused(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    request = pairing.frame(pairing.request, 5)
    assert answerer.receive_data(request, NOW_MS) == [RequestReceived(5, pairing.request)]
    assert_failed(answerer, answerer.receive_data(request, NOW_MS), ErrorCode.DUPLICATE_CORRELATION)


@each_pairing
def test_a_correlation_id_may_be_used_again_once_answered(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    for _ in range(3):
        assert answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS) == [RequestReceived(5, pairing.request)]
        answerer.send_reply(5, pairing.reply)


@pytest.mark.pg("PG-LNK-8")
@each_pairing
def test_the_two_directions_number_their_requests_apart(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    caller.send_request(pairing.request)
    answerer.send_request(Echo(b"12345678"))
    answerer.send_request(Echo(b"12345678"))  # the same correlation ID as the caller's request
    told = transfer(caller, answerer)
    assert [type(event) for event in told[1]] == [RequestReceived]
    assert told[0] == []
    assert caller.is_open
    assert answerer.is_open


@pytest.mark.pg("PG-LNK-10")
@pytest.mark.parametrize("kind", [k for k in Kind if not k.is_reply and k is not Kind.ERROR], ids=lambda k: k.name)
def test_requests_travel_their_route_only(kind: Kind) -> None:
    request = example(kind)
    route = MESSAGES[kind].route
    legal = {
        (CLIENT_LINK.name, "up"): route in (Route.ANY, Route.CALLER, Route.CLIENT_TO_GATEWAY),
        (CLIENT_LINK.name, "down"): route is Route.ANY,
        (BANK_LINK.name, "up"): route in (Route.ANY, Route.CALLER, Route.GATEWAY_TO_BANK),
        (BANK_LINK.name, "down"): route is Route.ANY,
    }
    for pairing in (CLIENT_LINK, BANK_LINK):
        for direction in ("up", "down"):
            caller, answerer = pairing.opened()
            sender, receiver = (caller, answerer) if direction == "up" else (answerer, caller)
            is_legal = legal[pairing.name, direction] and kind is not Kind.HELLO
            # What a peer without our checks might send.
            events = receiver.receive_data(pairing.frame(request, 9), NOW_MS)
            if not is_legal:
                assert_failed(receiver, events, ErrorCode.UNEXPECTED_MESSAGE)
                with pytest.raises(LocalProtocolError):
                    sender.send_request(request)
                assert sender.data_to_send() == b""
            else:
                assert events == ([] if kind is Kind.ECHO else [RequestReceived(9, request)])
                sender.send_request(request)


@pytest.mark.parametrize("kind", [k for k in Kind if k.is_reply or k is Kind.ERROR], ids=lambda k: k.name)
def test_what_is_no_request_is_not_sent_as_one(kind: Kind) -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            with pytest.raises(LocalProtocolError):
                link.send_request(example(kind))
            assert link.data_to_send() == b""


@each_pairing
def test_only_what_waits_is_answered_and_only_with_its_kind(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 5"):
        answerer.send_reply(5, example(Kind.BANK_KEYS))
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 6"):
        answerer.send_reply(6, pairing.reply)
    with pytest.raises(LocalProtocolError, match="answers nothing that waits under 6"):
        answerer.refuse(6, ErrorCode.SHUTTING_DOWN)  # at the peer it would be an unknown correlation
    assert answerer.data_to_send() == b""
    answerer.send_reply(5, pairing.reply)
    with pytest.raises(LocalProtocolError, match="answers nothing"):
        answerer.send_reply(5, pairing.reply)


@each_pairing
def test_a_reply_that_can_not_be_encoded_leaves_the_request_waiting(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    with pytest.raises(LocalProtocolError):
        answerer.send_reply(5, with_changes(pairing.reply, utr="no UTR"))
    assert answerer.waiting_count == 1
    answerer.send_reply(5, pairing.reply)


@each_pairing
def test_a_request_that_can_not_be_encoded_was_never_asked(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    with pytest.raises(LocalProtocolError):
        caller.send_request(with_changes(example(Kind.BANK_KEYS_QUERY), bank_id=""))
    assert caller.data_to_send() == b""
    correlation_id = caller.send_request(pairing.request)
    assert transfer(caller, answerer)[1] == [RequestReceived(correlation_id, pairing.request)]
    events = caller.receive_data(pairing.frame(example(Kind.BANK_KEYS), correlation_id + 1), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNKNOWN_CORRELATION)


# -- passing Errors --------------------------------------------------------------------------------------


@pytest.mark.pg("PG-ERR-5")
@each_pairing
def test_a_refused_request_is_answered_with_an_error_and_the_link_goes_on(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    refused, answered = caller.send_request(pairing.request), caller.send_request(pairing.request)
    transfer(caller, answerer)
    answerer.refuse(refused, ErrorCode.SHUTTING_DOWN, "try again\nlater")
    answerer.send_reply(answered, pairing.reply)
    assert transfer(caller, answerer)[0] == [
        ReplyReceived(refused, Error(code=ErrorCode.SHUTTING_DOWN, closes=False, text="try again?later")),
        ReplyReceived(answered, pairing.reply),
    ]
    assert caller.is_open
    with pytest.raises(AssertionError):
        answerer.refuse(answered, ErrorCode.BAD_MAC)  # a code that closes is no answer


@pytest.mark.pg("PG-ERR-5")
@each_pairing
def test_an_error_that_answers_nothing_is_refused(pairing: Pairing) -> None:
    caller, _ = pairing.opened()
    events = caller.receive_data(pairing.frame(example(Kind.ERROR), 77), NOW_MS)
    assert_failed(caller, events, ErrorCode.UNKNOWN_CORRELATION)


@pytest.mark.pg("PG-ERR-3")
@each_pairing
def test_an_error_is_not_answered(pairing: Pairing) -> None:
    for code in (ErrorCode.SHUTTING_DOWN, ErrorCode.INTERNAL):
        caller, _ = pairing.opened()
        correlation_id = caller.send_request(pairing.request)
        caller.data_to_send()
        error = Error(code=code, closes=code.closes, text="")
        caller.receive_data(pairing.frame(error, 0 if code.closes else correlation_id), NOW_MS)
        assert (caller.data_to_send(), caller.is_closed) == (b"", code.closes)


@pytest.mark.pg("PG-ERR-4")
@each_pairing
@pytest.mark.parametrize("correlation_id", [0, 2, 77, limits.UINT64_MAX])
def test_the_correlation_id_of_an_error_that_closes_is_not_looked_at(pairing: Pairing, correlation_id: int) -> None:
    caller, _ = pairing.opened()
    caller.send_request(pairing.request)  # under 2
    caller.data_to_send()
    error = Error(code=ErrorCode.INTERNAL, closes=True, text="")
    events = caller.receive_data(pairing.frame(error, correlation_id), NOW_MS)
    assert events == [PeerClosed("peer says: internal: ", ErrorCode.INTERNAL)]
    assert caller.is_closed


@pytest.mark.pg("PG-ERR-4", "PG-ERR-6")
@each_pairing
@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_a_code_says_whether_the_link_closes(pairing: Pairing, code: ErrorCode) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    if code.closes:
        answerer.fail(code)
    else:
        answerer.refuse(5, code)
    (said,) = frames_in(answerer.data_to_send())
    assert said.message() == Error(code=code, closes=answerer.is_closed, text="")
    assert (said.correlation_id, answerer.is_closed) == ((0, True) if code.closes else (5, False))


@each_pairing
def test_a_refused_link_test_is_nobodys_business(pairing: Pairing) -> None:
    # The core never asked for it, so it must not be told of an answer.
    caller, answerer = pairing.opened()
    correlation_id = answerer.send_request(Echo(b"12345678"))
    answerer.data_to_send()
    assert answerer.receive_data(pairing.frame(example(Kind.ERROR), correlation_id), NOW_MS) == []
    assert answerer.is_open
    assert caller.is_open


@pytest.mark.pg("PG-LNK-6")
@each_pairing
def test_too_many_requests_are_refused_one_by_one(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    asked = [caller.send_request(pairing.request) for _ in range(REQUEST_COUNT_MAX + 2)]
    told = transfer(caller, answerer)
    assert len(told[1]) == answerer.waiting_count == REQUEST_COUNT_MAX >= 4_096
    refusal = Error(code=ErrorCode.TOO_MANY_REQUESTS, closes=False, text="wait for replies before asking more")
    assert told[0] == [ReplyReceived(correlation_id, refusal) for correlation_id in asked[REQUEST_COUNT_MAX:]]
    answerer.send_reply(asked[0], pairing.reply)
    asked.append(caller.send_request(pairing.request))
    assert transfer(caller, answerer)[1] == [RequestReceived(asked[-1], pairing.request)]


# -- closing ---------------------------------------------------------------------------------------------


@each_pairing
def test_a_closing_error_is_told_with_its_code(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    answerer.fail(ErrorCode.INTERNAL, "no room")
    assert transfer(caller, answerer)[0] == [PeerClosed("peer says: internal: no room", ErrorCode.INTERNAL)]
    assert caller.is_closed
    assert answerer.is_closed
    assert caller.data_to_send() == b""  # an Error is never answered with an Error
    answerer.fail(ErrorCode.INTERNAL)
    assert answerer.data_to_send() == b""


@pytest.mark.pg("PG-LNK-13")
@each_pairing
def test_the_end_of_the_stream_between_frames_is_a_close(pairing: Pairing) -> None:
    for link in pairing.opened():
        assert link.receive_eof() == [PeerClosed("end of stream")]
        assert link.is_closed
        assert link.receive_eof() == []


@each_pairing
def test_the_end_of_the_stream_within_a_frame_is_a_fault(pairing: Pairing) -> None:
    frame = pairing.frame(pairing.request, 5)
    for size in range(1, len(frame)):
        _, answerer = pairing.opened()
        assert answerer.receive_data(frame[:size], NOW_MS) == []
        assert_failed(answerer, answerer.receive_eof(), ErrorCode.TRUNCATED_FRAME)


@pytest.mark.pg("PG-LNK-12")
@each_pairing
def test_after_closing_nothing_is_looked_at_and_what_was_queued_may_leave(pairing: Pairing) -> None:
    caller, answerer = pairing.opened()
    correlation_id = caller.send_request(pairing.request)
    transfer(caller, answerer)
    answerer.send_reply(correlation_id, pairing.reply)
    answerer.close()
    answerer.close()
    assert answerer.receive_data(pairing.frame(pairing.request, 9), NOW_MS) == []
    assert answerer.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS) == []
    assert answerer.next_deadline_ms() is None
    answerer.send_reply(9, pairing.reply)  # a late answer finds nobody
    assert messages_in(answerer.data_to_send()) == [pairing.reply]


# -- time ------------------------------------------------------------------------------------------------


def fire(link: Link) -> tuple[int, list[LinkEvent]]:
    """Let the link's next deadline pass; gives when it was. A millisecond earlier nothing happens."""
    deadline_ms = link.next_deadline_ms()
    assert deadline_ms is not None
    before = link.data_to_send()
    assert before == b""
    assert link.receive_timer(deadline_ms - 1) == []
    assert link.data_to_send() == b""
    assert not link.is_closed
    return deadline_ms - NOW_MS, link.receive_timer(deadline_ms)


@pytest.mark.pg("PG-TIM-1")
@pytest.mark.parametrize("make_end", [client_end, gateway_end, gateway_end_to_bank, bank_end])
def test_hello_has_a_deadline_at_both_ends(make_end: Callable[[], Link]) -> None:
    link = make_end()
    link.data_to_send()
    after_ms, events = fire(link)
    assert after_ms == HELLO_TIMEOUT_MS == 5_000
    assert_failed(link, events, ErrorCode.HELLO_TIMEOUT)


@pytest.mark.pg("PG-TIM-1")
def test_a_dripping_hello_does_not_move_its_deadline() -> None:
    link = gateway_end()
    link.receive_data(b"P", NOW_MS + HELLO_TIMEOUT_MS - 1)
    assert link.next_deadline_ms() == NOW_MS + HELLO_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-2")
@each_pairing
def test_a_frame_has_a_deadline_from_its_first_byte(pairing: Pairing) -> None:
    # T23: bytes that drip in do not move it.
    _, answerer = pairing.opened()
    frame = pairing.frame(pairing.request, 5)
    for i, byte in enumerate(frame[:8]):
        assert answerer.receive_data(bytes([byte]), NOW_MS + 1_000 * i) == []
        assert answerer.next_deadline_ms() == NOW_MS + FRAME_TIMEOUT_MS
    after_ms, events = fire(answerer)
    assert after_ms == FRAME_TIMEOUT_MS == 10_000
    assert_failed(answerer, events, ErrorCode.FRAME_TIMEOUT)


@each_pairing
def test_each_frame_has_a_deadline_of_its_own(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    frame = pairing.frame(Echo(b"12345678"), 5)
    answerer.receive_data(frame[:5], NOW_MS)
    later_ms = NOW_MS + FRAME_TIMEOUT_MS - 1
    answerer.receive_data(frame[5:] + frame[:5], later_ms)  # one ends, the next begins
    assert answerer.next_deadline_ms() == later_ms + FRAME_TIMEOUT_MS
    answerer.receive_data(frame[5:], later_ms)
    answerer.data_to_send()
    assert answerer.next_deadline_ms() == later_ms + IDLE_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-3")
@each_pairing
def test_an_answering_end_closes_an_idle_link(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    after_ms, events = fire(answerer)
    assert after_ms == IDLE_TIMEOUT_MS == 60_000
    assert_failed(answerer, events, ErrorCode.IDLE_TIMEOUT)


def test_any_frame_puts_off_the_idle_deadline() -> None:
    _, answerer = CLIENT_LINK.opened()
    answerer.receive_data(CLIENT_LINK.frame(Echo(b"12345678"), 5), NOW_MS + 7_000)
    assert answerer.next_deadline_ms() == NOW_MS + 7_000 + IDLE_TIMEOUT_MS


@pytest.mark.pg("PG-TIM-3")
@each_pairing
def test_a_peer_that_waits_for_us_is_not_idle(pairing: Pairing) -> None:
    _, answerer = pairing.opened()
    answerer.receive_data(pairing.frame(pairing.request, 5), NOW_MS)
    assert answerer.next_deadline_ms() is None
    assert answerer.receive_timer(NOW_MS + 10 * IDLE_TIMEOUT_MS) == []
    answerer.send_reply(5, pairing.reply)
    assert answerer.next_deadline_ms() == NOW_MS + IDLE_TIMEOUT_MS


def test_a_clients_end_has_no_deadline_once_open() -> None:
    caller, _ = CLIENT_LINK.opened()
    assert caller.next_deadline_ms() is None  # the session's own alarm is its deadline (R10)


@pytest.mark.pg("PG-TIM-4")
def test_the_calling_end_tests_an_idle_bank_link() -> None:
    gateway, bank = BANK_LINK.opened()
    after_ms, events = fire(gateway)
    assert after_ms == ECHO_AFTER_MS == 15_000
    assert events == []
    # The bank answers by itself, neither core hears of it, and the answer counts as life on both ends.
    now_ms = NOW_MS + after_ms + 3
    assert transfer(gateway, bank, now_ms) == ([], [])
    assert gateway.next_deadline_ms() == now_ms + ECHO_AFTER_MS
    assert bank.next_deadline_ms() == now_ms + IDLE_TIMEOUT_MS
    assert (gateway.waiting_count, bank.waiting_count) == (0, 0)


@pytest.mark.pg("PG-TIM-4")
def test_an_unanswered_link_test_fails_the_link() -> None:
    gateway, _ = BANK_LINK.opened()
    fire(gateway)
    said = messages_in(gateway.data_to_send())
    assert said == [Echo((NOW_MS + ECHO_AFTER_MS).to_bytes(8))]
    after_ms, events = fire(gateway)
    assert after_ms == ECHO_AFTER_MS + ECHO_TIMEOUT_MS == 25_000
    assert_failed(gateway, events, ErrorCode.IDLE_TIMEOUT)


def test_any_frame_at_all_answers_for_the_link_test() -> None:
    gateway, _ = BANK_LINK.opened()
    correlation_id = gateway.send_request(TRANSFER_REQUEST)
    gateway.data_to_send()
    fire(gateway)
    gateway.data_to_send()
    now_ms = NOW_MS + ECHO_AFTER_MS + ECHO_TIMEOUT_MS - 1
    gateway.receive_data(BANK_LINK.frame(example(Kind.TRANSFER_RESULT), correlation_id), now_ms)
    assert gateway.receive_timer(now_ms + 1) == []
    assert gateway.next_deadline_ms() == now_ms + ECHO_AFTER_MS


@pytest.mark.pg("PG-LNK-16")
def test_an_echo_is_answered_with_its_own_bytes() -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            assert link.receive_data(pairing.frame(Echo(b"abcdefgh"), 3), NOW_MS) == []
            assert link.data_to_send() == pairing.frame(EchoReply(b"abcdefgh"), 3)


@pytest.mark.pg("PG-LNK-16")
def test_the_answer_to_an_echo_is_not_answered() -> None:
    for pairing in (CLIENT_LINK, BANK_LINK):
        for link in pairing.opened():
            correlation_id = link.send_request(Echo(b"12345678"))
            link.data_to_send()
            assert link.receive_data(pairing.frame(EchoReply(b"12345678"), correlation_id), NOW_MS) == []
            assert (link.data_to_send(), link.is_open) == (b"", True)


# -- every state and every input -------------------------------------------------------------------------


def end_in(state: LinkState, pairing: Pairing, *, is_caller: bool) -> Link:
    if state in (LinkState.WAIT_HELLO, LinkState.WAIT_HELLO_ACK):
        link = pairing.make_caller() if is_caller else pairing.make_answerer()
    else:
        link = pairing.opened()[0 if is_caller else 1]
        link.send_request(Echo(b"12345678"))  # so that a reply and a passing Error have something to answer
        if state is LinkState.CLOSED:
            link.close()
    link.data_to_send()
    assert link.state is state
    return link


def put_in(link: Link, link_input: LinkInput, pairing: Pairing, *, is_caller: bool) -> list[LinkEvent]:
    peer_role = link.peer_role
    hello_id = 1
    echo_id = 2 if is_caller else 1  # the caller's first correlation ID went into its Hello
    frames: dict[LinkInput, bytes] = {
        LinkInput.HELLO: pairing.frame(Hello(role=peer_role, party_id=GATEWAY_ID, versions=(1,)), hello_id),
        LinkInput.HELLO_ACK: pairing.frame(
            HelloAck(role=peer_role, party_id=GATEWAY_ID, version=1, frame_size_max=1_000), hello_id
        ),
        LinkInput.REQUEST: pairing.frame(Echo(b"12345678"), 9),
        LinkInput.REPLY: pairing.frame(EchoReply(b"12345678"), echo_id),
        LinkInput.ERROR_CLOSING: pairing.frame(Error(code=ErrorCode.INTERNAL, closes=True, text=""), 0),
        LinkInput.ERROR_PASSING: pairing.frame(Error(code=ErrorCode.SHUTTING_DOWN, closes=False, text=""), echo_id),
        LinkInput.FAULT: b"x" * 20,
    }
    if link_input in frames:
        return link.receive_data(frames[link_input], NOW_MS)
    if link_input is LinkInput.EOF:
        return link.receive_eof()
    assert link_input is LinkInput.CLOSE
    link.close()
    return []


STATES_OF_ENDS = [
    (LinkState.WAIT_HELLO, False),
    (LinkState.WAIT_HELLO_ACK, True),
    (LinkState.OPEN, False),
    (LinkState.OPEN, True),
    (LinkState.CLOSED, False),
    (LinkState.CLOSED, True),
]


@pytest.mark.pg("PG-LNK-12")
@each_pairing
@pytest.mark.parametrize("link_input", LinkInput, ids=lambda i: i.name)
@pytest.mark.parametrize(("state", "is_caller"), STATES_OF_ENDS, ids=str)
def test_every_state_takes_every_input_as_the_table_says(
    pairing: Pairing, link_input: LinkInput, state: LinkState, is_caller: bool
) -> None:
    link = end_in(state, pairing, is_caller=is_caller)
    events = put_in(link, link_input, pairing, is_caller=is_caller)
    if state is LinkState.CLOSED:
        assert (link.state, events, link.data_to_send()) == (LinkState.CLOSED, [], b"")
    elif (
        pairing is BANK_LINK
        and state is LinkState.WAIT_HELLO
        and link_input
        in (
            LinkInput.ERROR_CLOSING,
            LinkInput.ERROR_PASSING,
        )
    ):
        assert_failed(link, events, ErrorCode.BAD_MAC)  # nobody has said yet whose key to check it with
    elif link_input in TRANSITIONS[state]:
        assert link.state is TRANSITIONS[state][link_input]
        if link.is_open:
            assert not any(isinstance(event, LinkFailed | PeerClosed) for event in events)
        elif link_input is LinkInput.FAULT:
            assert_failed(link, events, ErrorCode.BAD_MAGIC)
    else:
        assert_failed(link, events, ErrorCode.UNEXPECTED_MESSAGE)


OPEN, CLOSED = LinkState.OPEN, LinkState.CLOSED
NEXT = {
    # state:           WAIT_HELLO, WAIT_HELLO_ACK, OPEN, CLOSED
    LinkInput.HELLO: (OPEN, None, None, None),
    LinkInput.HELLO_ACK: (None, OPEN, None, None),
    LinkInput.REQUEST: (None, None, OPEN, None),
    LinkInput.REPLY: (None, None, OPEN, None),
    LinkInput.ERROR_PASSING: (None, None, OPEN, None),
    LinkInput.ERROR_CLOSING: (CLOSED, CLOSED, CLOSED, None),
    LinkInput.FAULT: (CLOSED, CLOSED, CLOSED, None),
    LinkInput.EOF: (CLOSED, CLOSED, CLOSED, CLOSED),
    LinkInput.CLOSE: (CLOSED, CLOSED, CLOSED, CLOSED),
}


@pytest.mark.pg("PG-LNK-12")
def test_the_table_is_this_one() -> None:
    assert set(TRANSITIONS) == set(LinkState)
    assert set(NEXT) == set(LinkInput)
    for link_input, after in NEXT.items():
        assert tuple(TRANSITIONS[state].get(link_input) for state in LinkState) == after


# -- whatever comes --------------------------------------------------------------------------------------

ALL_FRAMES = [
    encode_frame(example(kind), correlation_id, link_key)
    for kind in Kind
    for correlation_id in (0, 1, 2, 3)
    for link_key in (None, LINK_KEY, OTHER_KEY)
]
HELLOS = [
    encode_frame(Hello(role=role, party_id=GATEWAY_ID, versions=(1,)), 1, link_key)
    for role in (Role.CLIENT, Role.GATEWAY)
    for link_key in (None, LINK_KEY)
] + [
    encode_frame(HelloAck(role=role, party_id=GATEWAY_ID, version=1, frame_size_max=1_000), 1, link_key)
    for role in (Role.BANK, Role.GATEWAY)
    for link_key in (None, LINK_KEY)
]


def changed(frame: bytes, at: int, byte: int) -> bytes:
    at %= len(frame)
    return frame[:at] + bytes([byte]) + frame[at + 1 :]


ANY_BYTES = st.one_of(
    st.sampled_from(ALL_FRAMES),
    st.builds(changed, st.sampled_from(ALL_FRAMES), st.integers(0, 2_000), st.integers(0, 255)),
    st.builds(lambda frame, size: frame[:size], st.sampled_from(ALL_FRAMES), st.integers(0, 40)),
    st.binary(max_size=60),
)


@pytest.mark.parametrize("make_end", [client_end, gateway_end, gateway_end_to_bank, bank_end])
@given(first=st.sampled_from([b"", *HELLOS]), chunks=st.lists(ANY_BYTES, max_size=8), data=st.data())
def test_whatever_comes_a_link_is_waiting_open_or_closed(
    make_end: Callable[[], Link], first: bytes, chunks: list[bytes], data: st.DataObject
) -> None:
    link = make_end()
    now_ms = NOW_MS
    for chunk in (first, *chunks):
        was_closed = link.is_closed
        events = link.receive_data(chunk, now_ms)
        assert not (was_closed and events)
        # A link fails or is closed by its peer at most once, and says nothing after it.
        ends = [i for i, event in enumerate(events) if isinstance(event, LinkFailed | PeerClosed)]
        assert ends == ([len(events) - 1] if link.is_closed and not was_closed else [])
        for event in events:
            if isinstance(event, RequestReceived) and link.is_open and data.draw(st.booleans()):
                link.send_reply(event.correlation_id, example(event.message.kind.reply))
        now_ms += data.draw(st.integers(0, 4_000))
        link.receive_timer(now_ms)
        messages_in(link.data_to_send())  # what we say is well formed, whatever we heard
    link.receive_eof()
    assert link.state is LinkState.CLOSED


@pytest.mark.pg("PG-ERR-2")
def test_error_texts_fit_their_field_and_are_safe() -> None:
    link = gateway_end()
    link.fail(ErrorCode.INTERNAL, "é\n\x1b[31m" + "x" * 500)
    (error,) = messages_in(link.data_to_send())
    assert isinstance(error, Error)
    assert error.text == "???[31m" + "x" * 113
    assert len(error.text) == limits.ERROR_TEXT_SIZE_MAX


def test_a_link_shows_no_key() -> None:
    shown: list[Any] = [gateway_end_to_bank(), *BANK_LINK.opened()]
    for link in shown:
        assert LINK_KEY.hex() not in repr(link)
        assert repr(LINK_KEY) not in repr(link)


# -- turns (R21) -----------------------------------------------------------------------------------------


def test_a_link_handles_so_many_frames_a_turn_and_loses_none() -> None:
    caller = client_end()
    answerer = Link(
        Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=NOW_MS, turn_frame_count_max=TURN_FRAME_COUNT_MAX
    )
    transfer(caller, answerer)
    for _ in range(2 * TURN_FRAME_COUNT_MAX + 3):
        caller.send_request(TOKEN_QUERY)
    counts = [len(answerer.receive_data(caller.data_to_send(), NOW_MS))]
    while answerer.is_backlogged:
        counts.append(len(answerer.receive_data(b"", NOW_MS)))
    assert counts == [TURN_FRAME_COUNT_MAX, TURN_FRAME_COUNT_MAX, 3]
    assert answerer.waiting_count == 2 * TURN_FRAME_COUNT_MAX + 3


def test_a_link_that_waits_for_its_turn_is_not_late_with_its_frame() -> None:
    caller = client_end()
    answerer = Link(Role.GATEWAY, GATEWAY_ID, Role.CLIENT, is_caller=False, now_ms=NOW_MS, turn_frame_count_max=1)
    transfer(caller, answerer)
    for _ in range(3):
        caller.send_request(TOKEN_QUERY)
    now_ms = NOW_MS
    answerer.receive_data(caller.data_to_send(), now_ms)
    while answerer.is_backlogged:
        now_ms += FRAME_TIMEOUT_MS - 1
        assert answerer.receive_timer(now_ms) == []
        assert len(answerer.receive_data(b"", now_ms)) == 1
    assert answerer.is_open
