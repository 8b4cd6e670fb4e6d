"""Hexadecimal text, as people paste it and as programs print it, gives the bytes; a bad line is a finding."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from builders import example
from dump.builders import CLIENT, SERVER, ethernet, pcap_bytes, tcp_packet
from dump.reading import findings_in, read_all, stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from outside_tools import unavailable

from paygate.codec.codes import Kind
from paygate.codec.frame import encode_frame
from paygate.dump.hextext import LINE_SIZE_MAX
from paygate.dump.model import Finding, Packet

FRAME: Final = encode_frame(example(Kind.TOKEN_QUERY), 2)
FIRST: Final = "50 47 01 10"
SPEC: Final = Path(__file__).parents[2] / "spec" / "protocol.md"


def bytes_of(text: str) -> bytes:
    """The stream of a text without bad lines."""
    assert findings_in(text.encode()) == []
    assert stream_bytes(read_all(text.encode(), read_size=5)) == stream_bytes(read_all(text.encode()))
    return stream_bytes(read_all(text.encode()))


@pytest.mark.parametrize(
    "text",
    [
        "50470110",
        "50 47 01 10",
        "5047 0110\n",
        "5047\n0110\n",
        "  50:47:01:10  \r\n",
        "0x50, 0x47, 0x01,\n0x10,",
        r"\x50\x47\x01\x10",
        "# a frame\n\n50 47 # the magic\n\n01 10 # version and kind",
        "5047  0110",
        "0000  50 47      magic\n0002  01         version\n0003  10         kind\n",
        "0000  50 47 01 10  PG..",
        "0000   50 47 01 10   PG..",
        "00000000: 5047 0110                                PG..",
        "0x0000:  5047 0110  PG..",
        "00000000  50 47 01 10                                       |PG..|\n00000004\n",
        "000000 50 47\n000002 01 10\n000004\n",
        "0014  50 47 01  an excerpt\n0017  10\n",
        "```text\n0000  50 47 01 10\n```\n",
        "0000  5047\n\n0000  0110\n",
        "**1. gateway → bank**, 43 bytes.\n0000  50 47 01\n0003  10   kind = 0x10\n",
    ],
)
def test_every_form_of_line_gives_its_bytes(text: str) -> None:
    assert bytes_of(text) == bytes.fromhex(FIRST)
    assert bytes_of(text.upper().replace("\\X", "\\x")) == bytes.fromhex(FIRST)


def test_a_column_of_characters_is_never_read_as_bytes() -> None:
    data = b"deadbeef 0123  4567 ab cd|ef #12" * 3
    lines = [f"{at:08x}: {data[at : at + 16].hex(' ', 2)}  {data[at : at + 16].decode()}" for at in range(0, 96, 16)]
    assert bytes_of("\n".join(lines)) == data
    lines = [f"{at:04x}  {data[at : at + 16].hex(' ')}  {data[at : at + 16].decode()}" for at in range(0, 96, 16)]
    assert bytes_of("\n".join(lines)) == data


@pytest.mark.parametrize(
    "command",
    [
        ["xxd"],
        ["xxd", "-p"],
        ["xxd", "-p", "-c0"],
        ["xxd", "-g1"],
        ["xxd", "-u", "-c", "8"],
        ["xxd", "-i"],
        ["hexdump", "-C"],
        ["od", "-A", "x", "-t", "x1"],
        ["od", "-A", "x", "-t", "x1z", "-v"],
    ],
    ids=" ".join,
)
def test_what_other_programs_print_is_read(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        unavailable(f"{command[0]} is missing")
    for data in (FRAME, FRAME + bytes(64) + FRAME, b"PG" + bytes(range(256)) * 3):
        path = tmp_path / "data"
        path.write_bytes(data)
        # -i as a filter prints the list of numbers alone.
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, timeout=20, check=True)
        assert bytes_of(done.stdout.decode()) == data


def test_the_session_of_the_specification_can_be_pasted() -> None:
    section = SPEC.read_text().partition("## 12. ")[2]
    blocks = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    # Recomputed here from the table's second column, without the reader.
    frames = [
        bytes.fromhex("".join(line[6:53] for line in block.splitlines() if re.match(r"[0-9a-f]{4}  ", line)))
        for block in blocks
    ]
    assert len(frames) > 10
    assert bytes_of("\n".join(blocks)) == b"".join(frames)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("50 4z", "no hexadecimal digit"),
        ("50 4", "odd number of digits"),
        ("what is this", "no hexadecimal digit"),
        ("0004: 50 4z", "no hexadecimal digit"),
        ("0004  50 47 oops", "no hexadecimal digit"),
    ],
)
def test_a_bad_line_is_a_finding_with_its_number_and_the_others_count(line: str, expected: str) -> None:
    found = read_all(f"5047\n{line}\n0110\n".encode())
    (finding,) = [r for r in found if isinstance(r, Finding)]
    assert (finding.name, finding.number, finding.offset) == ("BAD_HEX", 2, 5)
    assert expected in finding.got
    assert stream_bytes(found) == bytes.fromhex(FIRST)


def test_a_fault_of_many_lines_in_a_row_is_told_once_with_their_number() -> None:
    text = "5047\n" + "nonsense\n\n" * 1_000 + "0110\nnonsense\n" + "5047\n" + "odd\n4\n"
    found = read_all(text.encode())
    told = [(f.name, f.number, f.got) for f in found if isinstance(f, Finding)]
    digit, count = "a character that is no hexadecimal digit", "such lines in a row, of which this is the last"
    assert told == [
        ("BAD_HEX", 2, digit),
        ("BAD_HEX", 2_000, f"1000 {count}"),
        ("BAD_HEX", 2_003, digit),
        ("BAD_HEX", 2_005, digit),
        ("BAD_HEX", 2_006, f"2 {count}"),
    ]
    assert stream_bytes(found) == bytes.fromhex("5047 0110 5047")


def test_offsets_that_count_otherwise_are_told_once_and_the_bytes_count() -> None:
    lines = [f"{at * 16:07o}  " + " ".join(["50"] * 16) for at in range(40)]
    found = read_all("\n".join(lines).encode())
    assert [f.name for f in found if isinstance(f, Finding)] == ["BAD_HEX_OFFSET"] * 2
    assert stream_bytes(found) == b"\x50" * 640


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    mark = b"\xef\xbb\xbf"
    for text in (b"5047 0110\n", b"0000  50 47\n0002  01 10\n", b"# nothing\n5047 0110"):
        for size in (None, 1):
            found = read_all(mark + text, read_size=size)
            assert findings_in(mark + text) == []
            assert stream_bytes(found) == bytes.fromhex(FIRST)
    (finding,) = findings_in(mark + b"50 4z\n5047 0110\n")
    assert (finding.number, finding.offset) == (1, 3)


def test_what_tshark_prints_above_a_stream_is_no_fault() -> None:
    head = "\n===================================\nFollow: tcp,raw\nFilter: tcp.stream eq 0\n"
    nodes = "Node 0: 127.0.0.1:40000\nNode 1: 127.0.0.1:15000\n"
    text = f"{head}{nodes}5047\n\t0110\n===================================\n".encode()
    assert findings_in(text) == []
    assert stream_bytes(read_all(text)) == bytes.fromhex(FIRST)


def test_a_finding_shows_nothing_of_its_line() -> None:
    # What somebody mistyped may be a passcode.
    (finding,) = findings_in(b"5047\n34 37 31 31 x\n")
    assert "34" not in finding.got + finding.expected


def test_a_missing_line_of_a_dump_is_a_finding() -> None:
    text = "0000  50 47\n0004  01 10\n"
    (finding,) = findings_in(text.encode())
    assert (finding.name, finding.expected, finding.got) == ("BAD_HEX_OFFSET", "the offset 0002", "0004")
    assert stream_bytes(read_all(text.encode())) == bytes.fromhex(FIRST)


def test_a_huge_line_is_read_in_pieces() -> None:
    data = b"PG" + bytes(range(256)) * 2_000
    for text in (data.hex(), data.hex(" "), data.hex(":", 2)):
        assert len(text) > 3 * LINE_SIZE_MAX
        assert stream_bytes(read_all(text.encode())) == data
        assert findings_in(text.encode()) == []


def test_a_block_that_is_a_packet_is_one() -> None:
    first, second = tcp_packet(FRAME), tcp_packet(b"reply", source=("::1", 15_000), target=("::1", 40_000))
    dump = "\n".join(f"0x{at:04x}:  {first[at : at + 16].hex(' ', 2)}" for at in range(0, len(first), 16))
    framed = ethernet(second, size_min=90)
    other = "\n".join(f"{at:04x}   {framed[at : at + 16].hex(' ')}" for at in range(0, len(framed), 16))
    # The number is that of the first line.
    assert read_all(f"{dump}\n{other}\n".encode()) == [
        Packet(1, None, 0, 101, first, len(first)),
        Packet(1 + dump.count("\n") + 1, None, 0, 1, framed, len(framed)),
    ]


@pytest.mark.parametrize(
    "options", [["-x"], ["-X"], ["-xx"], ["-XX"], ["-x", "-t"], ["-X", "-v", "-tttt"]], ids=" ".join
)
@pytest.mark.parametrize("link_type", [1, 101])
def test_what_tcpdump_prints_is_its_packets(options: list[str], link_type: int, tmp_path: Path) -> None:
    if shutil.which("tcpdump") is None:
        unavailable("tcpdump is missing")
    packets = [tcp_packet(FRAME), tcp_packet(b"ok", source=SERVER, target=CLIENT), tcp_packet(FRAME * 3, sequence=99)]
    sent = [ethernet(p) for p in packets] if link_type == 1 else packets
    path = tmp_path / "packets.pcap"
    path.write_bytes(pcap_bytes(sent, link_type=link_type))
    command = ["tcpdump", "-n", *options, "-r", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    found = read_all(done.stdout)
    has_link_layer = options[0] in ("-xx", "-XX")
    assert [r.data for r in found if isinstance(r, Packet)] == (sent if has_link_layer else packets)
    assert not [r for r in found if not isinstance(r, Packet)]


@given(
    st.binary(min_size=1, max_size=300), st.sampled_from(["xxd", "annotated", "plain", "carray"]), st.integers(1, 16)
)
def test_any_bytes_survive_every_form(data: bytes, form: str, width: int) -> None:
    data = b"PG" + data
    pieces = [(at, data[at : at + width]) for at in range(0, len(data), width)]
    lines = {
        "xxd": [f"{at:08x}: {p.hex(' ', 2)}  {p.decode('latin-1')!a}" for at, p in pieces],
        "annotated": [f"{at:04x}  {p.hex(' ')}   # what it is" for at, p in pieces],
        "plain": [p.hex() for _, p in pieces],
        "carray": [", ".join(f"0x{b:02x}" for b in p) + "," for _, p in pieces],
    }[form]
    assert bytes_of("\n".join(lines)) == data


@given(st.text(st.sampled_from("0123456789abcdefxPG:|#*, \n\t-"), max_size=200))
def test_no_text_raises(text: str) -> None:
    for r in read_all(f"5047\n{text}".encode()):
        assert not isinstance(r, Packet)
