"""Packets of every link type are taken apart down to TCP; what is none is counted."""

import random
import struct
from collections.abc import Callable
from itertools import count
from typing import Final

import pytest
from dump.builders import (
    ACK,
    CLIENT,
    ETHERNET,
    FIN,
    IPV4,
    IPV6,
    LOOP,
    NULL,
    PSH,
    RAW,
    SERVER,
    SLL,
    SLL2,
    USER0,
    bsd_null,
    ethernet,
    ipv4,
    ipv6,
    ipv6_authentication,
    ipv6_extension,
    ipv6_fragment,
    linux_sll,
    linux_sll2,
    tcp_packet,
    tcp_segment,
)
from hypothesis import given
from hypothesis import strategies as st

from paygate.dump import fragments, packets
from paygate.dump.model import Direction, Endpoint, Finding, FlowKind, Packet, Segment, Side, StreamData
from paygate.dump.packets import Decapsulator

PAYLOAD: Final = b"PG and more than eight bytes"
V4: Final = tcp_packet(PAYLOAD, sequence=7, acknowledged=9)
CLIENT6, SERVER6 = ("2001:db8::1", 40_000), ("::1", 15_000)
V6: Final = tcp_packet(PAYLOAD, source=CLIENT6, target=SERVER6, sequence=7, acknowledged=9)
SEGMENT: Final = tcp_segment(PAYLOAD, sequence=7, acknowledged=9)


def between(payload: bytes, next_header: int = 6, payload_size: int | None = None) -> bytes:
    return ipv6(payload, source=CLIENT6[0], target=SERVER6[0], next_header=next_header, payload_size=payload_size)


LINKS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "Ethernet": (ETHERNET, ethernet),
    "Ethernet, padded": (ETHERNET, lambda p: ethernet(p, size_min=200)),
    "Ethernet, 802.1Q": (ETHERNET, lambda p: ethernet(p, tags=[0x8100])),
    "Ethernet, 802.1ad": (ETHERNET, lambda p: ethernet(p, tags=[0x88A8, 0x8100])),
    "Ethernet, QinQ of old": (ETHERNET, lambda p: ethernet(p, tags=[0x9100, 0x8100])),
    "Ethernet, QinQ of a few switches": (ETHERNET, lambda p: ethernet(p, tags=[0x9200, 0x9300])),
    "Ethernet, three tags": (ETHERNET, lambda p: ethernet(p, tags=[0x8100, 0x8100, 0x8100])),
    "Linux SLL": (SLL, linux_sll),
    "Linux SLL, 802.1Q": (SLL, lambda p: linux_sll(p, tags=[0x8100])),
    "Linux SLL2": (SLL2, linux_sll2),
    "Linux SLL2, 802.1Q": (SLL2, lambda p: linux_sll2(p, tags=[0x8100])),
    "BSD loopback, little-endian": (NULL, bsd_null),
    "BSD loopback, big-endian": (NULL, lambda p: bsd_null(p, order=">")),
    "OpenBSD loopback": (LOOP, lambda p: bsd_null(p, order=">")),
    "raw IP": (RAW, lambda p: p),
    "raw IP of BSD": (12, lambda p: p),
    "raw IP of OpenBSD": (14, lambda p: p),
    "IPv4 or IPv6 by link type": (0, lambda p: p),
}


def packet(data: bytes, link_type: int = RAW, *, original_size: int | None = None, number: int = 3) -> Packet:
    return Packet(number, 5, 0, link_type, data, len(data) if original_size is None else original_size)


def decapsulate(data: bytes, link_type: int = RAW, original_size: int | None = None) -> object:
    return Decapsulator(count(1)).receive_packet(packet(data, link_type, original_size=original_size))


def expected_segment(source: tuple[str, int] = CLIENT, target: tuple[str, int] = SERVER) -> Segment:
    return Segment(3, 5, Endpoint(*source), Endpoint(*target), 7, 9, PSH | ACK, PAYLOAD, 0)


@pytest.mark.parametrize(("link_type", "wrap"), LINKS.values(), ids=list(LINKS))
def test_every_link_type_holds_the_segment(link_type: int, wrap: Callable[[bytes], bytes]) -> None:
    by_version = not link_type and wrap(V4) is V4
    assert decapsulate(wrap(V4), IPV4 if by_version else link_type) == expected_segment()
    assert decapsulate(wrap(V6), IPV6 if by_version else link_type) == expected_segment(CLIENT6, SERVER6)


@pytest.mark.parametrize("family", [10, 23, 24, 28, 30])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_system_s_number_of_ipv6_is_known(family: int, order: str) -> None:
    assert decapsulate(bsd_null(V6, order=order, family=family), NULL) == expected_segment(CLIENT6, SERVER6)


@pytest.mark.parametrize("options", [b"\x01", b"\x01" * 40])
def test_options_of_ip_and_tcp_are_passed_over(options: bytes) -> None:
    assert decapsulate(ipv4(SEGMENT, options=options)) == expected_segment()
    assert decapsulate(tcp_packet(PAYLOAD, sequence=7, acknowledged=9, options=options)) == expected_segment()
    segment = tcp_segment(PAYLOAD, sequence=7, acknowledged=9, options=options)
    assert decapsulate(ethernet(between(segment)), ETHERNET) == expected_segment(CLIENT6, SERVER6)


def test_extension_headers_of_ipv6_are_passed_over() -> None:
    fragment = ipv6_fragment(60, ipv6_extension(6, SEGMENT), identification=1, fragment_offset=0, more_fragments=False)
    authenticated = ipv6_authentication(6, SEGMENT)
    for extended in (
        between(ipv6_extension(6, SEGMENT), 0),
        between(ipv6_extension(43, ipv6_extension(60, ipv6_extension(51, authenticated), size=24)), 0),
        between(authenticated, 51),
        between(fragment, 44),
        *(between(ipv6_extension(6, SEGMENT), number) for number in (135, 139, 140)),
    ):
        assert decapsulate(extended) == expected_segment(CLIENT6, SERVER6)


def test_padding_behind_the_packet_is_no_payload() -> None:
    empty = tcp_packet(b"", flags=FIN | ACK)
    found = decapsulate(ethernet(empty, size_min=60), ETHERNET)
    assert isinstance(found, Segment)
    assert (found.payload, found.flags, found.lost_size) == (b"", FIN | ACK, 0)


def test_a_length_of_zero_means_all_that_there_is() -> None:
    assert decapsulate(ipv4(SEGMENT, total_size=0)) == expected_segment()
    assert decapsulate(between(SEGMENT, payload_size=0)) == expected_segment(CLIENT6, SERVER6)


@pytest.mark.parametrize("whole", [V4, V6, tcp_packet(PAYLOAD, options=b"\x01" * 12)], ids=["IPv4", "IPv6", "options"])
def test_what_the_snap_length_cut_off_is_counted_as_lost(whole: bytes) -> None:
    for size in range(len(whole) + 1):
        decapsulator = Decapsulator(count(1))
        found = decapsulator.receive_packet(packet(whole[:size], original_size=len(whole)))
        lost_size = len(whole) - size
        if found is None:
            assert decapsulator.ignored.total() == 1
            assert lost_size > len(PAYLOAD)
        else:
            assert isinstance(found, Segment)
            assert found.lost_size == min(lost_size, len(PAYLOAD))
            assert found.payload == PAYLOAD[: len(PAYLOAD) - found.lost_size]


def test_what_an_ip_length_promises_beyond_the_packet_was_never_there() -> None:
    found = decapsulate(ipv4(SEGMENT, total_size=4_000))
    assert found == expected_segment()


def test_what_is_not_tcp_is_counted_by_its_reason() -> None:
    decapsulator = Decapsulator(count(1))
    for data, link_type in (
        (ipv4(b"\0" * 20, protocol=17), RAW),
        (ipv6(b"\0" * 20, next_header=17), RAW),
        (ipv6(b"", next_header=59), RAW),
        (ipv6(ipv6_extension(58, b"\0" * 8), next_header=60), RAW),
        (bytes(12) + b"\x08\x06" + bytes(40), ETHERNET),
        (bytes(12) + b"\x00\x26" + bytes(40), ETHERNET),
        (bsd_null(V4, family=7), NULL),
        (b"", USER0),
    ):
        assert decapsulator.receive_packet(packet(data, link_type)) is None
    assert decapsulator.ignored == {
        "IP protocol 17": 2,
        "IP protocol 59": 1,
        "IP protocol 58": 1,
        "EtherType 0x0806": 1,
        "IEEE 802.3 without an EtherType": 1,
        "address family 7": 1,
        "empty": 1,
    }


def test_the_reasons_are_bounded() -> None:
    decapsulator = Decapsulator(count(1))
    for kind in range(0x900, 0x900 + 2 * packets.REASON_COUNT_MAX):
        decapsulator.receive_packet(packet(bytes(12) + kind.to_bytes(2) + bytes(40), ETHERNET))
    assert len(decapsulator.ignored) == packets.REASON_COUNT_MAX + 1
    assert decapsulator.ignored["other reasons"] == packets.REASON_COUNT_MAX


def test_an_unknown_link_type_is_one_finding_and_counted() -> None:
    decapsulator = Decapsulator(count(1))
    found = [decapsulator.receive_packet(packet(V4, 105)) for _ in range(3)]
    assert isinstance(found[0], Finding)
    assert (found[0].name, found[0].number) == ("UNKNOWN_LINK_TYPE", 3)
    assert found[1:] == [None, None]
    assert decapsulator.ignored == {"link type 105": 3}


@pytest.mark.parametrize(
    ("data", "link_type", "expected"),
    [
        (b"\x30" + V4[1:], RAW, "version 4 or 6"),
        (b"\x44" + V4[1:], RAW, "at least 5 words"),
        (b"\x60" + V4[1:], IPV4, "version 4"),
        (b"\x45" + V6[1:], IPV6, "version 6"),
        (ipv4(SEGMENT, total_size=19), RAW, "at least 20 bytes"),
        (ipv4(SEGMENT, total_size=39), RAW, "a TCP header of 20 bytes"),
        (ipv4(SEGMENT[:12] + b"\x40" + SEGMENT[13:]), RAW, "a TCP header of 20 to"),
        (ipv4(SEGMENT[:12] + b"\xf0" + SEGMENT[13:]), RAW, "a TCP header of 20 to"),
        (V4[:30], RAW, "all headers"),
        (b"", RAW, "all headers"),
        (ethernet(V4)[:13], ETHERNET, "all headers"),
        (ipv6(b"\x06\xff", next_header=0), RAW, "extension header"),
        (ipv4(SEGMENT[:-1], more_fragments=True), RAW, "units of 8 bytes"),
        (ipv4(b"", fragment_offset=8), RAW, "units of 8 bytes"),
    ],
)
def test_a_packet_that_is_not_what_it_says_is_a_finding(data: bytes, link_type: int, expected: str) -> None:
    found = decapsulate(data, link_type)
    assert isinstance(found, Finding)
    assert (found.name, found.number, found.time_ns) == ("MALFORMED_PACKET", 3, 5)
    assert expected in found.expected
    assert found.got


def test_addresses_are_kept_and_their_number_is_bounded() -> None:
    decapsulator = Decapsulator(count(1))
    ends = []
    for port in range(packets.ENDPOINTS_COUNT_MAX + 10):
        for _ in range(2):
            found = decapsulator.receive_packet(packet(tcp_packet(source=("10.0.0.1", port))))
            assert isinstance(found, Segment)
            assert found.source == Endpoint("10.0.0.1", port)
            ends.append(found.source)
    assert ends[0] is ends[1]
    assert len(decapsulator._endpoints) <= packets.ENDPOINTS_COUNT_MAX


# -- Fragments ---------------------------------------------------------------------------------------------

LONG: Final = bytes(range(256)) * 2
LONG_SEGMENT: Final = tcp_segment(LONG)


def cut(segment: bytes, sizes: list[int]) -> list[tuple[int, bytes, bool]]:
    """Offset, bytes and whether more follow, of fragments of these sizes and one with the rest."""
    at, found = 0, []
    for size in sizes:
        found.append((at, segment[at : at + size], True))
        at += size
    return [*found, (at, segment[at:], False)]


def as_ipv4(piece: tuple[int, bytes, bool], identification: int = 77) -> bytes:
    offset, data, more = piece
    return ipv4(data, fragment_offset=offset, more_fragments=more, identification=identification)


def as_ipv6(piece: tuple[int, bytes, bool], identification: int = 77, next_header: int = 6) -> bytes:
    offset, data, more = piece
    fragment = ipv6_fragment(
        next_header, data, identification=identification, fragment_offset=offset, more_fragments=more
    )
    return between(ipv6_extension(44, fragment), 0)


each_version = pytest.mark.parametrize("build", [as_ipv4, as_ipv6])
Build = Callable[[tuple[int, bytes, bool]], bytes]


def payloads(found: list[object]) -> list[bytes]:
    return [segment.payload for segment in found if isinstance(segment, Segment)]


def receive_all(data: list[bytes], times_ns: list[int] | None = None) -> tuple[list[object], Decapsulator]:
    decapsulator = Decapsulator(count(1))
    found: list[object] = []
    for number, one in enumerate(data, start=1):
        time_ns = times_ns[number - 1] if times_ns else number
        found.append(decapsulator.receive_packet(Packet(number, time_ns, 0, RAW, one, len(one))))
    return found, decapsulator


@each_version
@pytest.mark.parametrize("seed", range(20))
def test_fragments_in_any_order_and_twice_are_the_segment_once(build: Build, seed: int) -> None:
    rng = random.Random(seed)
    pieces = cut(LONG_SEGMENT, [8 * rng.randrange(1, 9) for _ in range(6)])
    rng.shuffle(pieces)
    pieces[3:3] = pieces[:2]
    found, decapsulator = receive_all([build(piece) for piece in pieces])
    assert payloads(found) == [LONG]
    assert isinstance(found[-1], Segment)
    assert found[-1].number == len(pieces)
    decapsulator.fragments.finish()
    assert decapsulator.fragments.given_up_count == 0


def test_bytes_of_ipv4_fragments_that_came_first_count() -> None:
    middle = (64, bytes(128), True)
    pieces = cut(LONG_SEGMENT, [128, 64, 64])
    # `middle` overlaps the end of the first, all of the second; it fills the hole that both leave with zeros.
    found, _ = receive_all([as_ipv4(p) for p in (pieces[0], middle, *pieces[1:])])
    (payload,) = payloads(found)
    assert payload == LONG[:108] + bytes(64) + LONG[172:]


def test_ipv6_fragments_that_overlap_are_given_up_with_all_that_belongs_to_them() -> None:
    pieces = cut(LONG_SEGMENT, [128, 64, 64])
    overlap = (64, bytes(72), True)
    found, decapsulator = receive_all([as_ipv6(p) for p in (pieces[0], overlap, *pieces[1:], pieces[0])])
    assert payloads(found) == []
    decapsulator.fragments.finish()
    assert decapsulator.fragments.given_up_count == 1


@each_version
def test_two_packets_fragments_do_not_mix(build: Callable[..., bytes]) -> None:
    first = cut(LONG_SEGMENT, [64, 128])
    second = cut(tcp_segment(LONG[::-1]), [64, 128])
    mixed = [build(p, n) for pair in zip(first, second, strict=True) for n, p in enumerate(pair)]
    found, _ = receive_all(mixed)
    assert payloads(found) == [LONG, LONG[::-1]]


@each_version
def test_fragments_too_far_apart_in_time_are_of_two_packets(build: Build) -> None:
    first, last = map(build, cut(LONG_SEGMENT, [64]))
    age = fragments.AGE_NS_MAX
    assert payloads(receive_all([first, last], [0, age])[0]) == [LONG]
    found, decapsulator = receive_all([first, last, first], [0, age + 1, age + 2])
    assert payloads(found) == [LONG]
    assert decapsulator.fragments.given_up_count == 1


@each_version
def test_ends_that_contradict_each_other_are_refused(build: Build) -> None:
    pieces = cut(LONG_SEGMENT, [64])
    shorter = (64, LONG_SEGMENT[64:128], False)
    assert payloads(receive_all([build(p) for p in (shorter, pieces[1], pieces[0])])[0]) == []
    assert payloads(receive_all([build(p) for p in (pieces[1], shorter, pieces[0])])[0]) == []


def test_a_fragment_beyond_the_largest_packet_is_refused() -> None:
    found, decapsulator = receive_all([as_ipv4((65_528, bytes(16), False))])
    assert found == [None]
    decapsulator.fragments.finish()
    assert decapsulator.fragments.given_up_count == 1


def test_a_fragment_that_was_cut_by_the_capture_is_ignored() -> None:
    data = as_ipv4((0, LONG_SEGMENT[:64], True))
    decapsulator = Decapsulator(count(1))
    assert decapsulator.receive_packet(packet(data[:70], original_size=len(data))) is None
    assert decapsulator.ignored == {"a fragment that the capture cut short": 1}


def test_the_next_header_of_the_first_fragment_counts() -> None:
    first, last = cut(LONG_SEGMENT, [64])
    assert payloads(receive_all([as_ipv6(last, next_header=17), as_ipv6(first)])[0]) == [LONG]


def test_an_extension_header_may_be_cut_in_fragments_too() -> None:
    pieces = cut(ipv6_extension(6, LONG_SEGMENT, size=24), [16, 48])
    assert payloads(receive_all([as_ipv6(p, next_header=60) for p in pieces])[0]) == [LONG]


def test_fragments_that_never_become_packets_take_a_bounded_memory() -> None:
    decapsulator = Decapsulator(count(1))
    kept = decapsulator.fragments
    for number in range(3 * fragments.DATAGRAM_COUNT_MAX):
        for offset in range(8, 16_000, 160):
            data = as_ipv4((offset, bytes(152), True), number)
            decapsulator.receive_packet(packet(data))
        assert len(kept._datagrams) <= fragments.DATAGRAM_COUNT_MAX
        assert kept._kept_size <= fragments.KEPT_SIZE_MAX + fragments.DATAGRAM_SIZE_MAX
        assert kept._piece_count <= fragments.PIECE_COUNT_MAX + fragments.DATAGRAM_SIZE_MAX // 8
    assert kept.given_up_count > fragments.DATAGRAM_COUNT_MAX
    kept.finish()
    assert (kept._kept_size, kept._piece_count) == (0, 0)


# -- USER0 ---------------------------------------------------------------------------------------------------


def test_user0_packets_are_a_stream_for_each_interface() -> None:
    numbers = count(4)
    decapsulator = Decapsulator(numbers)
    found = [
        decapsulator.receive_packet(Packet(n, n, interface, USER0, data, len(data)))
        for n, (interface, data) in enumerate([(0, b"ab"), (1, b"cde"), (0, b"f"), (1, b"g")], start=1)
    ]
    items = [item for item in found if isinstance(item, StreamData)]
    assert [(i.flow.number, i.side, i.offset, i.data, i.time_ns, i.number) for i in items] == [
        (4, Side.CALLER, 0, b"ab", 1, 1),
        (5, Side.CALLER, 0, b"cde", 2, 2),
        (4, Side.CALLER, 2, b"f", 3, 3),
        (5, Side.CALLER, 3, b"g", 4, 4),
    ]
    assert {(i.flow.kind, i.flow.knows_sides) for i in items} == {(FlowKind.USER0, False)}


def test_user0_packets_with_directions_are_of_the_capturer_and_its_peer() -> None:
    decapsulator = Decapsulator(count(1))
    found = [
        decapsulator.receive_packet(Packet(1, None, 2, USER0, data, len(data), direction))
        for data, direction in [(b"ab", Direction.OUTBOUND), (b"cd", Direction.INBOUND), (b"ef", Direction.OUTBOUND)]
    ]
    items = [item for item in found if isinstance(item, StreamData)]
    assert [(i.side, i.offset, i.data) for i in items] == [
        (Side.CALLER, 0, b"ab"),
        (Side.ANSWERER, 0, b"cd"),
        (Side.CALLER, 2, b"ef"),
    ]
    assert items[0].flow is items[1].flow
    assert items[0].flow.knows_sides
    assert (str(items[0].flow.caller), str(items[0].flow.answerer)) == ("interface-2", "interface-2-peer")


def test_the_flows_of_user0_are_bounded() -> None:
    decapsulator = Decapsulator(count(1))
    for interface in range(packets.USER0_FLOW_COUNT_MAX + 5):
        decapsulator.receive_packet(Packet(1, None, interface, USER0, b"a", 1))
    assert len(decapsulator._user0) == packets.USER0_FLOW_COUNT_MAX


# -- Anything --------------------------------------------------------------------------------------------------

WHOLE: Final = [(wrap(ip), link_type) for link_type, wrap in LINKS.values() for ip in (V4, V6)] + [
    (as_ipv4((0, LONG_SEGMENT[:64], True)), RAW),
    (as_ipv6((64, LONG_SEGMENT[64:], False)), RAW),
]


@given(
    st.lists(
        st.tuples(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=3)),
        max_size=8,
    ),
    st.integers(0, 120),
    st.integers(0, 200),
)
def test_no_damage_raises(
    chosen: list[tuple[tuple[bytes, int], list[tuple[int, int]]]], size: int, more_size: int
) -> None:
    decapsulator = Decapsulator(count(1))
    for (whole, link_type), changes in chosen:
        data = bytearray(whole)
        for at, value in changes:
            if at < len(data):
                data[at] = value
        for kept in (bytes(data), bytes(data[:size])):
            found = decapsulator.receive_packet(packet(kept, link_type, original_size=len(kept) + more_size))
            assert found is None or isinstance(found, Segment | Finding)
            if isinstance(found, Segment):
                assert found.lost_size >= 0
                assert len(found.payload) + found.lost_size <= len(LONG_SEGMENT) + len(whole) + more_size


@given(st.binary(max_size=120), st.sampled_from([0, 1, 12, 14, 101, 108, 113, 147, 228, 229, 276, 9]))
def test_any_bytes_are_a_packet_of_some_sort(data: bytes, link_type: int) -> None:
    found = decapsulate(data, link_type)
    assert found is None or isinstance(found, Segment | StreamData | Finding)


def test_the_headers_are_those_of_the_builders() -> None:
    # What the tests rest on: an IPv4 header that is made by hand.
    assert V4[:20] == struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(PAYLOAD), 0, 0, 64, 6, 0) + bytes([127, 0, 0, 1] * 2)
