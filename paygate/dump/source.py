"""Opens an input and finds out what it is, by what stands in it (R24); each kind has a reader of its own."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec import limits
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import MAGIC, decode_head
from paygate.dump import hextext, pcap, pcapng
from paygate.dump.model import Finding, Packet, Side, StreamData
from paygate.dump.window import GZIP_MAGIC, Window

FRAME_SEARCH_SIZE: Final = 0x10000
"""Bytes at an input's beginning in which a frame's header makes it raw bytes: any frame is smaller, so that in a stream
cut anywhere the next one begins in them."""

_OTHERS: Final = (
    (b"snoop\0\0\0", "a snoop capture; convert it: editcap -F pcapng FILE - | paygate-dump -"),
    (b"\x34\xcd\xb2\xa1", "a pcap file of a modified kind; convert it: editcap -F pcapng FILE - | paygate-dump -"),
    (b"\xa1\xb2\xcd\x34", "a pcap file of a modified kind; convert it: editcap -F pcapng FILE - | paygate-dump -"),
    (b"GMBU", "a Network Monitor capture; convert it: editcap -F pcapng FILE - | paygate-dump -"),
    (b"RTSS", "a Network Monitor capture; convert it: editcap -F pcapng FILE - | paygate-dump -"),
    (b"\xfd7zXZ\0", "compressed with xz; only gzip is read: xz -dc FILE | paygate-dump -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; only gzip is read: zstd -dc FILE | paygate-dump -"),
    (b"BZh", "compressed with bzip2; only gzip is read: bzip2 -dc FILE | paygate-dump -"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; only gzip is read: lz4 -dc FILE | paygate-dump -"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x7fELF", "a program (ELF)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"-----BEGIN ", "a PEM file"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG", "an image"),
)
"""What else people have lying around, by its first bytes."""
_UTF16: Final = re.compile(rb"\xff\xfe[\t-~]\0|\xfe\xff\0[\t-~]")
"""A byte order mark and a character of ASCII, as in what a PowerShell writes; a mark alone may be any two bytes."""


class InputError(PaygateExit):
    """The input can't be opened, or is none that this program knows."""

    code = ExitCode.USAGE


def open_input(path: str) -> BinaryIO:
    """Open a file for reading, or standard input for "-"; unbuffered, so that nothing is waited for in vain.

    Raises InputError.
    """
    try:
        if path == "-":
            return os.fdopen(0, "rb", buffering=0, closefd=False)
        return Path(path).open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or type(error).__name__).lower()}") from None


def read_source(stream: BinaryIO, flow_numbers: Iterator[int]) -> Iterator[Packet | StreamData | Finding]:
    """Everything that a capture, hexadecimal text or raw bytes hold, gzipped or not, as it comes.

    Raises InputError if the input is nothing of that.
    """
    window = Window(stream)
    window.need(len(GZIP_MAGIC))
    if window.data.startswith(GZIP_MAGIC):
        window.begin_gzip()
    yield from _reader(window, flow_numbers)
    yield from window.findings


def _reader(window: Window, flow_numbers: Iterator[int]) -> Iterator[Packet | StreamData | Finding]:
    window.need(4)
    magic = window.data[:4]
    if magic in pcap.MAGICS:
        return pcap.read_pcap(window)
    if magic == pcapng.MAGIC:
        return pcapng.read_pcapng(window)
    if magic.startswith(MAGIC):
        return _read_raw(window, flow_numbers)
    _refuse_others(window)
    if hextext.is_hex_text(window):
        return hextext.read_hex_text(window, flow_numbers)
    if _has_frame(window):
        return _read_raw(window, flow_numbers)
    # Its bytes are not shown: what is no capture may be anything, a passcode too (R4).
    raise InputError(
        "the input is no pcap, pcapng or hexadecimal text, and no frame begins in it; nor is it gzip of one of these"
    )


def _refuse_others(window: Window) -> None:
    """Raise InputError if the input is something that has a name."""
    if not window.data:
        if window.findings:
            finding = window.findings[0]
            raise InputError(f"nothing could be read: expected {finding.expected}, got {finding.got}")
        raise InputError("the input is empty")
    if window.data.startswith(GZIP_MAGIC):
        raise InputError("the input is gzip within gzip; unpack it once: gunzip -c FILE | paygate-dump -")
    for magic, what in _OTHERS:
        # Only as much is waited for as can still be this.
        while len(window.data) < len(magic) and magic.startswith(window.data):
            if not window.need(len(window.data) + 1):
                break
        if window.data.startswith(magic):
            raise InputError(f"the input is {what}")
    if _UTF16.match(window.data):
        raise InputError("the input is text in UTF-16; convert it: iconv -f utf-16 -t utf-8 FILE | paygate-dump -")
    if window.data.startswith(hextext.BYTE_ORDER_MARK):
        window.need(2 * len(hextext.BYTE_ORDER_MARK))
    if re.match(rb'(?:\xef\xbb\xbf)?\s*[\[{]\s*["\]}{]', window.data):
        raise InputError("the input is JSON; to make frames of it: paygate-dump encode FILE | paygate-dump -")


def _has_frame(window: Window) -> bool:
    """Whether a header that checks stands near the beginning; moves nothing."""
    at = 0
    while at < FRAME_SEARCH_SIZE and window.need(at + limits.HEADER_SIZE):
        at = window.data.find(MAGIC, at, FRAME_SEARCH_SIZE)
        if at < 0:
            at = max(len(window.data) - len(MAGIC) + 1, 0)
            if not window.need(len(window.data) + 1):
                return False
            continue
        if not window.need(at + limits.HEADER_SIZE):
            return False
        try:
            decode_head(window.data[at : at + limits.HEADER_SIZE])
        except RemoteProtocolError:
            at += 1
        else:
            return True
    return False


def _read_raw(window: Window, flow_numbers: Iterator[int]) -> Iterator[StreamData]:
    flow = hextext.input_flow(flow_numbers)
    while window.need(1):
        offset = window.offset
        data = window.data[window.at :]
        window.at = len(window.data)
        yield StreamData(flow, Side.CALLER, offset, data, None, 1)
