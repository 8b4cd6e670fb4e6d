"""Which payment, token and session a frame is about: from its own fields, else from what was seen before it.

A token's transaction ID leads to the session that its ack opens, a session to the payment sent in it, and a payment's
terms on the bank link to the transaction again. Each step of that is remembered in a table with a bound.
"""

from collections import OrderedDict
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

from paygate.codec.codes import Kind
from paygate.codec.fields import Nested, fields_of
from paygate.codec.messages import MESSAGES, EncryptedCredentials, Message, TokenAck
from paygate.codec.sealed import Terms
from paygate.dump.envelopes import ENVELOPE_KINDS, EnvelopeOpener, terms_of_session
from paygate.dump.model import Finding, SeenFrame

SESSION_COUNT_MAX: Final = 32_768
"""Sessions last 30 s (R10), so these are all that a gateway with a thousand tokens a second has open."""
PAYMENT_COUNT_MAX: Final = 65_536
"""Payments whose token is remembered: a repeat or a status query comes within minutes; some 30 MB."""

_Getter = Callable[[Message], Any]


class _Paths(NamedTuple):
    """How to get at each ID in the messages of one kind; None where the kind has no such field."""

    payment_id: _Getter | None
    transaction_id: _Getter | None
    session_id: _Getter | None
    terms: _Getter | None


def _path(cls: type[Message], name: str) -> _Getter | None:
    for field in fields_of(cls):
        if field.name == name:
            return attrgetter(name)
        if isinstance(field.type, Nested) and any(inner.name == name for inner in fields_of(field.type.record)):
            return attrgetter(f"{field.name}.{name}")
    return None


_PATHS: Final = {kind: _Paths(*(_path(cls, name) for name in _Paths._fields)) for kind, cls in MESSAGES.items()}
_SILENT: Final = _Paths(None, None, None, None)


class _Session(NamedTuple):
    transaction_id: str
    ack: Message | None
    """The ack that opened it, if there are envelopes to open."""


class _Payment(NamedTuple):
    transaction_id: str
    session_id: bytes
    terms: Terms | None
    """If there are envelopes to open."""


_K = TypeVar("_K")
_V = TypeVar("_V")


def remember(table: OrderedDict[_K, _V], key: _K, value: _V, count_max: int) -> None:
    """Put a value into a table that forgets what was used least lately."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > count_max:
        table.popitem(last=False)


class Identities:
    """Fills in a frame's IDs, and has its envelope opened since only the IDs lead to the terms."""

    def __init__(self, opener: EnvelopeOpener | None) -> None:
        self._opener = opener
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._payments: OrderedDict[bytes, _Payment] = OrderedDict()

    def identify(self, frame: SeenFrame) -> Finding | None:
        """Set the IDs of a frame whose `answers` is set already; the finding if its envelope should open and can't."""
        message = frame.message
        paths = _PATHS[frame.frame.kind] if message is not None else _SILENT
        if paths is _SILENT and frame.answers is None:
            return None
        payment_id, transaction_id, session_id = b"", "", b""
        if message is not None:
            if paths.payment_id is not None:
                payment_id = paths.payment_id(message)
            if paths.transaction_id is not None:
                transaction_id = paths.transaction_id(message)
            if paths.session_id is not None:
                session_id = paths.session_id(message)
                if not any(session_id):  # A TokenAck without a session says so with zeros (spec 6.2).
                    session_id = b""
        request = frame.answers
        if request is not None:
            payment_id = payment_id or request.payment_id
            transaction_id = transaction_id or request.transaction_id
            session_id = session_id or request.session_id
        if payment_id or session_id:
            transaction_id, session_id = self._connect(frame, payment_id, transaction_id, session_id)
        frame.payment_id = payment_id
        frame.transaction_id = transaction_id
        frame.session_id = session_id
        if self._opener is not None and message is not None and frame.frame.kind in ENVELOPE_KINDS:
            return self._open(self._opener, frame, message, paths)
        return None

    def _connect(
        self, frame: SeenFrame, payment_id: bytes, transaction_id: str, session_id: bytes
    ) -> tuple[str, bytes]:
        """Complete what is known of a frame by the tables, and the tables by the frame."""
        payment = self._payments.get(payment_id) if payment_id else None
        if payment is not None:
            self._payments.move_to_end(payment_id)
            transaction_id = transaction_id or payment.transaction_id
            session_id = session_id or payment.session_id
        session = self._sessions.get(session_id) if session_id else None
        if session is not None:
            transaction_id = transaction_id or session.transaction_id
        elif session_id and transaction_id:
            ack = frame.message if self._opener is not None and frame.frame.kind is Kind.TOKEN_ACK else None
            remember(self._sessions, session_id, _Session(transaction_id, ack), SESSION_COUNT_MAX)
        if payment_id and transaction_id and (payment is None or (not payment.session_id and session_id)):
            terms = payment.terms if payment is not None else None
            remember(self._payments, payment_id, _Payment(transaction_id, session_id, terms), PAYMENT_COUNT_MAX)
        return transaction_id, session_id

    def _open(self, opener: EnvelopeOpener, frame: SeenFrame, message: Message, paths: _Paths) -> Finding | None:
        payment = self._payments.get(frame.payment_id)
        other = payment.terms if payment is not None else None
        terms = paths.terms(message) if paths.terms is not None else None
        if isinstance(message, EncryptedCredentials):
            session = self._sessions.get(message.session_id)
            ack = session.ack if session is not None else None
            if session is not None and isinstance(ack, TokenAck):
                terms = terms_of_session(ack, session.transaction_id, message)
        if terms is None:
            terms, other = other, None
        elif payment is not None and payment.terms is None:
            remember(self._payments, frame.payment_id, payment._replace(terms=terms), PAYMENT_COUNT_MAX)
        return opener.open(frame, terms, other)
