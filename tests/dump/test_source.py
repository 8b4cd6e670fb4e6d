"""What an input is, is found out by what stands in it; it is read as it comes, gzipped or not."""

import gzip
import io
import os
import random
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from builders import example
from dump.builders import pcap_bytes, pcapng_bytes
from dump.reading import PACKETS, SMALL_CAPTURES, Trickle, packets_in, plain, read_all, stream_bytes
from hypothesis import given
from hypothesis import strategies as st

from paygate.cli import ExitCode
from paygate.codec.codes import Kind
from paygate.codec.frame import encode_frame
from paygate.dump.model import Finding, FlowKind, Packet, StreamData
from paygate.dump.source import FRAME_SEARCH_SIZE, InputError, open_input, read_source
from paygate.dump.window import CHUNK_SIZE

FRAMES = encode_frame(example(Kind.HELLO), 1) + encode_frame(example(Kind.TOKEN_QUERY), 2)
INPUTS = SMALL_CAPTURES | {
    "hexadecimal text": FRAMES.hex(" ").encode() + b"\n",
    "raw frames": FRAMES,
    "raw bytes with a frame within": b"\xff\x00" * 40 + FRAMES,
    "gzip": gzip.compress(SMALL_CAPTURES["pcap"], mtime=0),
}

each_capture = pytest.mark.parametrize("data", SMALL_CAPTURES.values(), ids=list(SMALL_CAPTURES))
each_input = pytest.mark.parametrize("data", INPUTS.values(), ids=list(INPUTS))


@each_input
@pytest.mark.parametrize("read_size", [1, 7])
def test_bytes_that_come_one_by_one_are_read_as_those_that_come_at_once(data: bytes, read_size: int) -> None:
    whole = read_all(data)
    split = read_all(data, read_size=read_size)
    if any(isinstance(r, StreamData) for r in whole):
        assert stream_bytes(split) == stream_bytes(whole) == FRAMES or FRAMES in stream_bytes(whole)
    else:
        assert split == whole


@each_capture
def test_a_capture_cut_anywhere_gives_the_packets_before_the_cut(data: bytes) -> None:
    whole = packets_in(data)
    for size in range(4, len(data)):
        found = read_all(data[:size])
        packets = [r for r in found if isinstance(r, Packet)]
        findings = [r for r in found if isinstance(r, Finding)]
        assert packets == whole[: len(packets)]
        assert len(findings) <= 1
        if findings:
            assert findings[0].name == "CAPTURE_TRUNCATED"
            assert findings[0] is found[-1]
            assert findings[0].offset is not None
            assert findings[0].offset < size
    # Only a cut between packets is none.
    sizes = [size for size in range(4, len(data)) if not any(isinstance(r, Finding) for r in read_all(data[:size]))]
    assert len(sizes) < 12


@each_capture
def test_a_packet_is_seen_as_soon_as_it_has_come(data: bytes) -> None:
    whole = packets_in(data)
    counts = [sum(isinstance(r, Packet) for r in read_all(data[:size])) for size in range(4, len(data) + 1)]
    ends = [4 + counts.index(n) for n in range(1, len(whole) + 1)]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        packets = read_source(stream, count(1))
        written = 0
        for expected, end in zip(whole, ends, strict=True):
            # If it waited for one byte more, this would never end.
            os.write(writing, data[written:end])
            written = end
            assert next(packets) == expected
        os.close(writing)
        assert list(packets) == []


def test_a_buffered_stream_is_not_waited_for_either() -> None:
    data = SMALL_CAPTURES["pcap"]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        os.write(writing, data[:-20])
        packets = read_source(stream, count(1))
        assert [next(packets), next(packets), next(packets)] == packets_in(data)[:3]
        os.close(writing)


# -- gzip ----------------------------------------------------------------------------------------------------


@each_capture
def test_gzip_of_one_or_several_members_is_what_is_in_it(data: bytes) -> None:
    whole = packets_in(data)
    assert packets_in(gzip.compress(data)) == whole
    members = [gzip.compress(data[:30]), gzip.compress(b""), gzip.compress(data[30:101]), gzip.compress(data[101:])]
    assert packets_in(b"".join(members)) == whole
    assert packets_in(b"\0\0\0".join([*members, b""])) == whole
    assert read_all(b"".join(members), read_size=1) == whole


def test_gzip_of_more_than_one_chunk_is_read_whole() -> None:
    # The most that a chunk of compressed bytes can hold is a thousand times as much.
    packet = PACKETS[0] + bytes(60_000)
    data = pcap_bytes([packet] * 40)
    assert len(data) > 4 * CHUNK_SIZE
    assert [p.data for p in packets_in(gzip.compress(data))] == [packet] * 40


def test_gzip_that_is_cut_anywhere_gives_what_could_be_read_and_a_finding() -> None:
    data = SMALL_CAPTURES["pcap"]
    whole = packets_in(data)
    compressed = gzip.compress(data)
    counts: set[int] = set()
    for size in range(14, len(compressed)):
        try:
            found = read_all(compressed[:size])
        except InputError:
            # Not even a magic came out of it.
            assert counts == set()
            continue
        packets = [r for r in found if isinstance(r, Packet)]
        assert packets == whole[: len(packets)]
        assert "GZIP_TRUNCATED" in [r.name for r in found if isinstance(r, Finding)]
        counts.add(len(packets))
    assert len(whole) in counts


def test_damaged_gzip_gives_what_comes_before_the_damage() -> None:
    rng = random.Random(1)
    packets = [PACKETS[0] + rng.randbytes(500) for _ in range(200)]
    compressed = bytearray(gzip.compress(pcap_bytes(packets)))
    compressed[len(compressed) // 2] ^= 0x55
    compressed[len(compressed) // 2 + 1] ^= 0x55
    found = read_all(bytes(compressed))
    read = [r.data for r in found if isinstance(r, Packet)]
    assert read[:90] == packets[:90]
    assert "GZIP_DAMAGED" in [r.name for r in found if isinstance(r, Finding)]


def test_a_wrong_check_value_and_bytes_behind_gzip_are_findings() -> None:
    whole = packets_in(SMALL_CAPTURES["pcap"])
    compressed = gzip.compress(SMALL_CAPTURES["pcap"])
    wrong = compressed[:-8] + bytes([compressed[-8] ^ 1]) + compressed[-7:]
    for data, got in (
        (wrong, "damaged data"),
        (compressed + b"something else", "other bytes"),
        (compressed + b"\0\x1f", ""),
    ):
        *packets, finding = read_all(data)
        assert packets == whole
        assert isinstance(finding, Finding)
        assert finding.name == ("GZIP_DAMAGED" if got else "GZIP_TRUNCATED")
        assert finding.got.startswith(got)
        assert finding.offset == len(SMALL_CAPTURES["pcap"])


def test_gzip_is_live_too() -> None:
    data = SMALL_CAPTURES["pcap"]
    compress = zlib.compressobj(wbits=31)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as stream:
        os.write(writing, compress.compress(data[:-20]) + compress.flush(zlib.Z_SYNC_FLUSH))
        packets = read_source(stream, count(1))
        assert [next(packets), next(packets), next(packets)] == packets_in(data)[:3]
        os.close(writing)


# -- Raw bytes -------------------------------------------------------------------------------------------------


def test_raw_frames_are_one_stream_of_a_flow_that_does_not_know_its_sides() -> None:
    numbers = count(7)
    (item,) = read_source(io.BytesIO(FRAMES), numbers)
    assert isinstance(item, StreamData)
    assert (item.data, item.offset, item.time_ns) == (FRAMES, 0, None)
    assert (item.flow.number, item.flow.kind, item.flow.knows_sides) == (7, FlowKind.BYTES, False)
    assert str(item.flow.caller) == "input"
    assert next(numbers) == 8


@pytest.mark.parametrize("distance", [1, 500, FRAME_SEARCH_SIZE - 40])
def test_bytes_in_which_a_frame_begins_somewhere_are_raw(distance: int) -> None:
    data = b"\x00PG" + b"\xee" * (distance - 1) + FRAMES
    assert stream_bytes(read_all(data)) == data
    assert stream_bytes(read_all(data, read_size=333)) == data


def test_bytes_without_any_frame_are_refused() -> None:
    with pytest.raises(InputError, match="no frame begins in it"):
        read_all(b"\x00PG\x01" * 20_000)


# -- What it is not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\x1f\x8b\x08\x00", "nothing could be read"),
        (gzip.compress(gzip.compress(SMALL_CAPTURES["pcap"], mtime=0), mtime=0), "gzip within gzip"),
        (b"snoop\0\0\0\0\0\0\2\0\0\0\4", "a snoop capture"),
        (b"\x34\xcd\xb2\xa1" + bytes(20), "a modified kind"),
        (b"\xfd7zXZ\0" + bytes(20), "xz -dc"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "zstd -dc"),
        (b"BZh91AY&SY", "bzip2 -dc"),
        (b"PK\x03\x04" + bytes(20), "a ZIP archive"),
        (b"\x7fELF\x02\x01\x01" + bytes(20), "a program"),
        (b'{"kind": "Hello"}', "paygate-dump encode"),
        (b'[\n {"kind": "Hello"}]', "JSON"),
        (b"-----BEGIN PUBLIC KEY-----\n", "a PEM file"),
        (b"The quick brown fox\njumps over the lazy dog.\n", "no pcap"),
        (b"\xd4\xc3", "no pcap"),
        ("5047 0110\n".encode("utf-16-le").join((b"\xff\xfe", b"")), "iconv -f utf-16 -t utf-8"),
        ("5047 0110\n".encode("utf-16-be").join((b"\xfe\xff", b"")), "iconv -f utf-16 -t utf-8"),
        (b"\xff\xfe and whatever", "no pcap"),
        (b'\xef\xbb\xbf{"kind": "Hello"}', "paygate-dump encode"),
        (bytes(5_000), "no pcap"),
    ],
)
def test_what_is_no_capture_is_told_by_its_name(data: bytes, expected: str) -> None:
    for read_size in (None, 1):
        with pytest.raises(InputError, match=expected) as caught:
            read_all(data, read_size=read_size)
        assert caught.value.code is ExitCode.USAGE


def test_nothing_is_shown_of_an_input_that_is_unknown() -> None:
    with pytest.raises(InputError) as caught:
        read_all(b"Zq9wXv7K\n")
    assert "Zq" not in str(caught.value)
    assert b"Zq".hex(" ") not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such file or directory"):
        open_input(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="is a directory"):
        open_input(str(tmp_path))


def test_a_file_is_read_to_the_end_that_it_has_by_then(tmp_path: Path) -> None:
    path = tmp_path / "growing.pcap"
    data = SMALL_CAPTURES["pcap"]
    path.write_bytes(data[:-150])
    with open_input(str(path)) as stream, path.open("ab") as growing:
        packets = read_source(stream, count(1))
        first = next(packets)
        growing.write(data[-150:])
        growing.flush()
        assert [first, *packets] == packets_in(data)


def test_a_read_error_ends_the_input_with_a_finding() -> None:
    class Broken(Trickle):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            if not (size := super().readinto(buffer)):
                raise OSError(5, "Input/output error")
            return size

    *packets, finding = read_source(Broken(SMALL_CAPTURES["pcap"], 50), count(1))  # type: ignore[arg-type]
    assert packets == packets_in(SMALL_CAPTURES["pcap"])
    assert isinstance(finding, Finding)
    assert (finding.name, finding.got) == ("INPUT_UNREADABLE", "input/output error")


def test_a_non_blocking_standard_input_is_waited_for() -> None:
    class Empty(Trickle):
        """As FileIO.read, which gives None where a read would have to wait."""

        def __init__(self, data: bytes, fd: int) -> None:
            super().__init__(data, 40)
            self._fd, self._is_ready = fd, False

        def fileno(self) -> int:
            return self._fd

        def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
            self._is_ready = not self._is_ready
            return None if self._is_ready else super().readinto(buffer)

    reading, writing = os.pipe()
    os.write(writing, b"ready")
    try:
        found = list(read_source(Empty(SMALL_CAPTURES["pcap"], reading), count(1)))  # type: ignore[arg-type]
    finally:
        os.close(reading)
        os.close(writing)
    assert found == packets_in(SMALL_CAPTURES["pcap"])


# -- Anything ------------------------------------------------------------------------------------------------


@st.composite
def damaged_inputs(draw: st.DrawFn) -> bytes:
    """One of the inputs, with bytes changed, cut out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(list(INPUTS.values()))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


def _outcome(data: bytes, read_size: int | None) -> Iterator[object]:
    try:
        yield from plain(read_all(data, read_size=read_size))
    except InputError as error:
        yield str(error)


@given(damaged_inputs())
def test_whatever_is_damaged_nothing_is_raised_and_packets_do_not_depend_on_how_they_come(data: bytes) -> None:
    at_once, one_by_one = list(_outcome(data, None)), list(_outcome(data, 1))
    if all(isinstance(r, tuple) and len(r) == 1 for r in at_once):
        assert one_by_one == at_once
    else:
        assert bool(one_by_one) == bool(at_once)


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xd4\xc3\xb2\xa1", b"\n\r\r\n", b"PG", b"0000  50 47", b"\x1f\x8b\x08"]),
)
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    for r in _outcome(magic + data, None):
        assert isinstance(r, tuple | str)


def test_what_a_number_in_the_input_asks_for_is_never_taken() -> None:
    import tracemalloc

    huge = b"\xff\xff\xff\x7f"
    for data in (
        pcap_bytes(PACKETS)[:32] + huge + pcap_bytes(PACKETS)[36:],
        pcapng_bytes(PACKETS)[:-40] + b"\x06\0\0\0\xf0\xff\xff\x7f" + bytes(100),
    ):
        tracemalloc.start()
        try:
            read_all(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # BytesIO and one chunk.
        assert peak < 4 * CHUNK_SIZE
