"""Write a capture of payments as a busy gateway's machine would see them: many client connections, and one long link
to the bank. Run it as `.venv/bin/python scripts/bench_capture.py FILE`.

Each client connects, pays, asks again and leaves; payments overlap. Ethernet, with an acknowledgement without bytes
for every other frame. The same seed always gives the same capture.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from dump.builders import ACK, FIN, PSH, SYN, ethernet, pcap_bytes, tcp_packet
from specgen.vector_fixtures import LINK_KEY
from specgen.vector_session import PAID, Step, steps_of

from paygate.codec.codes import Role
from paygate.codec.frame import encode_frame

AT_ONCE: Final = 40
"""Payments that overlap."""
ETHERNET: Final = 1
BANK_PORT: Final = 15_001
CLIENT_PORT: Final = 15_000


class Connection:
    """One TCP connection of the capture, and where both of its streams are."""

    def __init__(self, caller: tuple[str, int], answerer: tuple[str, int], rng: Random) -> None:
        self._ends = caller, answerer
        self._next = [rng.randrange(1 << 32), rng.randrange(1 << 32)]

    def send(self, side: int, data: bytes = b"", flags: int = ACK) -> bytes:
        """The packet with the next bytes of the caller (0) or the answerer (1)."""
        packet = tcp_packet(
            data,
            source=self._ends[side],
            target=self._ends[1 - side],
            sequence=self._next[side],
            acknowledged=self._next[1 - side] if flags & ACK else 0,
            flags=flags | (PSH if data else 0),
        )
        self._next[side] += len(data) + bool(flags & (SYN | FIN))
        return ethernet(packet)

    def open(self) -> list[bytes]:
        """The handshake."""
        return [self.send(0, flags=SYN), self.send(1, flags=SYN | ACK), self.send(0)]

    def close(self) -> list[bytes]:
        """FIN by the caller, FIN by the answerer."""
        return [self.send(0, flags=FIN | ACK), self.send(1, flags=FIN | ACK), self.send(0)]


def payment(number: int, bank: Connection, rng: Random) -> Iterator[list[bytes]]:
    """Packets of one payment, frame by frame, with identifiers of its own."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    client = Connection((address, 32_768 + number % 28_000), ("10.255.0.1", CLIENT_PORT), rng)
    transaction_id = f"TX-{number:06}"
    terms = replace(
        PAID.terms, transaction_id=transaction_id, payment_id=rng.randbytes(16), session_id=rng.randbytes(16)
    )
    own = {"terms": terms, "transaction_id": transaction_id, "payment_id": terms.payment_id}
    own["session_id"] = terms.session_id
    yield client.open()
    for step in _BY_PAYMENT:
        message: Any = step.message
        message = replace(message, **{name: value for name, value in own.items() if hasattr(message, name)})
        is_on_bank = step.link == "bank"
        # On the bank's long link a correlation ID is never used twice.
        frame = encode_frame(
            message, 2 + number if is_on_bank else step.correlation_id, LINK_KEY if is_on_bank else None
        )
        connection = bank if is_on_bank else client
        side = int(step.sender is (Role.BANK if is_on_bank else Role.GATEWAY))
        packets = [connection.send(side, frame)]
        if rng.random() < 0.5:
            packets.append(connection.send(1 - side))
        yield packets
    yield client.close()


_BY_PAYMENT: Final[list[Step]] = [s for s in steps_of(PAID) if s.link == "client" or s.correlation_id > 2]


def capture(frame_count: int, seed: int = 1) -> bytes:
    """A capture file of so many frames, or a few more."""
    rng = Random(seed)
    bank = Connection(("10.255.0.1", 50_000), ("10.255.0.2", BANK_PORT), rng)
    packets = bank.open()
    for step in steps_of(PAID):
        if step.link == "bank" and step.correlation_id <= 2:
            packets.append(bank.send(int(step.sender is Role.BANK), step.frame))
    payment_count = -(-frame_count // len(_BY_PAYMENT))
    running = [payment(number, bank, rng) for number in range(1, min(AT_ONCE, payment_count) + 1)]
    begun = len(running)
    while running:
        index = rng.randrange(len(running))
        sent = next(running[index], None)
        if sent is not None:
            packets += sent
        elif begun < payment_count:
            begun += 1
            running[index] = payment(begun, bank, rng)
        else:
            del running[index]
    return pcap_bytes(packets, link_type=ETHERNET)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="a capture of many payments")
    parser.add_argument("file", type=Path, metavar="FILE", help="the pcap to write")
    parser.add_argument("--frames", type=int, default=100_000, help="frames in it (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: %(default)s)")
    options = parser.parse_args()
    options.file.write_bytes(capture(options.frames, options.seed))


if __name__ == "__main__":
    main()
