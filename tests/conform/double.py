"""A bank with a bug: it stands between the kit and our real bank, and a fault alters what passes.

It knows the link keys, so what it alters carries a right MAC; and it knows the bank's receipt and root keys, so what
it invents is signed. Both ends of it, and the kit, run on one loop.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.codec import limits
from paygate.codec.codes import Kind, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode, RemoteProtocolError
from paygate.codec.frame import FLAG_AUTHENTICATED, Header, decode_frame, decode_head
from paygate.codec.messages import Error, Hello, Message, ResolveRequest, TransferAnswer, TransferRequest
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import envelope_hash, key_id_of, sign_receipts
from paygate.codec.sealed import ReceiptStatement
from paygate.conform.craft import MAGIC_NUMBER, Draft, draft
from paygate.net.addresses import Address
from paygate.net.conn import CloseReason, Connection
from paygate.net.connect import connect
from paygate.net.limits import LINK_LIMITS, LISTEN_LIMITS
from paygate.net.listen import Listener
from paygate.net.loop import Loop


@dataclass(frozen=True)
class Secrets:
    """What the double knows of the bank behind it."""

    link_keys: dict[str, bytes]
    receipt_key: Ed25519PrivateKey
    root_key: Ed25519PrivateKey


class Pipe:
    """One connection of the kit, joined to one to the bank."""

    def __init__(self, double: "Double", kit: Connection) -> None:
        self.double = double
        self.kit = kit
        self.bank: Connection | None = None
        self.gateway_id = ""
        self.asked: dict[int, Message] = {}
        """The kit's requests by correlation ID, so that an answer can be held against its own."""
        self.held: list[bytes] = []
        """For a fault to keep something in."""
        self._bank_sock: socket.socket | None = None
        self._from_kit = bytearray()
        self._from_bank = bytearray()
        kit.handler = _End(self.kit_received, self.kit_ended, self.kit_gone)
        kit.pause_reading()
        connect(
            double.loop,
            *double.bank_address,
            timeout_ms=5_000,
            on_connected=self._bank_connected,
            on_failed=lambda _: kit.abort(),
        )

    @property
    def link_key(self) -> bytes | None:
        """The key of this link, once a known gateway has said hello on it."""
        return self.double.secrets.link_keys.get(self.gateway_id)

    # -- what a fault may do ---------------------------------------------------------------------------

    def to_bank(self, data: bytes) -> None:
        """Pass something on to the bank."""
        if self.bank is not None:
            self.bank.send(data)

    def to_bank_unless_closed(self, data: bytes) -> None:
        """Pass something on to the bank, unless the kit's end is closed by now."""
        if self.kit.is_open:
            self.to_bank(data)

    def to_kit(self, data: bytes) -> None:
        """Pass something on to the kit."""
        self.kit.send(data)

    def message_to_kit(self, message: Message, correlation_id: int) -> None:
        """Say something to the kit under the link's own key."""
        self.to_kit(draft(message, self.link_key, correlation_id).encode())

    def fail(self, code: ErrorCode) -> None:
        """Do to the kit what a bank does that finds a fault. Harmless when the link is over."""
        self.message_to_kit(Error(code, code.closes, "the double says so"), 0)
        self.close()

    def close(self) -> None:
        """End both sides."""
        self.kit.close_after_flush()
        if self.bank is not None:
            self.bank.abort()

    def end_bank(self) -> None:
        """Tell the bank that the kit sends no more."""
        if self.bank is not None and self.bank.output_size:
            self.double.loop.call_later(5, self.end_bank)
        elif self.bank is not None and self.bank.is_open and self._bank_sock is not None:
            self._bank_sock.shutdown(socket.SHUT_WR)

    # -- what happens ----------------------------------------------------------------------------------

    def _bank_connected(self, sock: socket.socket) -> None:
        self._bank_sock = sock
        handler = _End(self.bank_received, self.bank_ended, lambda: None)
        self.bank = Connection(self.double.loop, sock, handler, LINK_LIMITS)
        self.kit.resume_reading()

    def kit_received(self, data: bytes) -> None:
        self._from_kit += data
        for frame in _whole_frames(self._from_kit):
            message = message_of(frame)
            if isinstance(message, Hello):
                self.gateway_id = message.party_id
            if message is not None:
                self.asked[decode_record(Header, frame[:20]).correlation_id] = message
        self.double.fault.from_kit(self, data)

    def kit_ended(self) -> None:
        self.double.fault.kit_ended(self)

    def kit_gone(self) -> None:
        if self.bank is not None:
            self.bank.abort()

    def bank_received(self, data: bytes) -> None:
        self.double.fault.from_bank_data(self, data)

    def bank_frames(self, data: bytes) -> list[bytes]:
        """The frames that are whole now that these bytes came from the bank."""
        self._from_bank += data
        return _whole_frames(self._from_bank)

    def bank_ended(self) -> None:
        self.double.fault.bank_ended(self)
        if self.bank is not None:
            self.bank.close_after_flush()


class Fault:
    """What a bank with a bug does; this one has none. A fault overrides one or more of these."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        """The kit sent bytes: what was sent at once comes at once, as a rule."""
        pipe.to_bank(data)

    def kit_ended(self, pipe: Pipe) -> None:
        """The kit ended its side."""
        pipe.double.loop.call_soon(pipe.end_bank)

    def from_bank_data(self, pipe: Pipe, data: bytes) -> None:
        """The bank sent bytes; a bank sends frames."""
        for frame in pipe.bank_frames(data):
            self.from_bank(pipe, frame)

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        """The bank sent a whole frame."""
        pipe.to_kit(frame)

    def bank_ended(self, pipe: Pipe) -> None:
        """The bank ended its side."""
        pipe.kit.close_after_flush()


class Double:
    """A listening bank with a fault."""

    def __init__(
        self, loop: Loop, bank_address: Address, secrets: Secrets, fault: Fault, connection_count_max: int = 10_000
    ) -> None:
        self.loop = loop
        self.bank_address = bank_address
        self.secrets = secrets
        self.fault = fault
        self.pipes: list[Pipe] = []
        nobody = _End(lambda _: None, lambda: None, lambda: None)
        self._listener = Listener(
            loop,
            "127.0.0.1",
            0,
            nobody,
            on_accept=lambda conn: self.pipes.append(Pipe(self, conn)),
            on_refused=lambda _address, _reason: None,
            limits=replace(
                LISTEN_LIMITS,
                connection_count_max=connection_count_max,
                connection_count_per_address_max=connection_count_max,
            ),
        )
        self.address: Address = (self._listener.host, self._listener.port)

    def close(self) -> None:
        """Cut everything."""
        self._listener.close()
        for pipe in self.pipes:
            pipe.kit.abort()

    # -- forging ---------------------------------------------------------------------------------------

    def forged(
        self,
        request: TransferRequest | ResolveRequest,
        answer: TransferAnswer,
        outcome: TransferOutcome,
        reason: Reason = Reason.NONE,
        utr: str = "",
        bank_time_ms: int | None = None,
    ) -> TransferAnswer:
        """Another final answer to a request, signed as only the bank can."""
        sent_hash = envelope_hash(request.envelope) if isinstance(request, TransferRequest) else request.envelope_hash
        key_id = key_id_of(self.secrets.receipt_key.public_key().public_bytes_raw())
        at_ms = request.terms.authorised_at_ms if bank_time_ms is None else bank_time_ms
        statement = ReceiptStatement(key_id, outcome, reason, request.terms, utr, at_ms, sent_hash)
        receipt = sign_receipts(self.secrets.receipt_key, [statement])[0]
        return replace(
            answer, payment_id=request.terms.payment_id, outcome=outcome, reason=reason, utr=utr, receipt=receipt
        )


@dataclass
class _End:
    """ConnectionHandler that says what happened, without saying on which connection."""

    on_data: Callable[[bytes], None]
    on_eof: Callable[[], None]
    on_gone: Callable[[], None]

    def data_received(self, conn: Connection, data: bytes) -> None:
        self.on_data(data)

    def eof_received(self, conn: Connection) -> None:
        self.on_eof()

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        self.on_gone()


# -- frames ----------------------------------------------------------------------------------------------


def frames_in(data: bytes) -> list[bytes]:
    """The frames of a chunk, by their sizes alone; what is left over at the end, or is no frame, is the last."""
    buffer = bytearray(data)
    frames = list(_whole_frames(buffer))
    return [*frames, bytes(buffer)] if buffer else frames


def _whole_frames(buffer: bytearray) -> list[bytes]:
    frames: list[bytes] = []
    while len(buffer) >= limits.HEADER_SIZE:
        header = decode_record(Header, bytes(buffer[: limits.HEADER_SIZE]))
        size = limits.HEADER_SIZE + header.body_size
        size += limits.MAC_SIZE if header.flags & FLAG_AUTHENTICATED else 0
        if header.magic != MAGIC_NUMBER or len(buffer) < size:
            break
        frames.append(bytes(buffer[:size]))
        del buffer[:size]
    return frames


def message_of(frame: bytes) -> Message | None:
    """What a frame says, or None if it is not valid."""
    try:
        return decode_frame(decode_head(frame[: limits.HEADER_SIZE]), frame).message()
    except (RemoteProtocolError, AssertionError):
        return None


def correlation_of(frame: bytes) -> int:
    """The frame's correlation ID."""
    return decode_record(Header, frame[: limits.HEADER_SIZE]).correlation_id


def is_kind(frame: bytes, kind: Kind) -> bool:
    """Whether the frame's header says this kind."""
    return len(frame) >= limits.HEADER_SIZE and frame[3] == kind


def remade(frame: bytes, link_key: bytes | None, **changes: Any) -> bytes:
    """The frame with changes, and a right checksum and MAC again."""
    header = decode_record(Header, frame[: limits.HEADER_SIZE])
    body = frame[limits.HEADER_SIZE : limits.HEADER_SIZE + header.body_size]
    key = link_key if header.flags & FLAG_AUTHENTICATED else None
    made = Draft(header.kind, body, header.correlation_id, key)
    return replace(made, **changes).encode()
