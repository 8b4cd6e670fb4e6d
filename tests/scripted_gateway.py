"""A gateway whose every answer is the test's, for the client: one end of a real link, without a socket."""

from collections.abc import Callable
from typing import TypeVar

from builders import (
    BANK_ID,
    PASSCODE,
    ROOT_PUBLIC_KEY,
    build_receipt,
    build_signed_key_list,
    build_statement,
    build_terms,
    build_token_ack,
)

from paygate.client.payment import Payment
from paygate.client.root import BankRoot
from paygate.codec import limits
from paygate.codec.codes import KeysStatus, Kind, PaymentStatus, Reason, Role
from paygate.codec.messages import BankKeys, EncryptedCredentials, Message, PaymentAck, StatusAck
from paygate.codec.seal import envelope_hash
from paygate.link import Link
from paygate.link_events import RequestReceived
from paygate.net.conn import CloseReason, Connection
from paygate.net.listen import Listener
from paygate.net.loop import Loop

TEST_ROOT = BankRoot(BANK_ID, ROOT_PUBLIC_KEY)
ALWAYS_VALID_KEYS = build_signed_key_list(valid_from_ms=0, valid_until_ms=limits.TIME_MS_MAX)
"""For clients that run by the real clock."""

M = TypeVar("M", bound=Message)


class ScriptedGateway:
    """Collects what the client asks; answers only what the test says, or what `script` holds."""

    def __init__(self, now_ms: int = 0) -> None:
        self.link = Link(Role.GATEWAY, "GW1", Role.CLIENT, is_caller=False, now_ms=now_ms)
        self.asked: list[RequestReceived] = []
        self.script: dict[Kind, Callable[[Message], Message | None]] = {}
        """By the request's kind: gives the reply, or None to leave it open."""

    def receive(self, data: bytes, now_ms: int) -> bytes:
        """Take the client's bytes in; gives what is to be sent back."""
        output = b""
        for event in self.link.receive_data(data, now_ms):
            if isinstance(event, RequestReceived):
                self.asked.append(event)
                reply = self.script.get(event.message.kind, _no_reply)(event.message)
                if reply is not None:
                    output += self.reply(reply)
        return output + self.link.data_to_send()

    def reply(self, message: Message) -> bytes:
        """Answer the oldest open request that this message can answer; gives the bytes to send."""
        event = next(e for e in self.asked if message.kind in (e.message.kind.reply, Kind.ERROR))
        self.asked.remove(event)
        self.link.send_reply(event.correlation_id, message)
        return self.link.data_to_send()

    def request(self, cls: type[M]) -> M:
        """The oldest open request of a kind."""
        return next(e.message for e in self.asked if isinstance(e.message, cls))


def _no_reply(_message: Message) -> Message | None:
    return None


def keys(signed_key_list: bytes) -> BankKeys:
    """The answer that carries a key list."""
    return BankKeys(KeysStatus.AVAILABLE, signed_key_list)


def proven(payment: Payment, cls: type[PaymentAck] | type[StatusAck] = PaymentAck, **changes: object) -> Message:
    """The bank's true answer to a payment: paid, unless `changes` to the statement say otherwise."""
    statement = build_statement(terms=payment.terms, envelope_hash=payment.envelope_hash, **changes)
    status = PaymentStatus.PAID if statement.utr else PaymentStatus.DECLINED
    return cls(payment.payment_id, status, statement.reason, statement.utr, build_receipt(statement))


def unproven(
    payment: Payment,
    status: PaymentStatus,
    reason: Reason = Reason.NONE,
    utr: str = "",
    receipt: bytes = b"",
    cls: type[PaymentAck] | type[StatusAck] = PaymentAck,
) -> Message:
    """Any answer to a payment."""
    return cls(payment.payment_id, status, reason, utr, receipt)


class GatewayServer:
    """Scripted gateways behind a real socket, on a loop of the test's."""

    def __init__(self, loop: Loop) -> None:
        self.script: dict[Kind, Callable[[Message], Message | None]] = {
            Kind.TOKEN_QUERY: lambda _: build_token_ack(),
            Kind.BANK_KEYS_QUERY: lambda _: keys(ALWAYS_VALID_KEYS),
            Kind.ENCRYPTED_CREDENTIALS: self.paid,
        }
        """As in ScriptedGateway; by default every payment is paid."""
        self.payment: Payment | None = None
        """The last payment that came, as its client should know it."""
        self.connections: dict[Connection, ScriptedGateway] = {}
        self._loop = loop
        self._listener = Listener(loop, "127.0.0.1", 0, self, on_accept=self._accepted, on_refused=lambda *_: None)
        self.address = f"127.0.0.1:{self._listener.port}"

    def paid(self, message: Message) -> Message:
        """The true answer to credentials that came, or to a question about them."""
        if isinstance(message, EncryptedCredentials):
            terms = build_terms(payment_id=message.payment_id, authorised_at_ms=message.authorised_at_ms)
            self.payment = Payment(
                terms, envelope_hash(message.envelope), PASSCODE, "", self.address, TEST_ROOT, ALWAYS_VALID_KEYS
            )
            return proven(self.payment)
        assert self.payment is not None
        return proven(self.payment, StatusAck)

    def reply_later(self, message: Message) -> None:
        """Answer what the script has left open."""
        for conn, gateway in self.connections.items():
            if any(message.kind is e.message.kind.reply for e in gateway.asked):
                conn.send(gateway.reply(message))

    def cut(self) -> None:
        """Cut every connection."""
        for conn in self.connections:
            conn.abort()

    def close(self) -> None:
        """Free everything."""
        self._listener.close()
        self.cut()

    def _accepted(self, conn: Connection) -> None:
        self.connections[conn] = ScriptedGateway(self._loop.now_ms())
        self.connections[conn].script = self.script

    def data_received(self, conn: Connection, data: bytes) -> None:
        """ConnectionHandler."""
        conn.send(self.connections[conn].receive(data, self._loop.now_ms()))

    def eof_received(self, conn: Connection) -> None:
        """ConnectionHandler."""
        conn.close_after_flush()

    def connection_closed(self, conn: Connection, reason: CloseReason, detail: str) -> None:
        """ConnectionHandler."""
        self.connections.pop(conn, None)
