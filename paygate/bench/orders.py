"""What the bench's shoppers pay with: customers, orders, sealed credentials; and the check of what came back.

A shopper of the bench has a password key at once, where a person's client spends an Argon2id (21 ms) on each payment:
that runs on the shopper's own machine, and would only measure how many Argon2id this one does.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from itertools import repeat
from typing import Any, Final, TypeVar

from paygate.cli import ExitCode, PaygateExit
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.clock import system_now
from paygate.codec import limits
from paygate.codec.buffer import FrameBuffer
from paygate.codec.codes import KemId, PaymentStatus, TokenStatus
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.frame import encode_frame
from paygate.codec.messages import EncryptedCredentials, Message, PaymentAck, TokenAck, TokenQuery
from paygate.codec.seal import BadReceipt, envelope_hash, match_receipt, seal_credentials, verify_receipt
from paygate.codec.sealed import KeyList, SuiteKey, Terms

QUERY_CORRELATION_ID: Final = 2
"""Hello is 1. A link of the bench asks one thing at a time, so the IDs may come again."""
CREDENTIALS_CORRELATION_ID: Final = 3
_CHUNK_COUNT: Final = 500

T = TypeVar("T")


class WrongAnswer(PaygateExit):
    """A server answered otherwise than with what was asked: the run is worth nothing."""


class Clients(Enum):
    """Who seals, and when."""

    PREPARED = "sealed in advance"
    SEALING = "sealing"


def suite_name(suite: KemId) -> str:
    """`X25519` or `hybrid`."""
    return "X25519" if suite is KemId.X25519 else "hybrid"


def variant_of(suite: KemId, clients: Clients) -> str:
    """How results name a way of paying."""
    return f"{suite_name(suite)}, {clients.value}"


def suite_key_of(key_list: KeyList, suite: KemId) -> SuiteKey:
    """The first key of a suite in a bank's list. Raises PaygateExit if there is none."""
    for key in key_list.suite_keys:
        if key.kem_id is suite:
            return key
    raise PaygateExit(f"the bank has no key for {suite_name(suite)} envelopes; choose another suite", ExitCode.USAGE)


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of the bench's bank."""

    user_id: str
    password_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """A payment token, and who is going to pay it."""

    transaction_id: str
    passcode: str = field(repr=False)
    merchant_id: str
    amount_minor: int
    customer: Customer

    def query_frame(self) -> bytes:
        """The TokenQuery."""
        return encode_frame(TokenQuery(self.transaction_id, self.passcode), QUERY_CORRELATION_ID)


class _Customers(Sequence[Customer]):
    """Made as they are asked for, since ten million of them fill some gigabytes."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        made_from = b"%d %d" % (self._seed, number)
        return Customer(f"user{number:07}", blake2b(made_from, digest_size=limits.PASSWORD_KEY_SIZE).digest())


def make_customers(count: int, seed: int) -> Sequence[Customer]:
    """Customers with password keys that differ, the same for the same seed."""
    return _Customers(count, seed)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An order's second frame, and what the receipt must speak of."""

    frame: bytes
    terms: Terms
    envelope_hash: bytes


def seal(order: Order, ack: TokenAck, suite_key: SuiteKey, authorised_at_ms: int) -> Sealed:
    """What a client does once the token is acknowledged: terms, envelope, frame. Raises WrongAnswer."""
    if ack.status is not TokenStatus.VALID:
        raise WrongAnswer(f"token {order.transaction_id} is {ack.status.name}, not VALID")
    terms = Terms(
        bank_id=ack.bank_id,
        gateway_id=ack.gateway_id,
        merchant_id=ack.merchant_id,
        transaction_id=order.transaction_id,
        payment_id=make_payment_id(authorised_at_ms, os.urandom(RANDOMNESS_SIZE)),
        session_id=ack.session_id,
        amount_minor=ack.amount_minor,
        currency=ack.currency,
        authorised_at_ms=authorised_at_ms,
    )
    customer = order.customer
    envelope = seal_credentials(suite_key, terms, customer.user_id, customer.password_key, os.urandom(16))
    credentials = EncryptedCredentials(
        session_id=terms.session_id,
        payment_id=terms.payment_id,
        authorised_at_ms=authorised_at_ms,
        key_id=suite_key.key_id,
        envelope=envelope,
    )
    frame = encode_frame(credentials, CREDENTIALS_CORRELATION_ID)
    return Sealed(frame, terms, envelope_hash(envelope))


def decode_answer(data: bytes) -> Message:
    """The message in the bytes of one whole frame. Raises WrongAnswer."""
    buffer = FrameBuffer()
    buffer.receive_data(data)
    try:
        frame = buffer.next_frame()
        if frame is None or buffer.is_mid_frame:
            raise WrongAnswer("an answer is not one whole frame")
        return frame.message()
    except RemoteProtocolError as error:
        raise WrongAnswer(f"an answer is malformed: {error.text}") from None


def decode_ack(data: bytes) -> TokenAck:
    """The TokenAck in a frame. Raises WrongAnswer."""
    message = decode_answer(data)
    if not isinstance(message, TokenAck):
        raise WrongAnswer(f"a token query was answered with {message}")
    return message


def check_paid(data: bytes, sealed: Sealed, key_list: KeyList) -> None:
    """Accept an answer as a client does: PAID, with a receipt that verifies and speaks of this payment (T8, T9).

    Raises WrongAnswer.
    """
    message = decode_answer(data)
    if not isinstance(message, PaymentAck) or message.status is not PaymentStatus.PAID:
        raise WrongAnswer(f"a payment was answered with {message}")
    try:
        match_receipt(verify_receipt(message.receipt, key_list), sealed.terms, sealed.envelope_hash)
    except BadReceipt as error:
        raise WrongAnswer(f"a payment was answered with a receipt that can't be accepted: {error}") from None


# -- many at once, on all cores --------------------------------------------------------------------------


def seal_all(executor: Executor, orders: Sequence[Order], acks: Sequence[bytes], suite_key: SuiteKey) -> list[Sealed]:
    """Seal for every order in advance, by the frames of its TokenAcks. Raises WrongAnswer."""
    chunks = executor.map(_seal_chunk, _chunks(orders), _chunks(acks), repeat(suite_key))
    return [sealed for chunk in chunks for sealed in chunk]


def check_all(executor: Executor, answers: Sequence[bytes], sealed: Sequence[Sealed], key_list: KeyList) -> None:
    """Check every answer. Raises as `check_paid` does."""
    for _ in executor.map(_check_chunk, _chunks(answers), _chunks(sealed), repeat(key_list)):
        pass


def _seal_chunk(orders: Sequence[Order], acks: Sequence[bytes], suite_key: SuiteKey) -> list[Sealed]:
    # Each at its own time, as shoppers do, so that payment IDs come in about the order of their times.
    return [
        seal(order, decode_ack(ack), suite_key, system_now().wall_ms) for order, ack in zip(orders, acks, strict=True)
    ]


def _check_chunk(answers: Sequence[bytes], sealed: Sequence[Sealed], key_list: KeyList) -> None:
    for answer, one in zip(answers, sealed, strict=True):
        check_paid(answer, one, key_list)


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _CHUNK_COUNT] for start in range(0, len(items), _CHUNK_COUNT)]
