"""How a link opens: hello, the order of all checks, and who may speak on a bank link (spec 4.1, 5.1)."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from builders import BANK_ID, GATEWAY_ID, LINK_KEY, build_token_ack, example
from link_ends import (
    BANK_LINK,
    CLIENT_LINK,
    NOW_MS,
    OTHER_KEY,
    TOKEN_QUERY,
    TRANSFER_REQUEST,
    Pairing,
    assert_failed,
    bank_end,
    client_end,
    each_pairing,
    gateway_end,
    gateway_end_to_bank,
    messages_in,
    raw_frame,
    transfer,
)

from paygate.codec import limits
from paygate.codec.codes import Kind, Role
from paygate.codec.errors import ErrorCode, LocalProtocolError
from paygate.codec.frame import body_size_range, encode_frame
from paygate.codec.messages import Echo, Hello, HelloAck, Message
from paygate.codec.record_codec import encode_record
from paygate.link import Link
from paygate.link_events import LinkFailed, Opened, PeerClosed
from paygate.link_states import LinkState

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
