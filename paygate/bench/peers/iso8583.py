"""What the peers that speak ISO 8583:1987 share: their requests, and how their server is started and loaded.

Requests are financial ones (0200), in ASCII with a binary bitmap, and carry what a card payment in a shop does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paygate.bench.peers.child import Child
from paygate.bench.peers.loopback import READY, ClosedLoop, framed
from paygate.bench.peers.peer import PeerFailed, PeerRun

REQUEST: Final = "0200"
RESPONSE: Final = "0210"
CARD_COUNT: Final = 1_000
REQUEST_COUNT: Final = 4_096
_CARD_ISSUER: Final = "411111"


def requests(count: int) -> list[bytes]:
    """So many framed requests, each with a trace number of its own, from cards in turn."""
    return [framed(_request(n)) for n in range(count)]


def card_number(index: int) -> str:
    """The number of one of CARD_COUNT cards: the issuer's digits, the index, and Luhn's check digit."""
    partial = f"{_CARD_ISSUER}{index % CARD_COUNT:09}"
    # From the right, without the check digit: the first digit counts double, the second once, and so on.
    doubled = "".join(str(int(digit) * (2 - place % 2)) for place, digit in enumerate(reversed(partial)))
    return partial + str(-sum(map(int, doubled)) % 10)


def _request(number: int) -> bytes:
    fields = {
        2: f"16{card_number(number)}",  # card number, behind its size
        3: "000000",  # processing code: goods and services
        4: f"{1 + number % 5_000:012}",  # amount in minor units
        7: "1124201500",  # transmission date and time
        11: f"{number % 1_000_000:06}",  # trace number
        12: "201500",  # local time
        13: "1124",  # local date
        14: "3012",  # expiry
        22: "051",  # entry mode
        25: "00",  # point-of-service condition
        37: f"{number:012}",  # retrieval reference
        41: "TERM0001",
        42: "MERCHANT0000001",
        49: "356",  # currency: INR
    }
    bitmap = sum(1 << (64 - n) for n in fields)
    return REQUEST.encode() + bitmap.to_bytes(8) + "".join(fields.values()).encode()


class Iso8583Peer:
    """A server of ISO 8583 in a process of its own; our process loads it. Subclasses say which."""

    name: str
    title: str
    client_counts: tuple[int, ...] = (1, 8, 64, 256)

    def __init__(self) -> None:
        self.version = ""
        self.settings: dict[str, str] = {}
        self._server: Child | None = None
        self._load: ClosedLoop | None = None

    def start(self, directory: Path) -> None:
        """Raises Missing, PeerFailed."""
        argv = self._command(directory)
        self._server = Child(argv, directory / "server.log", READY)
        port = int(self._server.ready_match[1])
        self._load = ClosedLoop(port, requests(REQUEST_COUNT), RESPONSE.encode())

    def measure(self, client_count: int, seconds: float) -> PeerRun:
        """Raises PeerFailed."""
        if self._load is None:
            raise PeerFailed(f"{self.name} was not started")
        return self._load.measure(client_count, seconds)

    def stop(self) -> None:
        """End the server."""
        self._load = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _command(self, directory: Path) -> Sequence[str]:
        """Find the program, keep its version, and give the command line that serves. Raises Missing, PeerFailed."""
        raise NotImplementedError
