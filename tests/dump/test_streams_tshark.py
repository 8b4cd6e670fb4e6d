"""The bytes of each stream are those of `tshark -z follow,tcp,raw`, wherever tshark is right.

Where it is not, the table below tells what tshark 4.0 says instead, and why that is not what was sent; the tests hold
that too, so that the claim is checked.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from dump.builders import CLIENT
from dump.tcp_cases import CASES, pcap_of, reassembled, streams
from outside_tools import unavailable

from paygate.dump.model import Endpoint, Segment, Side

Streams = dict[tuple[int, Side], bytes]
"""The bytes of each direction of each connection that has any; connections count from 1."""

ASKING: Final = (1, Side.CALLER)
ANSWERING: Final = (1, Side.ANSWERER)


class Difference(NamedTuple):
    """What tshark makes of a capture, and why that is not what was sent."""

    streams: Streams
    reason: str


_GAP: Final = "It writes a gap into the stream as text, with a zero byte, where ours is an item beside the bytes."

DIFFERENCES: Final = {
    "gap_acknowledged": Difference({ASKING: b"abc[5 bytes missing in capture file]\0ijklmn"}, _GAP),
    "gap_acknowledged_before": Difference(
        {ASKING: b"abc[5 bytes missing in capture file]\0ijk", ANSWERING: b"ok"}, _GAP
    ),
    "gap_at_the_start": Difference({ASKING: b"[5 bytes missing in capture file]\0fghi", ANSWERING: b"ok"}, _GAP),
    "gap_filled_too_late": Difference({ASKING: b"abc[3 bytes missing in capture file]\0ghijkl"}, _GAP),
    "gap_never_acknowledged": Difference(
        {ASKING: b"abc"}, "It leaves out what was captured behind a gap that nobody acknowledged."
    ),
    "reset": Difference({ASKING: b"abc"}, "The same: the reset does not acknowledge the bytes before the gap."),
    "overlap_of_held_bytes_differs": Difference(
        {ASKING: b"abCdEFghij"},
        "Of bytes out of order it takes the segment that begins first, not the one that came first: the receiver had "
        "stored the others already.",
    ),
    "data_before_syn": Difference(
        {
            ASKING: b"def",
            (2, Side.CALLER): b"[6 bytes missing in capture file]\0ghi",
            (2, Side.ANSWERER): b"ok",
        },
        "It takes the SYN for another connection, and loses bytes of the first one.",
    ),
    "mid_stream_out_of_order": Difference(
        {ASKING: b"def", ANSWERING: b"ok"}, "It begins with the first segment in the file, and loses the one before it."
    ),
    "keepalive_first": Difference(
        {ASKING: b"\0abc", ANSWERING: b"ok"}, "It takes the garbage byte of a probe for the stream's first byte."
    ),
    "bytes_after_fin": Difference({ASKING: b"abcno"}, "It goes on behind a FIN, where no receiver would."),
    "bytes_after_reset": Difference(
        {ASKING: b"abc", ANSWERING: b"on its way"},
        "No difference in bytes: it shows them in the connection that was reset, ours in a flow of their own.",
    ),
}


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Streams]:
    """What tshark follows, by the case: all of them in one capture, each with a client address of its own."""
    if shutil.which("tshark") is None:
        unavailable("tshark is missing")
    hosts = {f"10.0.0.{number}": name for number, name in enumerate(CASES, start=1)}
    path = tmp_path_factory.mktemp("tshark") / "capture.pcap"
    path.write_bytes(pcap_of([s for host, name in hosts.items() for s in _moved(CASES[name]().segments, host)]))
    # No case has more than two connections.
    options = [word for number in range(2 * len(CASES)) for word in ("-z", f"follow,tcp,raw,{number}")]
    printed = subprocess.run(
        ["tshark", "-n", "-q", "-r", path, *options], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return _read(printed, hosts)


def _moved(segments: list[Segment], host: str) -> Iterator[Segment]:
    client = Endpoint(*CLIENT)
    for segment in segments:
        source, target = (end._replace(host=host) if end == client else end for end in (segment.source, segment.target))
        yield segment._replace(source=source, target=target)


def _read(printed: str, hosts: dict[str, str]) -> dict[str, Streams]:
    found: dict[str, Streams] = {name: {} for name in CASES}
    counts = dict.fromkeys(CASES, 0)
    # The last one that was asked for comes first.
    blocks = sorted(printed.split("Filter: tcp.stream eq ")[1:], key=lambda block: int(block.split("\n", 1)[0]))
    for _, _, block in (numbered.partition("\n") for numbered in blocks):
        nodes = re.findall(r"^Node [01]: (.*):(\d+)$", block, re.MULTILINE)
        clients = [number for number, (_, port) in enumerate(nodes) if int(port) == CLIENT[1]]
        if not clients:
            continue  # There is no connection with so high a number.
        name = hosts[nodes[clients[0]][0]]
        counts[name] += 1
        for indent, digits in re.findall(r"^(\t?)([0-9a-f]+)$", block, re.MULTILINE):
            key = counts[name], Side.CALLER if len(indent) == clients[0] else Side.ANSWERER
            found[name][key] = found[name].get(key, b"") + bytes.fromhex(digits)
    return found


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENCES])
def test_tshark_follows_the_same_bytes(name: str, followed: dict[str, Streams]) -> None:
    assert followed[name] == streams(reassembled(CASES[name]().segments))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_tshark_differs_it_says_what_the_table_tells(name: str, followed: dict[str, Streams]) -> None:
    assert followed[name] == DIFFERENCES[name].streams
    assert followed[name] != streams(reassembled(CASES[name]().segments))
