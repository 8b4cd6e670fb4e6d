"""Puts IP packets together that were sent in fragments (RFC 791 3.2, RFC 8200 4.5), in a bounded memory.

Where fragments of an IPv4 packet overlap, the bytes that came first count, as they do in TCP streams here: what was
there is never changed by what comes later. An IPv6 packet whose fragments overlap is given up as a whole (RFC 5722);
a fragment that merely comes twice is no overlap (RFC 8200 4.5).
"""

from bisect import bisect_right
from collections import OrderedDict
from typing import Final

from paygate.dump.model import NANOSECONDS_PER_SECOND

DATAGRAM_SIZE_MAX: Final = 0xFFFF
"""Bytes that IP's length field can count."""
DATAGRAM_COUNT_MAX: Final = 256
"""Packets under way at a time: many more than one capture has where fragments get through."""
KEPT_SIZE_MAX: Final = 0x400000
"""Bytes of all of them together: 64 of the largest."""
PIECE_COUNT_MAX: Final = 0x4000
"""Fragments of all of them together: two packets of the largest size in the smallest pieces."""
AGE_NS_MAX: Final = 60 * NANOSECONDS_PER_SECOND
"""How long the first of a packet's fragments waits for the last (RFC 8200 4.5); then the
identification may be another packet's."""

Key = tuple[bytes, int, int]
"""Both addresses, the protocol (0 for IPv6) and the identification."""


class Fragments:
    """The packets under way, oldest first."""

    def __init__(self) -> None:
        self.given_up_count = 0
        """Packets that were never complete."""
        self._datagrams: OrderedDict[Key, _Datagram] = OrderedDict()
        self._kept_size = 0
        self._piece_count = 0

    def receive(
        self, key: Key, protocol: int, offset: int, data: bytes, *, is_last: bool, time_ns: int | None
    ) -> tuple[int, bytes] | None:
        """Take a fragment whose bytes begin at `offset`; gives protocol and payload of the packet if it is complete."""
        datagram = self._datagrams.get(key)
        if datagram is not None and datagram.is_older(time_ns):
            self._give_up(key)
            datagram = None
        if datagram is None:
            self._make_room()
            datagram = self._datagrams[key] = _Datagram(time_ns)
        if datagram.is_refused:
            return None
        kept_size, piece_count = datagram.kept_size, len(datagram.pieces)
        if not offset:
            # The other fragments' Next Header may differ, and does not count (RFC 8200 4.5).
            datagram.protocol = protocol
        is_ipv6 = len(key[0]) == 32
        if offset + len(data) > DATAGRAM_SIZE_MAX or not datagram.add(offset, data, is_last=is_last, is_ipv6=is_ipv6):
            datagram.refuse()
        self._kept_size += datagram.kept_size - kept_size
        self._piece_count += len(datagram.pieces) - piece_count
        if datagram.kept_size != datagram.size:
            return None
        self._forget(key)
        return datagram.protocol, b"".join(data for _, data in datagram.pieces)

    def finish(self) -> None:
        """The input has ended."""
        for key in list(self._datagrams):
            self._give_up(key)

    def _make_room(self) -> None:
        while (
            len(self._datagrams) >= DATAGRAM_COUNT_MAX
            or self._kept_size > KEPT_SIZE_MAX
            or self._piece_count > PIECE_COUNT_MAX
        ):
            self._give_up(next(iter(self._datagrams)))

    def _give_up(self, key: Key) -> None:
        self.given_up_count += 1
        self._forget(key)

    def _forget(self, key: Key) -> None:
        datagram = self._datagrams.pop(key)
        self._kept_size -= datagram.kept_size
        self._piece_count -= len(datagram.pieces)


class _Datagram:
    """What came of one packet."""

    __slots__ = ("_begin_ns", "is_refused", "kept_size", "pieces", "protocol", "size")

    def __init__(self, time_ns: int | None) -> None:
        self._begin_ns = time_ns
        self.is_refused = False
        self.protocol = 0
        self.pieces: list[tuple[int, bytes]] = []
        """Offsets and bytes, in order; none overlap."""
        self.kept_size = 0
        self.size: int | None = None
        """Of the whole payload; None until the last fragment came."""

    def is_older(self, now_ns: int | None) -> bool:
        return now_ns is not None and self._begin_ns is not None and now_ns - self._begin_ns > AGE_NS_MAX

    def refuse(self) -> None:
        """Nothing of it counts, nor what comes of it later (RFC 5722)."""
        self.pieces, self.kept_size, self.size, self.is_refused = [], 0, None, True

    def add(self, offset: int, data: bytes, *, is_last: bool, is_ipv6: bool) -> bool:
        """Whether the fragment fits to what came before; an IPv4 fragment is cut so that it does."""
        stop = offset + len(data)
        pieces = self.pieces
        index = bisect_right(pieces, offset, key=lambda piece: piece[0])
        if index and pieces[index - 1] == (offset, data):
            return True
        if is_last:
            if self.size is None and (not pieces or pieces[-1][0] + len(pieces[-1][1]) <= stop):
                self.size = stop
            elif self.size != stop:
                return False
        elif self.size is not None and stop > self.size:
            return False
        kept_size = self.kept_size
        at = offset
        if index:
            at = max(at, pieces[index - 1][0] + len(pieces[index - 1][1]))
        while at < stop:
            next_at = pieces[index][0] if index < len(pieces) else stop
            if next_at > at:
                piece = data[at - offset : min(next_at, stop) - offset]
                pieces.insert(index, (at, piece))
                self.kept_size += len(piece)
                index += 1
            if index >= len(pieces) or next_at >= stop:
                break
            at = next_at + len(pieces[index][1])
            index += 1
        return not is_ipv6 or self.kept_size == kept_size + len(data)
