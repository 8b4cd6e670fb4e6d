r"""Reads hexadecimal text: what people paste, and what xxd, hexdump -C, od, Wireshark and tcpdump -x print.

A line is one of these; blanks at its ends don't count, and capital letters are small ones:

    plain    5047 0101 00010007       pairs of digits, with blanks, commas or colons between, each group perhaps
             0x50, 0x47  # comment    behind 0x or \x; a # ends it
    dump     0010  1b 84 0e d8 ...    an offset of 4 to 8 digits, perhaps behind 0x; then a colon, or two blanks, or one
             0x0010:  1b84 0ed8 ...   blank and bytes one by one; then bytes in groups with one blank between, after the
                                      eighth perhaps two. Two blanks (or ` |`) end the bytes: what comes then, a column
                                      of characters or an annotation as in spec section 12, is not read.
             002b                     an offset alone: the end (hexdump, xxd)
             *                        the line before again, up to the next line's offset (hexdump)
    nothing  # comment, ```, **title**, an empty line; what tcpdump prints above a packet, and tshark above a stream

An offset 0 begins a block; the other ones must go on where the line before ended. Without a colon, a line that begins
no block at 0 and goes on in none is plain if it can be. A block that is just one IP packet, perhaps in an Ethernet
frame, is a packet; everything else is bytes of one stream, in order. Any other line is a finding, and is left out; of
several in a row the first one is told, and then how many there were.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from paygate.codec.frame import MAGIC
from paygate.dump.model import Endpoint, Finding, Flow, FlowKind, Packet, Side, StreamData
from paygate.dump.window import Window

LINE_SIZE_MAX: Final = 0x40000
"""Characters of one line: the largest frame takes 131,142. A longer line is read in pieces of this size."""
BLOCK_SIZE_MAX: Final = 0x11000
"""Bytes that are kept to see whether they are a packet: IP's largest, and a link layer's header."""
HEAD_SIZE: Final = 0x1000
"""Characters at the beginning in which the first good line of hexadecimal text stands."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some editors begin UTF-8 with."""

BAD_HEX: Final = "BAD_HEX"
BAD_HEX_OFFSET: Final = "BAD_HEX_OFFSET"

_RAW_IP, _ETHERNET = 101, 1
_TEXT_BYTES: Final = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)))
_NOTHING: Final = re.compile(
    r"""\#.* | ```.* | \*\*.* | (?: \d{4}-\d\d-\d\d[ ])? \d\d:\d\d:\d\d\.\d+[ ].* | (?: [\d.]+[ ])? ip6?[ ].*
      | ={3,} | (?: follow | filter | node[ ]\d+ ):[ ].*
      | [0-9a-f.:]+ [ ]>[ ] [0-9a-f.:]+ :[ ].*""",
    re.VERBOSE,
)
_OFFSET: Final = re.compile(r"(?:0x)?([0-9a-f]{4,8})(?:(:)[ \t]*|[ \t]{2,}|[ \t](?=[0-9a-f]{2}(?:[ \t]|$))|$)")
_GROUPS: Final = re.compile(r"(?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+(?![0-9a-f]))*")
_BEHIND_BYTES: Final = re.compile(r"$|[ \t]{2}|\t| ?\||[ \t]*#")
_PREFIXES: Final = re.compile(r"(?:0x|\\x)(?=[0-9a-f])")
_SEPARATORS: Final = re.compile(r"[ \t,:]+")
_DIGITS: Final = re.compile(r"[0-9a-f]*")
_SECOND_HALF: Final = re.compile(r"  [0-9a-f]{2}(?: [0-9a-f]{2}(?![0-9a-f]))*")
_HALF_LINE_SIZE: Final = 23
"""Characters of eight bytes, one by one."""
_TCP: Final = 6


def is_hex_text(window: Window) -> bool:
    """Whether the input is text with a line of hexadecimal near its beginning; moves nothing."""
    begin = _text_begin(window)
    while True:
        end = window.data.find(b"\n", begin, HEAD_SIZE)
        is_last = end < 0 and (len(window.data) >= HEAD_SIZE or not window.need(len(window.data) + 1))
        if window.data[:HEAD_SIZE].translate(None, _TEXT_BYTES):
            return False
        if end < 0 and not is_last:
            continue
        line = _piece(window.data[begin:HEAD_SIZE]) if end < 0 else window.data[begin:end]
        if _is_good(_text(line)):
            return True
        if end < 0:
            return False
        begin = end + 1


def read_hex_text(window: Window, flow_numbers: Iterator[int]) -> Iterator[Packet | StreamData | Finding]:
    """Everything that the text holds, line by line; numbers are those of lines, from 1."""
    window.at += _text_begin(window)
    reader = _HexReader(flow_numbers)
    while True:
        end = window.data.find(b"\n", window.at)
        while end < 0 and len(window.data) - window.at < LINE_SIZE_MAX:
            seen = len(window.data) - window.at
            if not window.need(seen + 1):
                break
            end = window.data.find(b"\n", window.at + seen)
        offset = window.offset
        if 0 <= end <= window.at + LINE_SIZE_MAX:
            line = window.data[window.at : end]
            window.at = end + 1
            yield from reader.receive_line(_text(line), offset)
            reader.number += 1
        elif len(window.data) - window.at >= LINE_SIZE_MAX:
            piece = _piece(window.data[window.at : window.at + LINE_SIZE_MAX])
            window.at += len(piece)
            yield from reader.receive_line(_text(piece), offset)
        else:
            line = window.data[window.at :]
            window.at = len(window.data)
            yield from reader.receive_line(_text(line), offset)
            yield from reader.finish()
            yield from reader.end_run()
            return


def _text_begin(window: Window) -> int:
    return len(BYTE_ORDER_MARK) if window.data.startswith(BYTE_ORDER_MARK) else 0


def _piece(line: bytes) -> bytes:
    """As much of the beginning of a plain line as ends between two pairs of digits; it has an even size."""
    end = max(line.rfind(separator) for separator in (b" ", b",", b":", b"\t"))
    return line[: end + 1] if end > 0 else line


def _text(line: bytes) -> str:
    return line.decode("latin-1").strip().lower()


def _is_good(line: str) -> bool:
    if not line or _NOTHING.fullmatch(line):
        return False
    match = _OFFSET.match(line)
    if match is not None and _dump_bytes(line, match.end()):
        return True
    try:
        return bool(_plain_bytes(line))
    except ValueError:
        return False


def _plain_bytes(line: str) -> bytes:
    """The bytes of a plain line. Raises ValueError that says what is wrong, and shows none of it."""
    groups = _SEPARATORS.split(_PREFIXES.sub(" ", line.partition("#")[0]))
    for group in groups:
        if not _DIGITS.fullmatch(group):
            raise ValueError("a character that is no hexadecimal digit")
        if len(group) % 2:
            raise ValueError("a group with an odd number of digits")
    return bytes.fromhex("".join(groups))


def _dump_bytes(line: str, at: int) -> bytes | None:
    """The bytes of a dump's line whose offset ends at `at`; None if it is none."""
    first = _GROUPS.match(line, at)
    if first is None:
        return None
    text, end = first[0], first.end()
    if len(text) == _HALF_LINE_SIZE:
        second = _SECOND_HALF.match(line, end)
        if second is not None:
            text, end = text + second[0], second.end()
    return bytes.fromhex(text) if _BEHIND_BYTES.match(line, end) else None


class _HexReader:
    """Takes lines, gives what they hold."""

    def __init__(self, flow_numbers: Iterator[int]) -> None:
        self.number = 1
        """Of the line that comes next."""
        self._flow_numbers = flow_numbers
        self._flow: Flow | None = None
        self._stream_offset = 0
        self._block = bytearray()
        """What is kept of the block, since it may become a packet."""
        self._may_be_packet = False
        self._position: int | None = None
        """The offset at which the block goes on; None outside of one."""
        self._first_number = 0
        self._last = b""
        self._is_repeating = False
        self._has_bytes = False  # the line that is being read gave some
        self._latest_fault: Finding | None = None  # of a run of lines with the same
        self._fault_count = 0

    def receive_line(self, line: str, offset: int) -> Iterator[Packet | StreamData | Finding]:
        """One line, stripped and in small letters, that began at `offset` of the input."""
        self._has_bytes = False
        is_good = True
        for read in self._receive_line(line, offset):
            if isinstance(read, Finding):
                is_good = False
                yield from self._tell(read)
            else:
                yield read
        if is_good and self._has_bytes:
            yield from self.end_run()

    def _tell(self, fault: Finding) -> Iterator[Finding]:
        latest = self._latest_fault
        if latest is None or latest.name != fault.name:
            yield from self.end_run()
            self._fault_count = 1
            yield fault
        elif latest.number != fault.number:
            self._fault_count += 1
        self._latest_fault = fault

    def end_run(self) -> Iterator[Finding]:
        """Lines with the same fault have ended: how many there were, if more than the one that was told."""
        latest = self._latest_fault
        self._latest_fault = None
        if latest is not None and self._fault_count > 1:
            got = f"{self._fault_count} such lines in a row, of which this is the last"
            yield replace(latest, got=got)

    def _receive_line(self, line: str, offset: int) -> Iterator[Packet | StreamData | Finding]:
        if line.startswith("#"):
            return
        if not line or _NOTHING.fullmatch(line):
            yield from self.finish()
            return
        if line == "*" and self._last:
            self._is_repeating = True
            return
        match = _OFFSET.match(line)
        if match is not None:
            at, is_sure = int(match[1], 16), match[2] is not None
            goes_on = self._position is not None and (at == self._position or self._is_repeating)
            if match.end() == len(line) and not is_sure:
                if goes_on:
                    yield from self._go_on_at(at, offset)
                    yield from self.finish()
                    return
            else:
                data = _dump_bytes(line, match.end())
                if data is not None and (is_sure or goes_on or at == 0 or self._is_dump(line, match)):
                    yield from self._receive_dump(at, data, offset)
                    return
        try:
            data = _plain_bytes(line)
        except ValueError as error:
            yield Finding(BAD_HEX, "a line of hexadecimal", str(error), "", self.number, None, offset=offset)
            return
        yield from self.finish()
        if data:
            self._has_bytes = True
            yield self._stream_data(data, self.number)

    def finish(self) -> Iterator[Packet | StreamData]:
        """The block has ended."""
        data, self._block = bytes(self._block), bytearray()
        self._position, self._last, self._is_repeating = None, b"", False
        if not data:
            return
        link_type = _link_type_of(data) if self._may_be_packet else None
        if link_type is None:
            yield self._stream_data(data, self._first_number)
        else:
            yield Packet(self._first_number, None, 0, link_type, data, len(data))

    def _is_dump(self, line: str, match: re.Match[str]) -> bool:
        """Whether a line with an unexpected offset that no colon ends is a dump's nevertheless."""
        if not match[0].endswith(("  ", "\t")):
            return False
        if self._position is not None:
            return True
        try:
            _plain_bytes(line)
        except ValueError:
            return True
        return False

    def _receive_dump(self, at: int, data: bytes, offset: int) -> Iterator[Packet | StreamData | Finding]:
        if at == 0 and self._position != 0:
            yield from self.finish()
        else:
            yield from self._go_on_at(at, offset)
        if self._position is None:
            self._position = at
            self._first_number = self.number
            # An excerpt is no packet; and a frame's bytes need not wait for the block's end.
            self._may_be_packet = at == 0 and not data.startswith(MAGIC)
        self._has_bytes = True
        self._last = data
        self._position += len(data)
        yield from self._add(data)

    def _go_on_at(self, at: int, offset: int) -> Iterator[Packet | StreamData | Finding]:
        """The block's next line has this offset: fill in what `*` stands for, or begin anew if it does not fit."""
        if self._position is None:
            return
        missing = at - self._position
        if self._is_repeating and 0 <= missing <= BLOCK_SIZE_MAX and missing % len(self._last) == 0:
            self._position = at
            self._is_repeating = False
            yield from self._add(self._last * (missing // len(self._last)))
        elif missing:
            expected = f"the offset {self._position:04x}"
            yield Finding(BAD_HEX_OFFSET, expected, f"{at:04x}", "", self.number, None, offset=offset)
            yield from self.finish()

    def _add(self, data: bytes) -> Iterator[StreamData]:
        if self._may_be_packet:
            self._block += data
            if len(self._block) <= BLOCK_SIZE_MAX:
                return
            self._may_be_packet = False
            data, self._block = bytes(self._block), bytearray()
        if data:
            yield self._stream_data(data, self.number)

    def _stream_data(self, data: bytes, number: int) -> StreamData:
        if self._flow is None:
            self._flow = input_flow(self._flow_numbers)
        offset = self._stream_offset
        self._stream_offset += len(data)
        return StreamData(self._flow, Side.CALLER, offset, data, None, number)


def _link_type_of(data: bytes) -> int | None:
    """The link type of what is just one IP packet with TCP in it; None for anything else."""
    if _is_ip(data, is_exact=True):
        return _RAW_IP
    if data[12:14] in (b"\x08\x00", b"\x86\xdd") and _is_ip(data[14:], is_exact=False):
        return _ETHERNET
    return None


def _is_ip(data: bytes, *, is_exact: bool) -> bool:
    if len(data) < 40:
        return False
    if data[0] >> 4 == 4:
        size, is_tcp = int.from_bytes(data[2:4]), data[9] == _TCP
    elif data[0] >> 4 == 6:
        # Before TCP there may be extension headers; only a whole packet's size is sure then.
        size, is_tcp = 40 + int.from_bytes(data[4:6]), data[6] == _TCP or is_exact
    else:
        return False
    return is_tcp and (size == len(data) if is_exact else 40 <= size <= len(data))


def input_flow(flow_numbers: Iterator[int]) -> Flow:
    """The one flow of bytes that have no capture around them."""
    end = Endpoint("input", 0)
    return Flow(next(flow_numbers), FlowKind.BYTES, end, end, knows_sides=False)
