"""The bytes of each stream are those of `tshark -z follow,tcp,raw`, wherever tshark is right.

Where it is not, the table below tells what tshark 4.0 says instead, and why that is not what was sent; the tests hold
that too, so that the claim is checked.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from dump.builders import CLIENT
from dump.tcp_cases import CASES, reassembled, streams
from outside_tools import unavailable

from paygate.dump.model import Side

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


def followed(capture: bytes, folder: Path) -> Streams:
    """What tshark follows of the first two connections."""
    if shutil.which("tshark") is None:
        unavailable("tshark is missing")
    path = folder / "capture.pcap"
    path.write_bytes(capture)
    options = [word for number in (0, 1) for word in ("-z", f"follow,tcp,raw,{number}")]
    printed = subprocess.run(
        ["tshark", "-n", "-q", "-r", path, *options], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found: Streams = {}
    flow, first_side = 0, Side.CALLER
    for line in printed.splitlines():
        if line.startswith("Filter: "):
            flow = int(line.rsplit(" ", 1)[1]) + 1
        elif line.startswith("Node 0: "):
            first_side = Side.CALLER if line.endswith(f":{CLIENT[1]}") else Side.ANSWERER
        elif re.fullmatch(r"\t?[0-9a-f]+", line):
            key = flow, first_side.other if line.startswith("\t") else first_side
            found[key] = found.get(key, b"") + bytes.fromhex(line.strip())
    return found


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENCES])
def test_tshark_follows_the_same_bytes(name: str, tmp_path: Path) -> None:
    wire = CASES[name]()
    assert followed(wire.pcap(), tmp_path) == streams(reassembled(wire.segments))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_tshark_differs_it_says_what_the_table_tells(name: str, tmp_path: Path) -> None:
    wire = CASES[name]()
    found = followed(wire.pcap(), tmp_path)
    assert found == DIFFERENCES[name].streams
    assert found != streams(reassembled(wire.segments))
