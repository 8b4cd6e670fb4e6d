"""The peer that pyiso8583 makes: decode, decide by a balance in memory, encode.

python -m paygate.bench.peers.iso8583_server        the server, for this peer; it ends with its stdin
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paygate.bench.peers.iso8583 import CARD_COUNT, RESPONSE, Iso8583Peer, card_number
from paygate.bench.peers.loopback import SIZE_SIZE, framed, serve
from paygate.bench.peers.peer import Missing
from paygate.children import child_argv

_BALANCE_MINOR: Final = 10**12
"""What each card has at first: more than any run spends."""
_APPROVED, _DECLINED = "00", "51"
_ECHOED: Final[tuple[str, ...]] = ("2", "3", "4", "7", "11", "12", "13", "37", "41", "42", "49")
"""The fields of a request that its response repeats."""


class PyIso8583(Iso8583Peer):
    """pyiso8583 on epoll, one process."""

    name = "pyiso8583"
    title = "ISO 8583 in Python (pyiso8583) on epoll: a balance in memory; no disk, no crypto"

    def _command(self, directory: Path) -> Sequence[str]:
        try:
            import iso8583
        except ImportError:
            raise Missing("pyiso8583 is not installed", "pip install pyiso8583") from None
        self.version = f"pyiso8583 {iso8583.__version__}"
        return child_argv("paygate.bench.peers.iso8583_server")


class Issuer:
    """What the server decides with: cards and what is left on them."""

    def __init__(self) -> None:
        import iso8583
        from iso8583.specs import default_ascii

        self._decode, self._encode = iso8583.decode, iso8583.encode
        self._spec = copy.deepcopy(default_ascii)
        for bitmap in ("p", "1"):
            self._spec[bitmap].update({"data_enc": "b", "max_len": 8})
        self._balance_minor = {card_number(n): _BALANCE_MINOR for n in range(CARD_COUNT)}

    def answer(self, data: bytes) -> tuple[bytes, bytes]:
        """The responses to all whole requests, and what is left of the data. Raises DecodeError."""
        reply = b""
        start = 0
        while len(data) >= start + SIZE_SIZE:
            end = start + SIZE_SIZE + int.from_bytes(data[start : start + SIZE_SIZE])
            if len(data) < end:
                break
            reply += framed(self._respond(data[start + SIZE_SIZE : end]))
            start = end
        return reply, data[start:]

    def _respond(self, body: bytes) -> bytes:
        request, _ = self._decode(body, self._spec)
        card, amount_minor = request["2"], int(request["4"])
        response: dict[str, str] = {name: request[name] for name in _ECHOED if name in request}
        response["t"] = RESPONSE
        left_minor = self._balance_minor.get(card, 0) - amount_minor
        if left_minor >= 0:
            self._balance_minor[card] = left_minor
            response["38"] = "A" + request["11"][-5:]
            response["39"] = _APPROVED
        else:
            response["39"] = _DECLINED
        encoded, _ = self._encode(response, self._spec)
        return bytes(encoded)


if __name__ == "__main__":
    serve(Issuer().answer)
