"""Takes packets apart down to TCP: link layers, VLAN tags, IPv4 and IPv6 with all that may stand before TCP.

Checksums are not looked at: where a capture is taken at the sender, the network card fills them in later. What is not
TCP is counted by its reason and passed over; what is TCP but can't be read is a finding.

USER0 packets hold bytes of a stream and nothing else: one flow for each interface, in the order of the packets. Where
the capture says which way a packet went (pcapng's epb_flags), the caller is who captured, so that OUTBOUND is from the
caller; where it does not, the flow doesn't know its sides.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final

from paygate.dump.findings import bytes_text
from paygate.dump.fragments import Fragments
from paygate.dump.model import Direction, Endpoint, Finding, Flow, FlowKind, Packet, Segment, Side, StreamData

ENDPOINTS_COUNT_MAX: Final = 4_096
"""Pairs of addresses and ports whose texts are kept; all are dropped when there are more, and made again."""
USER0_FLOW_COUNT_MAX: Final = 1_024
"""Flows of packets without addresses: as many as the interfaces of a section. When there are more, the oldest one is
dropped."""
REASON_COUNT_MAX: Final = 256
"""Reasons for which packets are ignored, kept apart; IP has as many protocols. More are counted together."""

UNKNOWN_LINK_TYPE: Final = "UNKNOWN_LINK_TYPE"
MALFORMED_PACKET: Final = "MALFORMED_PACKET"

_ETHERNET, _USER0 = 1, 147
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN_TAGS: Final = {0x8100, 0x88A8, 0x9100, 0x9200, 0x9300}
"""IEEE 802.1Q's two, and those that switches used before the second was agreed on."""
_FAMILIES: Final = {2: _IPV4, 10: _IPV6, 23: _IPV6, 24: _IPV6, 28: _IPV6, 30: _IPV6}
"""Address families of the BSDs, Linux, macOS and Windows: a loopback header has the capturing machine's."""
_FAMILY_MAX: Final = 0xFFFF
_TCP: Final = 6
_TCP_HEADER_SIZE: Final = 20
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS: Final = {0, 43, _AUTHENTICATION, 60, 135, 139, 140}
"""IPv6 headers that may stand before TCP's (RFC 7045 section 3, whose registry IANA keeps): Hop-by-Hop, Routing,
Destination Options, Mobility, Host Identity, Shim6. What ESP (50) holds is encrypted."""

_unpack_word: Final = struct.Struct(">H").unpack_from
_unpack_ipv4: Final = struct.Struct(">BBHHHBB").unpack_from
_unpack_tcp: Final = struct.Struct(">HHIIBB").unpack_from
_unpack_ipv4_tcp: Final = struct.Struct(">BxHxxHxB10xHHIIBB").unpack_from
"""Of an IPv4 header without options and the TCP header behind it, all that is needed, in one step."""
_IPV4_TCP_SIZE: Final = 40

_make_segment: Final = tuple.__new__
"""What Segment(...) ends in; it takes a third of the time."""


class _NotTcp(Exception):
    """A packet is not for us; says why."""


class _Malformed(Exception):
    """A packet is not what its headers say: what was expected, and what is there."""


class Decapsulator:
    """Packet by packet; keeps only fragments, and the flows of USER0."""

    def __init__(self, flow_numbers: Iterator[int]) -> None:
        self.ignored: Counter[str] = Counter()
        """How many packets were passed over, by reason."""
        self.fragments = Fragments()
        self._flow_numbers = flow_numbers
        self._endpoints: dict[bytes, tuple[Endpoint, Endpoint]] = {}
        self._user0: OrderedDict[tuple[int, bool], tuple[Flow, list[int]]] = OrderedDict()
        self._unknown_link_types: set[int] = set()

    def finish(self) -> None:
        """The input has ended: fragments that still wait will never be whole."""
        self.fragments.finish()
        if self.fragments.given_up_count:
            self.ignored["fragmented, never whole"] = self.fragments.given_up_count

    def receive_packet(self, packet: Packet) -> Segment | StreamData | Finding | None:
        """The segment or the stream bytes in a packet; None if there are none (yet)."""
        data, link_type = packet.data, packet.link_type
        # The usual packet first, without a call: Ethernet or bare IP, IPv4 without options, a whole TCP header.
        at = 14 if link_type == _ETHERNET else 0
        if (
            len(data) >= at + _IPV4_TCP_SIZE
            and data[at] == 0x45
            and ((at and data[12] == 8 and not data[13]) or link_type in _BARE_IP)
        ):
            (
                _, size, fragment, protocol, _, _, sequence, acknowledged, offset, flags,
            ) = _unpack_ipv4_tcp(data, at)  # fmt: skip
            begin = at + 20 + (offset >> 4 << 2)
            end = at + size
            if protocol == _TCP and not fragment & 0x3FFF and offset >= 0x50 and begin <= end <= len(data):
                key = data[at + 12 : at + 24]
                source, target = self._endpoints.get(key) or self._make_endpoints(key)
                return _make_segment(
                    Segment,
                    (packet.number, packet.time_ns, source, target, sequence, acknowledged, flags, data[begin:end], 0),
                )
        if link_type == _USER0:
            return self._receive_user0(packet)
        find_ip = _LINK_LAYERS.get(link_type)
        if find_ip is None:
            return self._ignore_link_type(packet)
        try:
            kind, at = find_ip(data)
            if kind == _IPV4:
                return self._receive_ipv4(packet, at)
            if kind == _IPV6:
                return self._receive_ipv6(packet, at)
            raise _NotTcp(f"EtherType 0x{kind:04x}")
        except _NotTcp as reason:
            self._ignore(str(reason))
            return None
        except (struct.error, IndexError):
            return self._ignore_cut(packet)
        except _Malformed as fault:
            expected, got = fault.args
            return Finding(MALFORMED_PACKET, expected, got, "", packet.number, packet.time_ns)

    # -- IP ---------------------------------------------------------------------------------------------------

    def _receive_ipv4(self, packet: Packet, at: int) -> Segment | None:
        data = packet.data
        first, _, size, identification, fragment, _, protocol = _unpack_ipv4(data, at)
        header_size = (first & 0xF) * 4
        if first >> 4 != 4 or header_size < 20:
            raise _Malformed("an IPv4 header of version 4 and at least 5 words", f"0x{first:02x}")
        # 0: too large for the field, since the network card cuts it up later.
        end = at + size if size else _wire_end(packet)
        if end < at + header_size:
            raise _Malformed(f"an IPv4 packet of at least {header_size} bytes", f"a length of {size}")
        addresses = data[at + 12 : at + 20]
        begin = at + header_size
        if fragment & 0x3FFF:
            key = (addresses, protocol, identification)
            offset, is_last = (fragment & 0x1FFF) * 8, not fragment & 0x2000
            return self._receive_fragment(packet, key, protocol, begin, end, offset, is_last=is_last)
        return self._receive_tcp(packet, addresses, protocol, data, begin, end)

    def _receive_ipv6(self, packet: Packet, at: int) -> Segment | None:
        data = packet.data
        version, size, protocol = data[at] >> 4, _unpack_word(data, at + 4)[0], data[at + 6]
        if version != 6:
            raise _Malformed("an IPv6 header of version 6", str(version))
        addresses = data[at + 8 : at + 40]
        # 0: larger than the field can say (RFC 2675), or cut up by the network card later.
        end = at + 40 + size if size else _wire_end(packet)
        protocol, begin = _skip_extensions(data, protocol, at + 40, end)
        if protocol != _FRAGMENT:
            return self._receive_tcp(packet, addresses, protocol, data, begin, end)
        protocol, _, offset, identification = struct.unpack_from(">BBHI", data, begin)
        begin += 8
        if not offset & 0xFFF9:
            # The only fragment: it has nothing to do with others of its identification (RFC 6946).
            protocol, begin = _skip_extensions(data, protocol, begin, end)
            return self._receive_tcp(packet, addresses, protocol, data, begin, end)
        key = (addresses, 0, identification)
        is_last = not offset & 1
        return self._receive_fragment(packet, key, protocol, begin, end, offset & 0xFFF8, is_last=is_last)

    def _receive_fragment(
        self,
        packet: Packet,
        key: tuple[bytes, int, int],
        protocol: int,
        begin: int,
        end: int,
        offset: int,
        *,
        is_last: bool,
    ) -> Segment | None:
        if end > len(packet.data):
            raise _NotTcp("a fragment that the capture cut short")
        fragment = packet.data[begin:end]
        if not fragment or (not is_last and len(fragment) % 8):
            raise _Malformed("a fragment of whole units of 8 bytes, unless it is the last", bytes_text(len(fragment)))
        whole = self.fragments.receive(key, protocol, offset, fragment, is_last=is_last, time_ns=packet.time_ns)
        if whole is None:
            return None
        protocol, payload = whole
        addresses, begin = key[0], 0
        if len(addresses) == 32:
            protocol, begin = _skip_extensions(payload, protocol, 0, len(payload))
        return self._receive_tcp(packet, addresses, protocol, payload, begin, len(payload), is_whole=True)

    # -- TCP --------------------------------------------------------------------------------------------------

    def _receive_tcp(
        self, packet: Packet, addresses: bytes, protocol: int, data: bytes, at: int, end: int, *, is_whole: bool = False
    ) -> Segment:
        if protocol != _TCP:
            raise _NotTcp(f"IP protocol {protocol}")
        if end < at + _TCP_HEADER_SIZE:
            raise _Malformed(f"a TCP header of {_TCP_HEADER_SIZE} bytes", bytes_text(max(end - at, 0)))
        _, _, sequence, acknowledged, offset, flags = _unpack_tcp(data, at)
        begin = at + (offset >> 4) * 4
        if offset < 0x50 or begin > end:
            raise _Malformed(f"a TCP header of 20 to {end - at} bytes", bytes_text(begin - at))
        # An IP length may promise more than there was on the wire; nothing of that was lost by the capture.
        sent_end = end if is_whole else min(end, _wire_end(packet))
        payload = data[begin:end]
        lost_size = max(sent_end - max(len(data), begin), 0)
        key = addresses + data[at : at + 4]
        source, target = self._endpoints.get(key) or self._make_endpoints(key)
        return Segment(packet.number, packet.time_ns, source, target, sequence, acknowledged, flags, payload, lost_size)

    def _make_endpoints(self, key: bytes) -> tuple[Endpoint, Endpoint]:
        """Sender and receiver of a key that holds both addresses, then both ports."""
        if len(self._endpoints) >= ENDPOINTS_COUNT_MAX:
            self._endpoints.clear()
        size = (len(key) - 4) // 2
        ports = struct.unpack(">HH", key[-4:])
        source, target = (
            Endpoint(str(ip_address(key[n * size : (n + 1) * size])), port) for n, port in enumerate(ports)
        )
        self._endpoints[key] = source, target
        return source, target

    # -- USER0 ------------------------------------------------------------------------------------------------

    def _receive_user0(self, packet: Packet) -> StreamData | None:
        if not packet.data:
            self._ignore("empty")
            return None
        knows_sides = packet.direction is not Direction.UNKNOWN
        key = (packet.interface, knows_sides)
        found = self._user0.get(key)
        if found is None:
            if len(self._user0) >= USER0_FLOW_COUNT_MAX:
                self._user0.popitem(last=False)
            name = f"interface-{packet.interface}"
            caller, answerer = Endpoint(name, 0), Endpoint(f"{name}-peer" if knows_sides else name, 0)
            flow = Flow(next(self._flow_numbers), FlowKind.USER0, caller, answerer, knows_sides=knows_sides)
            found = self._user0[key] = flow, [0, 0]
        flow, offsets = found
        side = Side.ANSWERER if packet.direction is Direction.INBOUND else Side.CALLER
        offset = offsets[side]
        # What a snap length cut off has no place here; the frame that lacks it fails its checksum, and so is found.
        offsets[side] += len(packet.data)
        return StreamData(flow, side, offset, packet.data, packet.time_ns, packet.number)

    # -- What is no TCP -----------------------------------------------------------------------------------------

    def _ignore(self, reason: str) -> None:
        if reason not in self.ignored and len(self.ignored) >= REASON_COUNT_MAX:
            reason = "other reasons"
        self.ignored[reason] += 1

    def _ignore_link_type(self, packet: Packet) -> Finding | None:
        link_type = packet.link_type
        self._ignore(f"link type {link_type}")
        if link_type in self._unknown_link_types:
            return None
        self._unknown_link_types.add(link_type)
        expected = "a link type of " + ", ".join(map(str, sorted([*_LINK_LAYERS, _USER0])))
        got = f"{link_type}; its packets are ignored"
        return Finding(UNKNOWN_LINK_TYPE, expected, got, "", packet.number, packet.time_ns)

    def _ignore_cut(self, packet: Packet) -> Finding | None:
        """A header ends behind the packet's end: by the snap length, or the packet is damaged."""
        if len(packet.data) < packet.original_size:
            self._ignore("cut short by the capture within its headers")
            return None
        expected = "all headers up to TCP's"
        return Finding(MALFORMED_PACKET, expected, bytes_text(len(packet.data)), "", packet.number, packet.time_ns)


def _wire_end(packet: Packet) -> int:
    return max(packet.original_size, len(packet.data))


def _skip_extensions(data: bytes, protocol: int, at: int, end: int) -> tuple[int, int]:
    """The protocol and the beginning of what stands behind all extension headers, or of a fragment header."""
    while protocol in _EXTENSIONS:
        if at + 8 > end:
            raise _Malformed("an IPv6 extension header of at least 8 bytes", bytes_text(max(end - at, 0)))
        size = (data[at + 1] + 2) * 4 if protocol == _AUTHENTICATION else (data[at + 1] + 1) * 8
        protocol = data[at]
        at += size
    return protocol, at


# -- Link layers: what EtherType stands where in a packet -----------------------------------------------------


def _skip_tags(data: bytes, kind: int, at: int) -> tuple[int, int]:
    while kind in _VLAN_TAGS:
        (kind,) = _unpack_word(data, at + 2)
        at += 4
    return kind, at


def _ethernet(data: bytes) -> tuple[int, int]:
    kind, at = _skip_tags(data, _unpack_word(data, 12)[0], 14)
    if kind < 0x600:
        raise _NotTcp("IEEE 802.3 without an EtherType")
    return kind, at


def _linux_sll(data: bytes) -> tuple[int, int]:
    return _skip_tags(data, _unpack_word(data, 14)[0], 16)


def _linux_sll2(data: bytes) -> tuple[int, int]:
    return _skip_tags(data, _unpack_word(data, 0)[0], 20)


def _loopback(data: bytes) -> tuple[int, int]:
    # NULL has the capturing machine's byte order, LOOP the network's; a family is a small number in only one of them.
    (family,) = struct.unpack_from(">I", data)
    if family > _FAMILY_MAX:
        (family,) = struct.unpack_from("<I", data)
    if family not in _FAMILIES:
        raise _NotTcp(f"address family {family}")
    return _FAMILIES[family], 4


def _raw(data: bytes) -> tuple[int, int]:
    version = data[0] >> 4
    if version not in (4, 6):
        raise _Malformed("an IP packet of version 4 or 6", str(version))
    return (_IPV4 if version == 4 else _IPV6), 0


_LINK_LAYERS: Final[dict[int, Callable[[bytes], tuple[int, int]]]] = {
    0: _loopback,
    _ETHERNET: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _loopback,
    113: _linux_sll,
    228: lambda _: (_IPV4, 0),
    229: lambda _: (_IPV6, 0),
    276: _linux_sll2,
}
_BARE_IP: Final = {12, 14, 101, 228}
