"""pcap and pcapng: every variant gives its packets; damage is a finding, and the reading goes on behind it."""

import gzip
import struct
from itertools import accumulate
from typing import Final

import pytest
from dump.builders import (
    BEGIN_NS,
    ETHERNET,
    NAME_RESOLUTION,
    OLD_PACKET,
    RAW,
    SIMPLE_PACKET,
    STATISTICS,
    STEP_NS,
    USER0,
    Captured,
    captured,
    enhanced_packet,
    pcap_bytes,
    pcapng_block,
    pcapng_bytes,
    pcapng_interface,
    pcapng_option,
    pcapng_section,
)
from dump.reading import PACKETS, findings_in, packets_in, read_all
from hypothesis import given
from hypothesis import strategies as st

from paygate.dump import pcapng
from paygate.dump.model import Direction, Finding, Packet
from paygate.dump.pcap import PACKET_SIZE_MAX, SEARCH_SIZE_MAX
from paygate.dump.pcapng import MAGIC

each_order = pytest.mark.parametrize("order", ["<", ">"])


# -- pcap ------------------------------------------------------------------------------------------------


@each_order
@pytest.mark.parametrize("is_nanosecond", [False, True])
@pytest.mark.parametrize("is_gzip", [False, True])
def test_every_sort_of_pcap_gives_its_packets(order: str, is_nanosecond: bool, is_gzip: bool) -> None:
    time_ns = BEGIN_NS + 123_456_789
    data = pcap_bytes(
        [Captured(PACKETS[0], time_ns), Captured(PACKETS[1][:30], time_ns + 1_000, original_size=70)],
        link_type=ETHERNET,
        order=order,
        is_nanosecond=is_nanosecond,
    )
    kept_ns = time_ns if is_nanosecond else time_ns // 1_000 * 1_000
    assert packets_in(gzip.compress(data) if is_gzip else data) == [
        Packet(1, kept_ns, 0, ETHERNET, PACKETS[0], len(PACKETS[0])),
        Packet(2, kept_ns + 1_000, 0, ETHERNET, PACKETS[1][:30], 70),
    ]


def test_the_size_of_a_frame_check_sequence_is_no_part_of_the_link_type() -> None:
    data = bytearray(pcap_bytes(PACKETS, link_type=ETHERNET))
    data[23] = 0x24
    assert {p.link_type for p in packets_in(bytes(data))} == {ETHERNET}


def test_no_packets_is_no_fault() -> None:
    assert read_all(pcap_bytes([])) == []
    assert read_all(pcapng_section()) == []


SIX: Final = [packet + bytes(40) for packet in PACKETS] + PACKETS[:2]
RECORD_2: Final = 24 + 16 + len(SIX[0])


@pytest.mark.parametrize(
    ("at", "forged", "expected", "got"),
    [
        (8, 0x7FFFFFFF, f"a packet of at most {PACKET_SIZE_MAX} bytes", "a size of 2147483647"),
        (8, PACKET_SIZE_MAX, f"a packet of {PACKET_SIZE_MAX} bytes", "then the end of the input"),
        (8, 50, "", ""),
        (0, 0x7FFFFFFF, "", ""),
        (4, 0xFFFFFFFF, "", ""),
        (12, 1, "", ""),
    ],
)
def test_a_damaged_record_costs_a_packet_and_not_the_next_ones(at: int, forged: int, expected: str, got: str) -> None:
    data = bytearray(pcap_bytes(SIX))
    data[RECORD_2 + at : RECORD_2 + at + 4] = struct.pack("<I", forged)
    found = read_all(bytes(data))
    read = [r.data for r in found if isinstance(r, Packet)]
    findings = [r for r in found if isinstance(r, Finding)]
    if at != 8:
        # Only a wrong time, or a wrong original size: the packet is whole, and so it is shown.
        assert read == SIX
        assert findings == []
        return
    assert read[0] == SIX[0]
    assert read[-4:] == SIX[-4:]
    (finding,) = findings
    if expected:
        assert (finding.expected, finding.offset, finding.number) == (expected, RECORD_2, 1)
        assert got in finding.got
        assert f"the next packet is {16 + len(SIX[1])} bytes later" in finding.got
        assert [r.number for r in found if isinstance(r, Packet)] == [1, 2, 3, 4, 5]


def test_bytes_that_are_put_between_two_packets_are_skipped() -> None:
    data = pcap_bytes(SIX)
    for garbage in (b"\xff" * 7, bytes(33), b"a log line in between\n" * 30):
        found = read_all(data[:RECORD_2] + garbage + data[RECORD_2:])
        assert [r.data for r in found if isinstance(r, Packet)][-4:] == SIX[2:]
        assert [r.offset for r in found if isinstance(r, Finding)] == [RECORD_2]


def test_the_search_for_the_next_packet_is_bounded() -> None:
    data = pcap_bytes(SIX)
    found = read_all(data[:RECORD_2] + b"\xff" * (SEARCH_SIZE_MAX + 100) + data[RECORD_2:])
    assert [r.data for r in found if isinstance(r, Packet)] == SIX[:1]
    (finding,) = [r for r in found if isinstance(r, Finding)]
    assert "no packet found behind it" in finding.got


# -- pcapng ----------------------------------------------------------------------------------------------


@each_order
@pytest.mark.parametrize("resolution", [None, 0, 3, 6, 9, 10, 0x80 | 10, 0x80 | 30])
def test_times_are_in_the_interface_s_resolution(order: str, resolution: int | None) -> None:
    time_ns = BEGIN_NS + 987_654_321
    (packet,) = packets_in(pcapng_bytes([Captured(PACKETS[0], time_ns)], order=order, resolution=resolution))
    assert packet.time_ns is not None
    exponent = 6 if resolution is None else resolution & 0x7F
    unit_ns = 1_000_000_000 / (2 if resolution and resolution & 0x80 else 10) ** exponent
    assert 0 <= time_ns - packet.time_ns <= unit_ns + 1
    assert packet.data == PACKETS[0]


@each_order
def test_times_may_have_an_offset_in_seconds(order: str) -> None:
    options = pcapng_option(9, b"\x09", order=order) + pcapng_option(14, struct.pack(order + "q", -3_600), order=order)
    data = pcapng_section(order=order) + pcapng_interface(RAW, options, order=order)
    (packet,) = packets_in(data + enhanced_packet(captured(PACKETS)[0], order=order))
    assert packet.time_ns == BEGIN_NS - 3_600 * 1_000_000_000


@each_order
def test_interfaces_have_link_types_of_their_own_and_numbers_through_all_sections(order: str) -> None:
    section = [Captured(PACKETS[0], interface=1), Captured(PACKETS[1], interface=0, direction=1)]
    other = [Captured(PACKETS[2], interface=0, direction=2)]
    data = pcapng_bytes(section, link_types=(RAW, USER0), order=order) + pcapng_bytes(
        other, link_types=(ETHERNET,), order="<>"[order == "<"]
    )
    assert packets_in(data) == [
        Packet(1, BEGIN_NS, 1, USER0, PACKETS[0], len(PACKETS[0])),
        Packet(2, BEGIN_NS + STEP_NS, 0, RAW, PACKETS[1], len(PACKETS[1]), Direction.INBOUND),
        Packet(3, BEGIN_NS, 2, ETHERNET, PACKETS[2], len(PACKETS[2]), Direction.OUTBOUND),
    ]


@each_order
def test_simple_and_old_packets_are_read(order: str) -> None:
    size = len(PACKETS[0])
    old = struct.pack(order + "HHIIII", 0, 7, BEGIN_NS // 1_000 >> 32, BEGIN_NS // 1_000 & 0xFFFFFFFF, size, 99)
    flags = pcapng_option(2, struct.pack(order + "I", 2), order=order)
    padded = PACKETS[0] + bytes(-size % 4)
    data = b"".join(
        [
            pcapng_section(order=order),
            pcapng_interface(RAW, order=order, snap_size=30),
            pcapng_block(SIMPLE_PACKET, struct.pack(order + "I", size) + PACKETS[0][:30], order=order),
            pcapng_block(OLD_PACKET, old + padded + flags, order=order),
        ]
    )
    assert packets_in(data) == [
        Packet(1, None, 0, RAW, PACKETS[0][:30], size),
        Packet(2, BEGIN_NS // 1_000 * 1_000, 0, RAW, PACKETS[0], 99, Direction.OUTBOUND),
    ]


def test_direction_is_found_behind_other_options() -> None:
    comment = pcapng_option(1, b"a comment of 24 bytes...")
    flags = pcapng_option(2, struct.pack("<I", 0x1D))
    head = struct.pack("<IIIII", 0, 0, 0, 4, 4)
    section = pcapng_section() + pcapng_interface(RAW)
    for options, expected in (
        (comment + flags, Direction.INBOUND),
        (flags + comment, Direction.INBOUND),
        (comment, Direction.UNKNOWN),
        (bytes(4) + flags, Direction.UNKNOWN),
        (struct.pack("<HH", 2, 4_000), Direction.UNKNOWN),
    ):
        (packet,) = packets_in(section + pcapng_block(6, head + b"abcd" + options))
        assert packet.direction is expected


@each_order
def test_blocks_of_other_kinds_are_skipped(order: str) -> None:
    others = [(NAME_RESOLUTION, b"\1\0"), (STATISTICS, bytes(12)), (0xBAD, bytes(40)), (0x0000000A, b"keys" * 200_000)]
    blocks = b"".join(pcapng_block(kind, body, order=order) for kind, body in others)
    whole = pcapng_bytes(PACKETS, order=order)
    head_size = len(pcapng_bytes([], order=order))
    assert packets_in(whole[:head_size] + blocks + whole[head_size:] + blocks) == packets_in(whole)
    assert packets_in(gzip.compress(whole[:head_size] + blocks + whole[head_size:])) == packets_in(whole)


HEAD_SIZE: Final = len(pcapng_bytes([]))
BLOCKS: Final = [enhanced_packet(p) for p in captured(SIX)]


@pytest.mark.parametrize("forged", [0, 4, 13, 64, 200, 0x7FFFFFFC, 0xFFFFFFFF])
@pytest.mark.parametrize("at", [4, -4])
def test_a_bad_block_size_costs_a_packet_at_most(forged: int, at: int) -> None:
    damaged = bytearray(BLOCKS[1])
    place = at % len(damaged)
    damaged[place : place + 4] = struct.pack("<I", forged)
    found = read_all(pcapng_bytes([]) + BLOCKS[0] + bytes(damaged) + b"".join(BLOCKS[2:]))
    read = [r.data for r in found if isinstance(r, Packet)]
    assert read in ([SIX[0], *SIX[2:]], SIX)
    assert (read == SIX) is (at == -4)
    (finding,) = [r for r in found if isinstance(r, Finding)]
    assert finding.offset == HEAD_SIZE + len(BLOCKS[0])
    assert finding.number == 1


@each_order
def test_garbage_between_blocks_is_skipped(order: str) -> None:
    first, second = pcapng_bytes(SIX[:2], order=order), pcapng_bytes(SIX[2:])
    for garbage in (b"\xff" * 7, bytes(33), b"a log line in between\n" * 30):
        found = read_all(first + garbage + second)
        assert [r.data for r in found if isinstance(r, Packet)] == SIX
        (finding,) = [r for r in found if isinstance(r, Finding)]
        assert finding.offset == len(first)
        assert f"the next block is {len(garbage)} bytes later" in finding.got


@pytest.mark.parametrize(
    ("block", "expected", "got"),
    [
        (pcapng_block(6, struct.pack("<IIIII", 0, 0, 0, 400, 400) + bytes(8)), "at most 8 bytes", "a size of 400"),
        (pcapng_block(6, struct.pack("<IIIII", 9, 0, 0, 4, 4) + bytes(4)), "an interface below 1", "9"),
        (pcapng_block(6, bytes(4)), "at least 32 bytes", "16"),
        (pcapng_block(2, bytes(4)), "at least 32 bytes", "16"),
        (pcapng_block(3, b""), "at least 16 bytes", "12"),
        (pcapng_block(1, bytes(4)), "at least 20 bytes", "16"),
        (
            pcapng_block(6, bytes(pcapng.READ_BLOCK_SIZE_MAX)),
            "a block size of 12 to",
            str(12 + pcapng.READ_BLOCK_SIZE_MAX),
        ),
    ],
)
def test_a_block_that_contradicts_itself_is_a_finding(block: bytes, expected: str, got: str) -> None:
    found = read_all(pcapng_bytes([]) + BLOCKS[0] + block + b"".join(BLOCKS[1:]))
    (finding,) = [r for r in found if isinstance(r, Finding)]
    assert expected in finding.expected
    assert finding.got.startswith(got)
    assert finding.offset == HEAD_SIZE + len(BLOCKS[0])
    assert [r.data for r in found if isinstance(r, Packet)][-5:] == SIX[1:] or len(block) > SEARCH_SIZE_MAX


def test_a_section_of_an_unknown_version_is_a_finding_and_read_nevertheless() -> None:
    data = bytearray(pcapng_bytes(SIX))
    data[12] = 2
    found = read_all(bytes(data))
    assert [r.data for r in found if isinstance(r, Packet)] == SIX
    assert [(r.expected, r.got) for r in found if isinstance(r, Finding)] == [("version 1 of pcapng", "2.0")]


def test_a_section_without_a_byte_order_is_a_finding_and_the_next_section_is_read() -> None:
    data = bytearray(pcapng_bytes(SIX[:2]))
    data[8:12] = b"what"
    found = read_all(bytes(data) + pcapng_bytes(SIX[2:]))
    assert "the byte-order magic" in findings_in(bytes(data))[0].expected
    assert [r.data for r in found if isinstance(r, Packet)][-4:] == SIX[2:]


def test_the_interfaces_of_a_section_are_bounded() -> None:
    data = pcapng_section() + pcapng_interface(RAW) * (pcapng.INTERFACE_COUNT_MAX + 2)
    assert [f.expected for f in findings_in(data)] == [f"at most {pcapng.INTERFACE_COUNT_MAX} interfaces"] * 2


@given(st.data(), st.sampled_from([pcap_bytes(SIX), pcapng_bytes(SIX), pcapng_bytes(SIX, order=">")]))
def test_one_damaged_byte_costs_few_packets(drawn: st.DataObject, whole: bytes) -> None:
    # In front of the damage all packets are as they were; behind it, those that it does not make doubtful.
    begin, around = (24, 16) if whole[0] != MAGIC[0] else (HEAD_SIZE, 32)
    at = drawn.draw(st.integers(begin, len(whole) - 1))
    data = bytearray(whole)
    data[at] ^= drawn.draw(st.integers(1, 255))
    read = [r.data for r in read_all(bytes(data)) if isinstance(r, Packet)]
    before_count = sum(begin + end <= at for end in accumulate(around + len(p) for p in SIX))
    assert read[:before_count] == SIX[:before_count]
    assert len(read) >= len(SIX) - 3
