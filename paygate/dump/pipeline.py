"""From an input's bytes to what was seen in it: all steps in a row (R24)."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import BinaryIO, Final

from paygate.dump.envelopes import EnvelopeOpener
from paygate.dump.frames import FrameReader
from paygate.dump.links import Links
from paygate.dump.model import Finding, Item, Packet, Segment, StreamData, StreamItem
from paygate.dump.packets import Decapsulator
from paygate.dump.source import read_source
from paygate.dump.streams import Reassembler

PORTS_DEFAULT: Final = frozenset({15000, 15001})
"""Where gateways and banks listen if nobody says otherwise; frames are found on any port."""


class Pipeline:
    """Reads one input. Its steps stay reachable, since statistics ask them what they counted."""

    def __init__(
        self,
        ports: frozenset[int] = PORTS_DEFAULT,
        *,
        link_keys: tuple[bytes, ...] = (),
        opener: EnvelopeOpener | None = None,
    ) -> None:
        """ports: who listens there, and what must be paygate. link_keys: check MACs. opener: open envelopes."""
        self.flow_numbers = count(1)
        self.decapsulator = Decapsulator(self.flow_numbers)
        self.reassembler = Reassembler(self.flow_numbers, ports)
        self.frames = FrameReader(ports=ports, link_keys=link_keys)
        self.links = Links(opener)
        self.packet_count = 0
        """How many packets were read."""

    def read(self, stream: BinaryIO, on_begin: Callable[[int], None] | None = None) -> Iterator[Item]:
        """Everything that was seen, in order; what is not finished when the input ends comes last.

        on_begin: hears the first packet's time, whatever that packet is, before anything is given.
        Ending the iteration early is harmless; `finish` gives what is left. Raises InputError.
        """
        receive_packet = self.decapsulator.receive_packet
        receive_segment = self.reassembler.receive_segment
        for read in read_source(stream, self.flow_numbers):
            found: Segment | StreamData | Finding | None
            if isinstance(read, Packet):
                if on_begin is not None and read.time_ns is not None:
                    on_begin(read.time_ns)
                    on_begin = None
                self.packet_count = read.number
                found = receive_packet(read)
            else:
                found = read
            if isinstance(found, Segment):
                for item in receive_segment(found):
                    yield from self._receive(item)
            elif isinstance(found, StreamData):
                yield from self._receive(found)
            elif found is not None:
                yield from self.links.receive(found)

    def finish(self) -> Iterator[Item]:
        """What is left when the input has ended, or when somebody has seen enough."""
        self.decapsulator.finish()
        for item in self.reassembler.finish():
            yield from self._receive(item)
        for seen in self.frames.finish():
            yield from self.links.receive(seen)
        yield from self.links.finish()

    def _receive(self, item: StreamItem) -> Iterator[Item]:
        for seen in self.frames.receive(item):
            yield from self.links.receive(seen)
