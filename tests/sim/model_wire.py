"""The model's eye on wires and disks: final results that leave the bank, secrets that leave an envelope (I7)."""

from collections.abc import Iterable
from typing import Final

from sim.invariants import Invariant, Violation
from sim.model_ledger import LedgerModel

from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import Kind
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.messages import ResolveResult, TransferResult

_RESULTS: Final = frozenset({Kind.TRANSFER_RESULT, Kind.RESOLVE_RESULT})
_TAIL_SIZE: Final = 64
"""A secret that is cut between two pieces is found all the same; none is longer."""


class WireModel:
    """All links, and what lies on disks."""

    def __init__(self, ledger: LedgerModel) -> None:
        self._ledger = ledger
        self._canaries: dict[bytes, str] = {}
        self._tails: dict[tuple[str, str], bytes] = {}
        self._buffers: dict[str, FrameBuffer | None] = {}  # by link: what the bank sends; None once it made no sense

    def keep_secret(self, what: str, secret: bytes) -> None:
        """Nobody but the customer and the bank's decoder may hold this."""
        assert 4 <= len(secret) <= _TAIL_SIZE, (
            "a shorter secret would be found by chance, a longer one not between pieces"
        )
        self._canaries[secret] = what

    def frame(self, link_name: str, sender: str, data: bytes) -> None:
        """Bytes left a node for a link."""
        direction = (link_name, sender)
        seen = self._tails.get(direction, b"") + data
        self.look_for_secrets(seen, f"the link {link_name}, sent by {sender}")
        self._tails[direction] = seen[-_TAIL_SIZE:]

    def look_for_secrets(self, data: bytes, where: str) -> None:
        """I7."""
        for canary, what in self._canaries.items():
            if canary in data:
                raise Violation(Invariant.I7, f"{what} stands on {where}")

    def bank_sent(self, link_name: str, data: bytes) -> None:
        """I3, the moment that counts: what leaves the bank as final is in the ledger already."""
        buffer = self._buffers.setdefault(link_name, FrameBuffer())
        if buffer is None:
            return
        try:
            buffer.receive_data(data)
            while buffer.next_head() is not None and (frame := buffer.next_frame()) is not None:
                if frame.kind in _RESULTS:
                    message = frame.message()
                    assert isinstance(message, TransferResult | ResolveResult)
                    self._told(message)
        except RemoteProtocolError:
            self._buffers[link_name] = None

    def _told(self, message: TransferResult | ResolveResult) -> None:
        if not message.outcome.is_final:
            return
        row = self._ledger.check_final(message.receipt, "the bank")
        if (row.payment_id, row.outcome, row.utr or "") != (message.payment_id, message.outcome, message.utr):
            raise Violation(Invariant.I3, f"the bank tells of payment {message.payment_id.hex()} what its row does not")

    def closed(self, link_names: Iterable[str]) -> None:
        """These links are gone."""
        for link_name in link_names:
            self._buffers.pop(link_name, None)
