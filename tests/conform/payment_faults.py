"""Bugs of a bank that show in its answers to transfers and resolves, and in its key list."""

import dataclasses
from collections.abc import Callable
from itertools import count

from conform.double import Double, Fault, Pipe, correlation_of, frames_in, is_kind, message_of, remade

from paygate.codec.codes import AeadId, KemId, KeysStatus, Kind, Reason, TransferOutcome
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Message,
    ResolveRequest,
    TransferAnswer,
    TransferRequest,
)
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.seal import envelope_hash, sign_key_list
from paygate.codec.sealed import KeyList, SignedKeyList

Ask = TransferRequest | ResolveRequest
Answer = Callable[[Double, Ask, TransferAnswer], TransferAnswer]
HYBRID_ENVELOPE_SIZE = 1_392
_utr_numbers = count(1)


@dataclasses.dataclass
class Answers(Fault):
    """Gives another answer to a transfer or a resolve, signed as the bank signs."""

    answer: Answer

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        reply, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(reply, TransferAnswer) and isinstance(request, Ask):
            answer = self.answer(pipe.double, request, reply)
            if answer is not reply:
                frame = remade(frame, pipe.link_key, body=encode_record(answer))
        pipe.to_kit(frame)


def new_utr(day: str = "20261124", code: str = "DEMO") -> str:
    """A UTR that the real bank has not given."""
    return f"{code}P1{day}{90_000_000 + next(_utr_numbers):08d}"


# -- what is decided -------------------------------------------------------------------------------------


def posts_anyway(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """What must be declined is posted."""
    if reply.outcome is not TransferOutcome.DECLINED:
        return reply
    return double.forged(request, reply, TransferOutcome.POSTED, utr=new_utr())


def checks_in_another_order(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """Each reason is found behind the one that follows it."""
    if reply.outcome is not TransferOutcome.DECLINED:
        return reply
    other = Reason(reply.reason + 1) if reply.reason < Reason.FUNDS else Reason.LATE
    return double.forged(request, reply, TransferOutcome.DECLINED, other)


def declines(reason: Reason, when: Callable[[TransferRequest], bool] = lambda _: True) -> Answer:
    """What must be posted is declined."""

    def answer(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        if reply.outcome is not TransferOutcome.POSTED or not isinstance(request, TransferRequest):
            return reply
        return double.forged(request, reply, TransferOutcome.DECLINED, reason) if when(request) else reply

    return answer


class PaysByDeclining(Answers):
    """A declined or fenced payment counts as its token's."""

    def __init__(self) -> None:
        super().__init__(self._decide)
        self._ended: set[str] = set()

    def _decide(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        token = request.terms.transaction_id
        if reply.outcome is not TransferOutcome.POSTED:
            self._ended.add(token)
        elif token in self._ended:
            return double.forged(request, reply, TransferOutcome.DECLINED, Reason.TOKEN_ALREADY_PAID)
        return reply


def unavailable(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """Nothing is ever decided."""
    return dataclasses.replace(reply, outcome=TransferOutcome.UNAVAILABLE, reason=Reason.NONE, utr="", receipt=b"")


# -- what is told ----------------------------------------------------------------------------------------


def another_receipt_key(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The receipt's signature does not verify."""
    return dataclasses.replace(reply, receipt=reply.receipt[:-1] + bytes([reply.receipt[-1] ^ 1]))


def another_utr_than_in_receipt(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The answer tells another UTR than the receipt states."""
    return dataclasses.replace(reply, utr=new_utr()) if reply.utr else reply


def another_payment_id(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The answer names another payment."""
    return dataclasses.replace(reply, payment_id=bytes(15) + b"\1")


def receipt_of_other_terms(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The receipt states another amount than was asked for."""
    terms = dataclasses.replace(request.terms, amount_minor=request.terms.amount_minor + 1)
    other = dataclasses.replace(request, terms=terms)
    return double.forged(other, reply, reply.outcome, reply.reason, reply.utr)


def receipt_of_other_envelope(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The receipt states the hash of another envelope."""
    if isinstance(request, TransferRequest):
        request = ResolveRequest(request.terms, envelope_hash(request.envelope + b"\0"))
    return double.forged(request, reply, reply.outcome, reply.reason, reply.utr)


def receipt_of_long_ago(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """The receipt states the time of the epoch."""
    return double.forged(request, reply, reply.outcome, reply.reason, reply.utr, bank_time_ms=0)


def same_utr(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """One UTR is given to every payment."""
    if reply.outcome is not TransferOutcome.POSTED:
        return reply
    return double.forged(request, reply, TransferOutcome.POSTED, utr=reply.utr[:14] + "00000001")


def utr_of_another_bank(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """UTRs begin with another bank's code."""
    if reply.outcome is not TransferOutcome.POSTED:
        return reply
    return double.forged(request, reply, TransferOutcome.POSTED, utr=f"XXXX{reply.utr[4:]}")


def utr_of_another_day(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """UTRs have a date of long ago."""
    if reply.outcome is not TransferOutcome.POSTED:
        return reply
    return double.forged(request, reply, TransferOutcome.POSTED, utr=new_utr(day="20010101"))


class TimeRunsBack(Answers):
    """Each receipt's time is a second before the last one's."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._seconds = count(1)

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        at_ms = request.terms.authorised_at_ms - 1_000 * next(self._seconds)
        return double.forged(request, reply, reply.outcome, reply.reason, reply.utr, bank_time_ms=at_ms)


# -- what is repeated ------------------------------------------------------------------------------------


class DecidesAnew(Answers):
    """A repeat is decided again, and so gets another receipt and, if posted, another UTR: it is posted twice."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._seen: set[bytes] = set()

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        payment_id = request.terms.payment_id
        if payment_id not in self._seen:
            self._seen.add(payment_id)
            return reply
        utr = new_utr() if reply.utr else ""
        return double.forged(request, reply, reply.outcome, reply.reason, utr)


class RepeatsOnOneLinkOnly(Answers):
    """A repeat is known only on the link of the first."""

    def __init__(self) -> None:
        super().__init__(lambda _double, _request, reply: reply)
        self._first: dict[bytes, Pipe] = {}

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        reply, request = message_of(frame), pipe.asked.get(correlation_of(frame))
        if isinstance(reply, TransferAnswer) and isinstance(request, Ask):
            first = self._first.setdefault(reply.payment_id, pipe)
            if first is not pipe:
                at_ms = request.terms.authorised_at_ms + 1
                answer = pipe.double.forged(request, reply, reply.outcome, reply.reason, reply.utr, at_ms)
                frame = remade(frame, pipe.link_key, body=encode_record(answer))
        pipe.to_kit(frame)


class LocksOnOneLinkOnly(Answers):
    """An account is locked only on the link of the guesses."""

    def __init__(self) -> None:
        super().__init__(posts_anyway)
        self._first: Pipe | None = None

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        self._first = self._first or pipe
        if pipe is self._first:
            pipe.to_kit(frame)
        else:
            super().from_bank(pipe, frame)


def repeats_by_time(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """A repeat with no time left is late, though it was posted."""
    if isinstance(request, TransferRequest) and not request.time_left_ms:
        return double.forged(request, reply, TransferOutcome.DECLINED, Reason.LATE)
    return reply


def repeats_by_key(double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
    """A repeat with another key ID gets MISMATCH."""
    if isinstance(request, TransferRequest) and not any(request.key_id):
        return dataclasses.replace(unavailable(double, request, reply), outcome=TransferOutcome.MISMATCH)
    return reply


class Reveals(Answers):
    """MISMATCH tells what the payment came to."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._first: dict[bytes, TransferAnswer] = {}

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        if reply.outcome is not TransferOutcome.MISMATCH:
            self._first[reply.payment_id] = reply
            return reply
        first = self._first.get(reply.payment_id, reply)
        return dataclasses.replace(first, payment_id=reply.payment_id)


class MismatchChanges(Answers):
    """A MISMATCH makes the bank forget what the payment came to."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._mismatched: set[bytes] = set()

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        if reply.outcome is TransferOutcome.MISMATCH:
            self._mismatched.add(reply.payment_id)
        elif reply.payment_id in self._mismatched:
            return double.forged(request, reply, TransferOutcome.DECLINED, Reason.FUNDS)
        return reply


class ForgetsFences(Answers):
    """A transfer behind a fence is posted."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        if isinstance(request, TransferRequest) and reply.outcome is TransferOutcome.FENCED:
            return double.forged(request, reply, TransferOutcome.POSTED, utr=new_utr())
        return reply


class ResolvesFirst(Fault):
    """A resolve overtakes the transfer that came before it."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        frames = sorted(frames_in(data), key=lambda frame: not is_kind(frame, Kind.RESOLVE_REQUEST))
        pipe.to_bank(b"".join(frames))


class OneNameSpace(Answers):
    """Payment IDs of all gateways are one name space."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._owner: dict[bytes, str] = {}

    def _answer(self, double: Double, request: Ask, reply: TransferAnswer) -> TransferAnswer:
        owner = self._owner.setdefault(reply.payment_id, request.terms.gateway_id)
        if owner == request.terms.gateway_id:
            return reply
        return dataclasses.replace(unavailable(double, request, reply), outcome=TransferOutcome.MISMATCH)


class ExactIsTooLittle(Answers):
    """A balance of exactly the amount is not enough: known of customers who pay all that the world gave them."""

    def __init__(self, balance_minor: int) -> None:
        super().__init__(declines(Reason.FUNDS, lambda request: request.terms.amount_minor == balance_minor))


# -- the key list ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class AltersKeyList(Fault):
    """Serves another key list, signed by the bank's own root key unless `is_signed` is false."""

    alter: Callable[[KeyList], KeyList]
    is_signed: bool = True

    def from_bank(self, pipe: Pipe, frame: bytes) -> None:
        message = message_of(frame)
        if isinstance(message, BankKeys) and message.status is KeysStatus.AVAILABLE:
            signed = decode_record(SignedKeyList, message.signed_key_list)
            key_list = self.alter(decode_record(KeyList, signed.key_list))
            made = sign_key_list(pipe.double.secrets.root_key, key_list)
            if not self.is_signed:
                made = made[:-1] + bytes([made[-1] ^ 1])
            frame = remade(frame, pipe.link_key, body=encode_record(dataclasses.replace(message, signed_key_list=made)))
        pipe.to_kit(frame)


def key_id_of_another_hash(key_list: KeyList) -> KeyList:
    """Key IDs are the first bytes of the key."""
    keys = tuple(dataclasses.replace(key, key_id=key.public_key[:8]) for key in key_list.suite_keys)
    return dataclasses.replace(key_list, suite_keys=keys)


def suite_mixed_up(key_list: KeyList) -> KeyList:
    """Every KEM goes with AES-256."""
    keys = tuple(dataclasses.replace(key, aead_id=AeadId.AES_256_GCM) for key in key_list.suite_keys)
    return dataclasses.replace(key_list, suite_keys=keys)


def hybrid_only(key_list: KeyList) -> KeyList:
    """There is no X25519 key."""
    keys = tuple(key for key in key_list.suite_keys if key.kem_id is not KemId.X25519)
    return dataclasses.replace(key_list, suite_keys=keys)


def over(key_list: KeyList) -> KeyList:
    """The list is valid no more."""
    return dataclasses.replace(key_list, valid_until_ms=key_list.valid_from_ms + 1)


class AnotherListEachTime(AltersKeyList):
    """Each query is answered by another list of the same serial."""

    def __init__(self) -> None:
        more_ms = count(1)
        super().__init__(
            lambda key_list: dataclasses.replace(key_list, valid_until_ms=key_list.valid_until_ms + next(more_ms))
        )


class OneBankForAll(Fault):
    """Whichever bank is asked for, this bank's list is given."""

    def from_kit(self, pipe: Pipe, data: bytes) -> None:
        message: Message | None = message_of(data)
        if isinstance(message, BankKeysQuery):
            data = remade(data, pipe.link_key, body=encode_record(BankKeysQuery("DEMOBANK")))
        pipe.to_bank(data)
