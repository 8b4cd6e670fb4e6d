"""Small TCP connections in every state that a capture can be in: `test_streams` says what each one tells, and
`test_streams_tshark` what tshark makes of the same packets.
"""

from collections.abc import Callable
from itertools import count
from typing import Final

from dump.builders import ACK, CLIENT, FIN, PSH, RST, SERVER, SYN, Captured, pcap_bytes, tcp_packet

from paygate.dump.model import Endpoint, Segment, Side, StreamData, StreamGap, StreamItem
from paygate.dump.streams import Reassembler

SEQUENCE_COUNT: Final = 1 << 32
CASES: Final[dict[str, Callable[[], "Wire"]]] = {}


def case(build: Callable[[], "Wire"]) -> Callable[[], "Wire"]:
    """Name a connection by its function."""
    CASES[build.__name__] = build
    return build


class Wire:
    """What passes between a client and a server. Places in a stream count from 0, the first byte after the SYN."""

    def __init__(
        self,
        client_start: int = 1_000,
        server_start: int = 5_000,
        client: tuple[str, int] = CLIENT,
        server: tuple[str, int] = SERVER,
    ) -> None:
        self.segments: list[Segment] = []
        self._starts = client_start, server_start
        self._ends = Endpoint(*client), Endpoint(*server)

    def restart(self, client_start: int, server_start: int) -> "Wire":
        """The next connection between the same ports."""
        self._starts = client_start, server_start
        return self

    def open(self) -> "Wire":
        """The handshake, whole."""
        return self.syn().syn_ack().client(0)

    def syn(self, data: bytes = b"") -> "Wire":
        """The client's SYN, with TCP Fast Open if there is data."""
        return self._add(Side.CALLER, -1, data, None, SYN)

    def syn_ack(self, ack: int = 0) -> "Wire":
        """The server's answer to it."""
        return self._add(Side.ANSWERER, -1, b"", ack, SYN | ACK)

    def client(self, at: int, data: bytes = b"", ack: int | None = 0, flags: int = PSH, lost_size: int = 0) -> "Wire":
        """A segment of the client, which has got the server's bytes up to `ack`; None: it has no ACK."""
        return self._add(Side.CALLER, at, data, ack, flags, lost_size)

    def server(self, at: int, data: bytes = b"", ack: int | None = 0, flags: int = PSH, lost_size: int = 0) -> "Wire":
        """A segment of the server."""
        return self._add(Side.ANSWERER, at, data, ack, flags, lost_size)

    def _add(self, side: Side, at: int, data: bytes, ack: int | None, flags: int, lost_size: int = 0) -> "Wire":
        number = len(self.segments) + 1
        self.segments.append(
            Segment(
                number,
                number * 1_000_000,
                self._ends[side],
                self._ends[side.other],
                (self._starts[side] + 1 + at) % SEQUENCE_COUNT,
                0 if ack is None else (self._starts[side.other] + 1 + ack) % SEQUENCE_COUNT,
                flags if ack is None else flags | ACK,
                data,
                lost_size,
            )
        )
        return self


def pcap_of(segments: list[Segment]) -> bytes:
    """A capture file with these segments."""
    return pcap_bytes(_captured(segment) for segment in segments)


def _captured(segment: Segment) -> Captured:
    whole = tcp_packet(
        segment.payload + bytes(segment.lost_size),
        source=(segment.source.host, segment.source.port),
        target=(segment.target.host, segment.target.port),
        sequence=segment.sequence,
        acknowledged=segment.acknowledged,
        flags=segment.flags,
    )
    return Captured(whole[: len(whole) - segment.lost_size], original_size=len(whole))


def reassembled(segments: list[Segment]) -> list[StreamItem]:
    """All that the segments tell."""
    reassembler = Reassembler(count(1))
    items = [item for segment in segments for item in reassembler.receive_segment(segment)]
    return [*items, *reassembler.finish()]


def told(item: StreamItem) -> str:
    """An item as a line: the flow's number, the side, the place, and what is there."""
    where = f"{item.flow.number} {item.side.name.lower()} {item.offset}:"
    if isinstance(item, StreamData):
        return f"{where} {item.data.decode('latin-1')}"
    if isinstance(item, StreamGap):
        return f"{where} {item.size} missing"
    return f"{where} {item.event.name}" + (f" {item.size}" if item.size else "")


def streams(items: list[StreamItem]) -> dict[tuple[int, Side], bytes]:
    """The bytes of each direction of each flow, gaps left out."""
    found: dict[tuple[int, Side], bytes] = {}
    for item in items:
        if isinstance(item, StreamData):
            key = item.flow.number, item.side
            found[key] = found.get(key, b"") + item.data
    return found


# -- the connections -------------------------------------------------------------------------------------


@case
def in_order() -> Wire:
    return (
        Wire().open().client(0, b"ask ").client(4, b"more").server(0, b"answer", ack=8).client(8, ack=6)
        .client(8, ack=6, flags=FIN).server(6, ack=9, flags=FIN).client(9, ack=7)
    )  # fmt: skip


@case
def out_of_order() -> Wire:
    return Wire().open().client(0, b"abc").client(6, b"ghi").client(9, b"jkl").client(3, b"def").server(0, ack=12)


@case
def first_out_of_order() -> Wire:
    return Wire().open().client(3, b"def").client(0, b"abc").server(0, ack=6)


@case
def data_before_syn() -> Wire:
    return Wire().client(3, b"def").client(0, b"abc").syn().syn_ack().client(6, b"ghi").server(0, b"ok", ack=9)


@case
def answer_before_syn() -> Wire:
    return Wire().syn_ack().client(0, b"abc").syn().server(0, b"ok", ack=3)


@case
def retransmission() -> Wire:
    return Wire().open().client(0, b"abc").client(3, b"def").client(0, b"abc").client(3, b"def").server(0, ack=6)


@case
def retransmission_with_new_tail() -> Wire:
    return Wire().open().client(0, b"abc").client(0, b"abcdef").client(2, b"cdefghi").server(0, ack=9)


@case
def retransmission_of_held_bytes() -> Wire:
    return (
        Wire().open().client(6, b"ghi").client(6, b"ghi").client(3, b"defghijkl").client(12, b"m").client(11, b"lmn")
        .client(0, b"abc").server(0, ack=14)
    )  # fmt: skip


@case
def overlap_differs() -> Wire:
    return Wire().open().client(0, b"abcdef").client(2, b"CdEfgh").server(0, ack=8)


@case
def overlap_of_held_bytes_differs() -> Wire:
    return Wire().open().client(4, b"efgh").client(2, b"cdEFghij").client(0, b"abC").server(0, ack=10)


@case
def every_packet_twice() -> Wire:
    wire = Wire().open().client(0, b"abc").server(0, b"ok", ack=3).client(3, b"", ack=2, flags=FIN)
    wire.server(2, ack=4, flags=FIN).client(4, ack=3)
    wire.segments = [segment for segment in wire.segments for _ in range(2)]
    return wire


@case
def keepalive() -> Wire:
    return (
        Wire().open().client(0, b"abc").server(0, ack=3).client(2, b"\0").server(0, ack=3).client(2).server(0, ack=3)
        .client(3, b"def").server(0, ack=6)
    )  # fmt: skip


@case
def keepalive_first() -> Wire:
    return Wire().server(0, ack=10).client(9, b"\0").server(0, ack=10).client(10, b"abc").server(0, b"ok", ack=13)


@case
def zero_window_probe() -> Wire:
    return Wire().open().client(0, b"abc").server(0, ack=3).client(3, b"d").server(0, ack=4).client(4, b"ef")


@case
def gap_acknowledged() -> Wire:
    return Wire().open().client(0, b"abc").client(8, b"ijk").server(0, ack=11).client(11, b"lmn").server(0, ack=14)


@case
def gap_acknowledged_before() -> Wire:
    return Wire().open().client(0, b"abc").server(0, ack=8).client(8, b"ijk").server(0, b"ok", ack=11)


@case
def gap_at_the_start() -> Wire:
    return Wire().open().client(5, b"fgh").server(0, b"ok", ack=8).client(8, b"i", ack=2)


@case
def gap_never_acknowledged() -> Wire:
    return Wire().syn().client(0, b"abc").client(8, b"ijk").client(20, b"uvw")


@case
def gap_before_fin() -> Wire:
    return Wire().open().client(0, b"abc").client(6, flags=FIN).server(0, ack=7, flags=FIN).client(7, ack=1)


@case
def gap_at_the_end() -> Wire:
    return Wire().open().client(0, b"abc").server(0, b"ok", ack=10)


@case
def gap_filled_too_late() -> Wire:
    return Wire().open().client(0, b"abc").client(6, b"ghi").server(0, ack=9).client(1, b"bcdefgh").client(9, b"jkl")


@case
def snapped() -> Wire:
    return Wire().open().client(0, b"abc", lost_size=7).client(10, b"klm").server(0, b"ok", ack=13, lost_size=3)


@case
def snapped_out_of_order() -> Wire:
    return Wire().open().client(5, b"fg", lost_size=3).client(0, b"abc", lost_size=2).server(0, ack=10)


@case
def snapped_at_the_end() -> Wire:
    return Wire().open().client(3, b"d", lost_size=2).client(0, b"abc")


@case
def mid_stream() -> Wire:
    return Wire().client(100, b"abc", ack=50).server(50, b"ok", ack=103).client(103, b"def", ack=52)


@case
def mid_stream_from_the_server() -> Wire:
    return Wire().server(50, b"pushed", ack=100).client(100, b"taken", ack=56).server(56, ack=105)


@case
def mid_stream_out_of_order() -> Wire:
    return Wire().client(103, b"def", ack=50).client(100, b"abc", ack=50).server(50, b"ok", ack=106)


@case
def mid_stream_repeats_what_lies_before() -> Wire:
    return (
        Wire().client(100, b"abc", ack=50).server(50, b"ok", ack=103).client(90, b"before", ack=52)
        .client(97, b"refabcdef", ack=52).server(52, ack=106)
    )  # fmt: skip


@case
def mid_stream_fin() -> Wire:
    return Wire().client(100, ack=50, flags=FIN).server(50, b"last", ack=101).server(54, ack=101, flags=FIN)


@case
def port_reuse_after_close() -> Wire:
    wire = Wire().open().client(0, b"one").client(3, flags=FIN).server(0, ack=4, flags=FIN).client(4, ack=1)
    return wire.restart(700_000, 900_000).open().client(0, b"two").server(0, b"ok", ack=3)


@case
def port_reuse_without_close() -> Wire:
    wire = Wire().open().client(0, b"one").server(0, b"first", ack=3)
    return wire.restart(700_000, 900_000).open().client(0, b"two").server(0, b"second", ack=3)


@case
def port_reuse_by_a_silent_client() -> Wire:
    wire = Wire().server(50, b"pushed", ack=100).client(100, ack=56)
    return wire.restart(700_000, 900_000).open().client(0, b"two").server(0, b"ok", ack=3)


@case
def port_reuse_behind_bytes_that_wait() -> Wire:
    wire = Wire().client(100, b"one", ack=None)
    return wire.restart(700_000_000, 900_000).open().client(0, b"two").server(0, b"ok", ack=3)


@case
def syn_retransmitted() -> Wire:
    return Wire().syn().syn().syn_ack().syn().syn_ack().client(0, b"abc").syn_ack().server(0, b"ok", ack=3)


@case
def sequence_wrap() -> Wire:
    wire = Wire(client_start=SEQUENCE_COUNT - 5, server_start=SEQUENCE_COUNT - 1)
    return (
        wire.open().client(0, b"abc").client(6, b"ghi").client(3, b"def").server(0, b"ok", ack=9).client(9, b"j", ack=2)
    )


@case
def reset() -> Wire:
    return Wire().open().client(0, b"abc").client(6, b"ghi").server(0, ack=3, flags=RST)


@case
def refused() -> Wire:
    wire = Wire().syn()
    return wire.server(-5_001, ack=0, flags=RST)


@case
def bytes_after_reset() -> Wire:
    return Wire().open().client(0, b"abc").client(3, flags=RST, ack=0).server(0, b"on its way", ack=3)


@case
def half_closed() -> Wire:
    return (
        Wire().open().client(0, b"ask").client(3, flags=FIN).server(0, b"one ", ack=4).client(4, ack=4)
        .server(4, b"two", ack=4).client(4, ack=7).server(7, ack=4, flags=FIN).client(4, ack=8)
    )  # fmt: skip


@case
def fin_with_data() -> Wire:
    return (
        Wire().open().client(0, b"abc").client(3, b"def", flags=FIN).server(0, b"ok", ack=7, flags=FIN).client(7, ack=3)
    )


@case
def fin_before_data() -> Wire:
    return Wire().open().client(6, flags=FIN).client(3, b"def").client(0, b"abc").server(0, b"ok", ack=7)


@case
def bytes_after_fin() -> Wire:
    return Wire().open().client(0, b"abc").client(3, flags=FIN).client(3, b"no").server(0, ack=4)


@case
def simultaneous_open() -> Wire:
    wire = Wire().syn()
    wire.server(-1, ack=None, flags=SYN).client(-1, ack=0, flags=SYN).syn_ack()
    return wire.client(0, b"abc").server(0, b"def", ack=3)


@case
def fast_open() -> Wire:
    return Wire().syn(b"early").syn_ack(ack=5).client(5, b" late").server(0, b"ok", ack=10)


@case
def fast_open_refused() -> Wire:
    return Wire().syn(b"early").syn_ack(ack=0).client(0, b"early").client(5, b" late").server(0, b"ok", ack=10)


@case
def bad_sequence() -> Wire:
    return Wire().open().client(0, b"abc").client(2_000_000_000, b"far").client(3, b"def").server(0, ack=6)


@case
def no_acknowledgements() -> Wire:
    return Wire().client(0, b"abc", ack=None).client(3, b"def", ack=None)
