"""The part of an input that is in memory: bytes are read as they are needed, decompressed on the way (R24).

A number in the input never makes it take memory: bytes are kept because they have come, and because a reader that
has checked that number asked for them.
"""

import contextlib
import select
import zlib
from typing import BinaryIO, Final

from paygate.dump.model import Finding

CHUNK_SIZE: Final = 0x80000
"""Bytes asked for in one read of a file, and made in one step of decompression: large enough that the step costs
nothing beside the packets in it, and small beside any machine's memory."""
GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 16 + zlib.MAX_WBITS
"""Tells zlib to expect gzip's header and check its trailer (RFC 1952)."""

UNREADABLE: Final = "INPUT_UNREADABLE"
GZIP_TRUNCATED: Final = "GZIP_TRUNCATED"
GZIP_DAMAGED: Final = "GZIP_DAMAGED"


class Window:
    """Reads `stream` from its beginning to its end, once. `data[at:]` is what has come and is not used yet.

    Whoever uses bytes moves `at`. A read never waits for more than the first byte that comes, so that a live capture
    is seen packet by packet.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.data = b""
        self.at = 0
        self.findings: list[Finding] = []
        """What was wrong with the input as such, found while reading; at most two, since each ends it."""
        self._stream = stream
        # A buffered stream's read would wait until all that was asked for is there; read1 takes what is.
        self._read = getattr(stream, "read1", stream.read)
        self._came_size = 0
        self._has_ended = False
        self._gzip: _Gzip | None = None

    @property
    def offset(self) -> int:
        """Where `at` is in the input, in bytes, after decompression."""
        return self._came_size - len(self.data) + self.at

    def need(self, size: int) -> bool:
        """Whether `size` bytes can be used; reads until they have come, or the input ends, which moves `at` to 0."""
        have = len(self.data) - self.at
        if have >= size:
            return True
        parts = [self.data[self.at :]]
        while have < size:
            chunk = self._chunk()
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        self.at = 0
        self.data = b"".join(parts)
        return have >= size

    def skip(self, size: int) -> bool:
        """Use up `size` bytes without keeping them; False if the input ends before."""
        while True:
            have = len(self.data) - self.at
            if size <= have:
                self.at += size
                return True
            size -= have
            self.data, self.at = self._chunk(), 0
            if not self.data:
                return False

    def begin_gzip(self) -> None:
        """All that is not used yet, and all that comes, is gzip; from here on offsets are of what is in it."""
        self._gzip = _Gzip()
        self._gzip.receive(self.data[self.at :])
        self.data, self.at, self._came_size = b"", 0, 0

    def _chunk(self) -> bytes:
        """The next bytes of the input, as many as are there; none at its end, now and ever after."""
        chunk = self._plain_chunk()
        self._came_size += len(chunk)
        return chunk

    def _plain_chunk(self) -> bytes:
        if self._gzip is None:
            return self._raw_chunk()
        while True:
            data = self._gzip.output()
            if data:
                return data
            chunk = b"" if self._gzip.is_over else self._raw_chunk()
            if chunk:
                self._gzip.receive(chunk)
                continue
            self._has_ended = True
            if self._gzip.is_followed:
                self._end(
                    GZIP_DAMAGED, "nothing but gzip or zeros behind gzip", "other bytes; all before them was read"
                )
            elif self._gzip.is_damaged:
                self._end(GZIP_DAMAGED, "gzip whose check value holds", "damaged data; what came before it was read")
            elif self._gzip.is_cut:
                self._end(GZIP_TRUNCATED, "the end of the gzip data", "the end of the input; what came was read")
            return b""

    def _raw_chunk(self) -> bytes:
        while not self._has_ended:
            try:
                chunk: bytes | None = self._read(CHUNK_SIZE)
            except OSError as error:
                self._end(UNREADABLE, "the rest of the input", (error.strerror or type(error).__name__).lower())
                break
            if chunk is None:
                # Somebody made our standard input a non-blocking one.
                select.select([self._stream], [], [])
            elif chunk:
                return chunk
            else:
                self._has_ended = True
        return b""

    def _end(self, name: str, expected: str, got: str) -> None:
        self._has_ended = True
        if not any(finding.name == name for finding in self.findings):
            self.findings.append(Finding(name, expected, got, "", 0, None, offset=self._came_size))


class _Gzip:
    """Decompresses one member after the other (RFC 1952 2.2); zeros between and behind them are padding."""

    def __init__(self) -> None:
        self.is_damaged = False
        """Nothing more can come of it: it is no gzip any more, or its check value is wrong."""
        self.is_followed = False
        """Nothing more can come of it: behind a whole member stands something else."""
        self._compressed = b""
        self._member = zlib.decompressobj(_GZIP)
        self.is_within_member = True
        self._has_more = False

    @property
    def is_cut(self) -> bool:
        """Whether it is not whole if nothing more comes."""
        return self.is_within_member or bool(self._compressed)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of it."""
        return self.is_damaged or self.is_followed

    def receive(self, data: bytes) -> None:
        """More of it has come; `output` has used up all that came before."""
        self._compressed += data

    def output(self) -> bytes:
        """The next bytes that can be made of what has come, at most CHUNK_SIZE; none if there are none yet."""
        while (self._compressed or self._has_more) and not self.is_over:
            if not self.is_within_member:
                self._compressed = self._compressed.lstrip(b"\0")
                magic = self._compressed[: len(GZIP_MAGIC)]
                if magic and not GZIP_MAGIC.startswith(magic):
                    self.is_followed = True
                    break
                if len(magic) < len(GZIP_MAGIC):
                    # The next member's first bytes may come one by one.
                    break
                self._member = zlib.decompressobj(_GZIP)
                self.is_within_member = True
            data = self._decompress()
            # Where the limit cut the output, more of it waits within zlib, even if no input does.
            self._has_more = len(data) == CHUNK_SIZE
            if self._member.eof:
                self._compressed = self._member.unused_data
                self.is_within_member = self._has_more = False
            else:
                self._compressed = self._member.unconsumed_tail
            if data:
                return data
        return b""

    def _decompress(self) -> bytes:
        before = self._member.copy()
        try:
            return self._member.decompress(self._compressed, CHUNK_SIZE)
        except zlib.error:
            self.is_damaged = True
        # What came before the damage would be lost with the call; byte by byte it is not.
        parts: list[bytes] = []
        with contextlib.suppress(zlib.error):
            for index in range(len(self._compressed)):
                data = before.decompress(self._compressed[index : index + 1], 1)
                while data:
                    parts.append(data)
                    data = before.decompress(before.unconsumed_tail, 1)
        return b"".join(parts)
