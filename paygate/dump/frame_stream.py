"""One direction's bytes to frames: where each begins and ends, and how the reading goes on behind what is none.

Strategy: while frames follow one another, whole ones are cut straight out of what came. At the first fault there is one
finding, and the search begins: for the earliest later place where a header is good and the checksum of the whole frame
holds, or, if the faulty header tells its size, for where that frame ends, if another header begins there. What lies
between is told as SKIPPED. Every decision rests on places in the stream alone, never on how its bytes were cut.

The search is bounded (T24): one regular expression finds what may be a header, one frame at a time is awaited, which is
never larger than its kind's maximum, and the bytes that checksums are tried on are rationed.
"""

import re
from bisect import bisect_left
from collections.abc import Callable
from enum import Enum
from typing import Final

from paygate.codec import limits
from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import (
    FLAG_AUTHENTICATED,
    FLAGS_KNOWN,
    MAGIC,
    Frame,
    body_size_range,
    decode_frame,
    decode_head,
)
from paygate.codec.messages import MESSAGES
from paygate.dump.findings import HEADER_PLACES, SECTIONS, OwnFinding, bytes_text, checksum_fault, header_fault
from paygate.dump.model import Finding, Flow, Item, SeenFrame, Side, StreamData, StreamEvent, StreamGap, StreamNote

LARGEST_FRAME_SIZE: Final = limits.HEADER_SIZE + max(body_size_range(kind)[1] for kind in MESSAGES) + limits.MAC_SIZE
"""No good frame is larger, so none is awaited longer: what one direction holds stays below it and one packet."""
LATE_SEARCH_SIZE_MAX: Final = 2 * LARGEST_FRAME_SIZE
"""Wherever a stream of good frames is entered, a whole frame ends within this."""
CHECKED_SIZE_FREE: Final = 4 * LARGEST_FRAME_SIZE
"""Bytes that searches may try checksums on at the beginning of a stream: by chance nothing looks like a header."""
CHECKED_PER_BYTE: Final = 16
"""So many more for each byte of the stream. CRC-32 does about a gigabyte a second, so bytes that were made of headers
which lie are still read at some megabytes a second; in such bytes a good frame may be missed."""
MARK_COST: Final = 200
"""Bytes that remembering one packet's time takes, while its bytes are held: a tuple and its numbers."""

_HEADER_SIZE: Final = limits.HEADER_SIZE


_HEADER_START: Final = MAGIC + bytes([limits.PROTOCOL_VERSION])


def _header_beginning() -> re.Pattern[bytes]:
    # All that a header fixes before its size: magic, version, a kind and known flags.
    kinds = b"".join(re.escape(bytes([kind])) for kind in Kind)
    flags = b"|".join(re.escape(bits.to_bytes(2)) for bits in range(FLAGS_KNOWN + 1) if not bits & ~FLAGS_KNOWN)
    return re.compile(re.escape(_HEADER_START) + b"[" + kinds + b"](?:" + flags + b")", re.DOTALL)


_SEARCH: Final = _header_beginning().search
_BEGINNING_SIZE: Final = len(_HEADER_START) + 3

ShowFrame = Callable[[Frame, Side, int, int | None, int], SeenFrame]
"""Makes what is shown of a frame from its side, offset, time and packet number."""


class End(Enum):
    """Why nothing more comes; the value says it of a frame that is not complete."""

    FINISHED = "the end of the stream (FIN)"
    RESET = "a reset of the connection (RST)"
    CLOSED = "the end of the connection"
    CAPTURE_ENDED = "the end of the capture"
    FORGOTTEN = "nothing more, since it was let go to keep the memory bounded"


class FrameStream:
    """One direction of a flow."""

    __slots__ = (
        "_base",
        "_checked_size",
        "_described_end",
        "_flow",
        "_is_aligned",
        "_is_late",
        "_lost_from",
        "_marks",
        "_missing_size",
        "_need",
        "_show",
        "_side",
        "counted_size",
        "has_header",
        "pending",
        "received_size",
    )

    def __init__(self, flow: Flow, side: Side, show: ShowFrame) -> None:
        self._flow = flow
        self._side = side
        self._show = show
        self.pending = bytearray()
        """What came and is not decided yet; empty between frames."""
        self._base = -1  # where `pending` begins in the stream; -1 before anything came
        self._need = 0  # how much of it must be there before anything can be decided
        self._marks: list[tuple[int, int | None, int]] = []  # up to which offset, when and in which packet it came
        self._is_aligned = True  # a frame begins where `pending` does; False while searching for one
        self._is_late = False  # searching since the capture began in mid-stream, and not because of a fault
        self._lost_from = 0  # where the search began, and with it what is skipped
        self._missing_size = 0  # bytes since then that the capture lacks
        self._checked_size = 0  # bytes that checksums were tried on in searches
        self._described_end = -1  # where the faulty frame ends, by its own header; -1 if it does not say
        self.has_header = False
        """Whether a frame was awaited whose first three bytes were a header's."""
        self.received_size = 0
        self.counted_size = 0
        """For whoever bounds the memory: the `held_size` that was counted last."""

    @property
    def held_size(self) -> int:
        """What is remembered of bytes that are not decided yet."""
        return len(self.pending) + MARK_COST * len(self._marks) if self.pending else 0

    def start_late(self) -> None:
        """The capture began in mid-stream: what comes first need not begin a frame, and then is no fault."""
        if self._base < 0:
            self._is_late = True

    def receive(self, item: StreamData) -> list[Item]:
        """The next bytes: the frames that are complete now, and what is wrong."""
        _, _, offset, data, time_ns, number = item
        size = len(data)
        self.received_size += size
        out: list[Item] = []
        at = 0
        if self._base < 0:
            self._begin(offset)
        if self._is_aligned and not self.pending:
            # A packet mostly holds whole frames: no copy but that of each frame.
            try:
                while size - at >= _HEADER_SIZE:
                    head = decode_head(data[at : at + _HEADER_SIZE])
                    end = at + head.frame_size
                    if end > size:
                        break
                    frame = decode_frame(head, data[at:end])
                    out.append(self._show(frame, self._side, offset + at, time_ns, number))
                    at = end
            except RemoteProtocolError:
                pass  # It is found again below, where there is time for it.
            self._base = offset + at
            if at == size:
                return out
            self._need = 0
        if self._marks:
            del self._marks[: bisect_left(self._marks, (self._base + 1,))]
        self._marks.append((offset + size, time_ns, number))
        self.pending += data[at:]
        if len(self.pending) >= self._need:
            self._advance(out, is_final=False)
        return out

    def receive_gap(self, gap: StreamGap) -> list[Item]:
        """Bytes are missing: a frame that they were part of is lost, and the next one is searched."""
        if self._base < 0:
            self._begin(gap.offset)
        in_frame = self._base if self._is_aligned and self.pending else None
        got = f"{bytes_text(gap.size)} missing"
        when = gap.time_ns, gap.number
        out: list[Item] = [
            self._finding(OwnFinding.BYTES_MISSING, "every byte of the stream", got, "", when, gap.offset, "", in_frame)
        ]
        self._give_up_pending(out)
        if self._is_aligned:
            self._start_search()
        self._base = gap.offset + gap.size
        self._missing_size += gap.size
        # Lost packets mostly end where a frame does: there a header's beginning will do.
        self._described_end = self._base
        return out

    def finish(self, end: End, time_ns: int | None, number: int) -> list[Item]:
        """Nothing more comes. A frame that is not complete is a finding, and whole frames in it come out."""
        out: list[Item] = []
        if self._base < 0:
            return out
        truncated_at = -1
        if self._is_aligned and self.pending:
            truncated_at = self._base
            out.append(self._truncated(end, time_ns, number))
        self._give_up_pending(out)
        if self._is_aligned:
            self._start_search()
        elif self._lost_from != truncated_at:
            self._tell_skipped(out)
        self._lost_from = self._described_end = self._base
        self._missing_size = 0
        return out

    # -- frame by frame ------------------------------------------------------------------------------------

    def _begin(self, offset: int) -> None:
        self._base = offset
        if offset > 0 or self._is_late:
            self._is_late = True
            self._start_search()
            # A capture mostly begins with a whole packet, and that with a frame: there a header's beginning will do.
            self._described_end = offset

    def _advance(self, out: list[Item], *, is_final: bool) -> None:
        while self._read_frame(out) if self._is_aligned else self._search_frame(out, is_final=is_final):
            pass

    def _read_frame(self, out: list[Item]) -> bool:
        """The frame that begins here; False while it is not all there."""
        pending = self.pending
        if len(pending) < _HEADER_SIZE:
            self._need = _HEADER_SIZE
            return False
        header = bytes(pending[:_HEADER_SIZE])
        try:
            head = decode_head(header)
        except RemoteProtocolError as error:
            if error.code > ErrorCode.UNSUPPORTED_VERSION:
                self.has_header = True
            at, got = header_fault(error, header)
            self._lose(out, error, at, error.expected, got, _described_size(error.code, header), _HEADER_SIZE)
            return True
        self.has_header = True
        size = head.frame_size
        if len(pending) < size:
            self._need = size
            return False
        data = bytes(pending[:size])
        try:
            frame = decode_frame(head, data)
        except RemoteProtocolError as error:
            at, right, got = checksum_fault(data[: _HEADER_SIZE + head.body_size])
            self._lose(out, error, at, f"{error.expected}, {right}", got, size, size)
            return True
        out.append(self._show(frame, self._side, self._base, *self._when(self._base + size)))
        self._drop(size)
        return True

    def _lose(
        self,
        out: list[Item],
        error: RemoteProtocolError,
        at: int,
        expected: str,
        got: str,
        described_size: int | None,
        judged_size: int,
    ) -> None:
        when = self._when(self._base + judged_size)
        section = SECTIONS[error.code]
        out.append(self._finding(error.code, expected, got, section, when, self._base + at, error.path, self._base))
        described_end = -1 if described_size is None else self._base + described_size
        self._start_search()
        self._described_end = described_end
        self._drop(1)

    def _truncated(self, end: End, time_ns: int | None, number: int) -> Finding:
        size = len(self.pending)
        try:
            head = decode_head(bytes(self.pending[:_HEADER_SIZE]))
            expected = f"{head.frame_size} bytes, a whole {MESSAGES[head.kind].__name__}"
        except RemoteProtocolError:
            expected = f"{_HEADER_SIZE} bytes of a header"
        when = (time_ns, number) if number else self._when(self._base + size)
        # Only what the peers did is a matter of the protocol.
        is_peers = end in (End.FINISHED, End.RESET, End.CLOSED)
        name = OwnFinding.FRAME_FORGOTTEN if end is End.FORGOTTEN else ErrorCode.TRUNCATED_FRAME
        section = SECTIONS[ErrorCode.TRUNCATED_FRAME] if is_peers else ""
        got = f"{bytes_text(size)}, then {end.value}"
        return self._finding(name, expected, got, section, when, self._base + size, "", self._base)

    # -- the search ----------------------------------------------------------------------------------------

    def _start_search(self) -> None:
        self._is_aligned = False
        self._lost_from = self._base
        self._missing_size = 0
        self._described_end = -1

    def _search_frame(self, out: list[Item], *, is_final: bool) -> bool:
        """Look at the next place where a frame may begin; False while more bytes are needed."""
        pending = self.pending
        found = _SEARCH(pending)
        start = len(pending) if found is None else found.start()
        after = self._described_end - self._base
        if 0 <= after <= start and after + len(_HEADER_START) <= len(pending):
            if pending.startswith(_HEADER_START, after):
                self._drop(after)
                return self._resume(out)
            self._described_end = -1
        if found is None:
            # The last bytes may be the first of a header.
            self._drop(max(start - (0 if is_final else _BEGINNING_SIZE - 1), 0))
            self._need = 0
            self._tell_late(out)
            return False
        self._drop(start)
        try:
            if len(pending) < _HEADER_SIZE:
                return self._await(_HEADER_SIZE, is_final=is_final)
            head = decode_head(bytes(pending[:_HEADER_SIZE]))
            size = head.frame_size
            if len(pending) < size:
                return self._await(size, is_final=is_final)
            if self._checked_size + size > CHECKED_SIZE_FREE + CHECKED_PER_BYTE * self._base:
                self._drop(1)
                return True
            self._checked_size += size
            decode_frame(head, bytes(pending[:size]))
        except RemoteProtocolError:
            self._drop(1)
            return True
        return self._resume(out)

    def _resume(self, out: list[Item]) -> bool:
        self._tell_skipped(out)
        self._is_aligned = True
        self._is_late = False
        return True

    def _await(self, size: int, *, is_final: bool) -> bool:
        if is_final:
            self._drop(1)
            return True
        self._need = size
        return False

    def _give_up_pending(self, out: list[Item]) -> None:
        # What seemed one long frame may be a wrong size that took in good frames.
        while self.pending:
            if self._is_aligned:
                self._start_search()
                self._drop(1)
            self._advance(out, is_final=True)

    def _tell_skipped(self, out: list[Item]) -> None:
        size = self._base - self._lost_from - self._missing_size
        if size > 0:
            # It comes with the good frame that ends it.
            when = self._when(self._base + 1)
            out.append(StreamNote(self._flow, self._side, StreamEvent.SKIPPED, self._lost_from, size, *when))

    def _tell_late(self, out: list[Item]) -> None:
        if not self._is_late or self._base - self._lost_from <= LATE_SEARCH_SIZE_MAX:
            return
        self._is_late = False
        expected = f"a frame within {bytes_text(LATE_SEARCH_SIZE_MAX)}, wherever a stream is entered"
        when = self._when(self._base)
        out.append(self._finding(OwnFinding.NO_FRAME_FOUND, expected, "none", "4.1", when, self._lost_from, "", None))

    # -- findings and bytes --------------------------------------------------------------------------------

    def _finding(
        self,
        name: ErrorCode | OwnFinding,
        expected: str,
        got: str,
        section: str,
        when: tuple[int | None, int],
        offset: int,
        path: str,
        frame_offset: int | None,
    ) -> Finding:
        time_ns, number = when
        return Finding(
            name.name, expected, got, section, number, time_ns, self._flow, self._side, offset, path, frame_offset
        )

    def _drop(self, size: int) -> None:
        del self.pending[:size]
        self._base += size

    def _when(self, end: int) -> tuple[int | None, int]:
        """When, and with which packet, the byte before `end` came."""
        marks = self._marks
        if not marks:
            return None, 0
        _, time_ns, number = marks[min(bisect_left(marks, (end,)), len(marks) - 1)]
        return time_ns, number


def _described_size(code: ErrorCode, header: bytes) -> int | None:
    """How large a frame is by a header that was refused; None if its size is not to be believed."""
    if code is ErrorCode.BAD_MAGIC:
        return None
    flags, body_size = (int.from_bytes(header[slice(*HEADER_PLACES[name])]) for name in ("flags", "body_size"))
    size = _HEADER_SIZE + body_size + (limits.MAC_SIZE if flags & FLAG_AUTHENTICATED else 0)
    return size if size <= LARGEST_FRAME_SIZE else None
