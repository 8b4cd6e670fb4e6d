"""Receipts to a client: what it must not believe, and trees of several leaves that it must (spec 6.4, 8.5)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from paygate.codec.codes import PaymentStatus, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import fields_of
from paygate.codec.messages import EncryptedCredentials, PaymentAck, PaymentAnswer
from paygate.codec.record_codec import decode_record, encode_record
from paygate.codec.sealed import Receipt, ReceiptStatement, Terms
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.client_options import Said
from paygate.conform.client_plan import Verdict
from paygate.conform.client_side import DOUBT, OPEN_SESSION_MS, Desk, Visit, case, expect_refused
from paygate.conform.craft import body_with, draft
from paygate.conform.wire import Reply

Lie = Callable[[Visit], Verdict]


@dataclass(frozen=True)
class DeclaredLie:
    """A lie with what the kit expects of a client that is told it, and the requirements behind that."""

    tell: Lie
    expects: str
    where: tuple[str, ...]


LIES: Final[dict[str, DeclaredLie]] = {}
"""Every lie by its name. All are told here, at once; those that may be believed later are told later, too."""


def _not_believed(name: str, expects: str, *where: str) -> Callable[[Lie], None]:
    """Declare a case in which the gateway lies, to every question; the client must not say paid or declined."""

    def declare(lie: Lie) -> None:
        LIES[name] = DeclaredLie(lie, expects, where)

        @case(f"receipt.{name}", expects, *("8.5", *where, "PG-PAY-10"))
        async def story(desk: Desk) -> None:
            visit = desk.visit(session_left_ms=OPEN_SESSION_MS)
            visit.decide(lie(visit))
            await visit.run(*DOUBT)

    return declare


def _with_receipt(visit: Visit, make: Callable[[ReceiptStatement], bytes]) -> Verdict:
    """PAID, with a receipt made from the true statement."""

    def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
        statement = visit.statement()
        return visit.proven(cls, statement, make(statement))

    return verdict


def _other_bank(visit: Visit) -> PlayedBankKeys:
    return PlayedBankKeys(visit.bank.bank_id, visit.bank.bank_code, b"another bank's seed".ljust(32))


def _signed(visit: Visit, statement: ReceiptStatement) -> Receipt:
    return decode_record(Receipt, visit.bank.receipts(statement)[0])


# -- signature and key -----------------------------------------------------------------------------------


@_not_believed("forged", "PAID with a receipt that nobody has signed is not believed.", "PG-RCP-3")
def _forged(visit: Visit) -> Verdict:
    signature = visit.t.random_bytes(64)
    return _with_receipt(visit, lambda s: encode_record(replace(_signed(visit, s), signature=signature)))


@_not_believed("altered", "A receipt whose statement was changed after it was signed is not believed.", "PG-RCP-3")
def _altered(visit: Visit) -> Verdict:
    def make(statement: ReceiptStatement) -> bytes:
        later = replace(statement, bank_time_ms=statement.bank_time_ms + 1)
        return encode_record(replace(_signed(visit, statement), statement=later))

    return _with_receipt(visit, make)


@_not_believed("other_key", "A receipt signed with a key that the list does not hold is not believed.", "PG-RCP-1")
def _other_key(visit: Visit) -> Verdict:
    other = _other_bank(visit)
    key_id = other.key_list(0).receipt_keys[0].receipt_key_id
    return _with_receipt(visit, lambda s: other.receipts(replace(s, receipt_key_id=key_id))[0])


@_not_believed("borrowed_key_id", "A receipt of another key under the ID of a listed one is not believed.", "PG-RCP-3")
def _borrowed_key_id(visit: Visit) -> Verdict:
    other = _other_bank(visit)
    key_id = other.key_list(0).receipt_keys[0].receipt_key_id

    def make(statement: ReceiptStatement) -> bytes:
        theirs = decode_record(Receipt, other.receipts(replace(statement, receipt_key_id=key_id))[0])
        return encode_record(replace(theirs, statement=statement))

    return _with_receipt(visit, make)


@case(
    "receipt.second_key",
    "A receipt of any listed key is believed: two may be listed at once.",
    *("8.5", "8.4", "PG-RCP-1"),
)
async def second_key(desk: Desk) -> None:
    visit = desk.visit()
    other = _other_bank(visit)
    (listed,) = other.key_list(0).receipt_keys
    visit.key_list = replace(visit.key_list, receipt_keys=(*visit.key_list.receipt_keys, listed))
    visit.decide(_with_receipt(visit, lambda s: other.receipts(replace(s, receipt_key_id=listed.receipt_key_id))[0]))
    await visit.run(Said.PAID)


@_not_believed("trailing", "A receipt with a byte behind it is not believed.", "PG-RCP-1", "PG-ENC-4")
def _trailing(visit: Visit) -> Verdict:
    return _with_receipt(visit, lambda s: visit.bank.receipts(s)[0] + b"\0")


@_not_believed("garbage", "Bytes that are no receipt are not believed.", "PG-RCP-1")
def _garbage(visit: Visit) -> Verdict:
    return _with_receipt(visit, lambda _: b"receipt")


# -- the tree --------------------------------------------------------------------------------------------


def _tree(visit: Visit, statement: ReceiptStatement, leaf_index: int, leaf_count: int) -> Receipt:
    """The receipt of the payment among others, all under one signature."""
    others = [replace(statement, bank_time_ms=number) for number in range(leaf_count)]
    others[leaf_index] = statement
    return decode_record(Receipt, visit.bank.receipts(*others)[leaf_index])


def _believed_tree(leaf_index: int, leaf_count: int, what: str) -> None:
    @case(
        f"receipt.tree_{leaf_index}_of_{leaf_count}",
        f"A receipt that is leaf {leaf_index} of {leaf_count}, {what}, is believed.",
        *("8.5", "PG-RCP-2", "PG-RCP-3"),
    )
    async def story(desk: Desk) -> None:
        visit = desk.visit()
        visit.decide(_with_receipt(visit, lambda s: encode_record(_tree(visit, s, leaf_index, leaf_count))))
        await visit.run(Said.PAID)


_believed_tree(0, 2, "a left one")
_believed_tree(5, 7, "left and right of its siblings")
_believed_tree(4, 5, "carried upward without a sibling")


@_not_believed("wrong_path", "A receipt with another hash in its path is not believed.", "PG-RCP-2", "PG-RCP-3")
def _wrong_path(visit: Visit) -> Verdict:
    def make(statement: ReceiptStatement) -> bytes:
        receipt = _tree(visit, statement, 2, 7)
        return encode_record(replace(receipt, path=(receipt.path[0], visit.t.random_bytes(32), receipt.path[2])))

    return _with_receipt(visit, make)


@_not_believed("wrong_index", "A receipt that names another leaf than its own is not believed.", "PG-RCP-2", "PG-RCP-3")
def _wrong_index(visit: Visit) -> Verdict:
    return _with_receipt(visit, lambda s: encode_record(replace(_tree(visit, s, 2, 7), leaf_index=3)))


@_not_believed("wrong_count", "A receipt that names another number of leaves is not believed.", "PG-RCP-2", "PG-RCP-3")
def _wrong_count(visit: Visit) -> Verdict:
    return _with_receipt(visit, lambda s: encode_record(replace(_tree(visit, s, 2, 7), leaf_count=8)))


@_not_believed("short_path", "A path that is too short is refused.", "PG-RCP-2")
def _short_path(visit: Visit) -> Verdict:
    def make(statement: ReceiptStatement) -> bytes:
        receipt = _tree(visit, statement, 2, 7)
        return encode_record(replace(receipt, path=receipt.path[:-1]))

    return _with_receipt(visit, make)


@_not_believed("long_path", "A path with a hash left over is refused, though the signature holds.", "PG-RCP-2")
def _long_path(visit: Visit) -> Verdict:
    def make(statement: ReceiptStatement) -> bytes:
        receipt = _tree(visit, statement, 1, 3)
        return encode_record(replace(receipt, path=(*receipt.path, bytes(32))))

    return _with_receipt(visit, make)


# -- another payment's receipt ---------------------------------------------------------------------------

_OTHERS: Final[dict[str, Any]] = {
    "bank_id": "OTHERBANK",
    "gateway_id": "other-gateway",
    "merchant_id": "M-OTHER",
    "transaction_id": "TX-OTHER",
    "payment_id": b"another payment.",
    "session_id": b"another session.",
    "amount_minor": 1,
    "currency": "USD",
    "authorised_at_ms": 1,
}
assert list(_OTHERS) == [field.name for field in fields_of(Terms)]


def _other_terms(name: str) -> None:
    @_not_believed(f"other_{name}", f"A receipt of terms with another `{name}` is not believed.", "8.1", "PG-RCP-4")
    def lie(visit: Visit) -> Verdict:
        def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
            true = visit.statement()
            stated = replace(true, terms=replace(true.terms, **{name: _OTHERS[name]}))
            return visit.proven(cls, stated)

        return verdict


for _name in _OTHERS:
    _other_terms(_name)


@_not_believed(
    "other_envelope",
    "A receipt of another envelope is not believed: somebody else's money may have been moved.",
    "PG-RCP-4",
)
def _other_envelope(visit: Visit) -> Verdict:
    return lambda cls: visit.proven(cls, visit.statement(envelope_hash=b"hash of another envelope".ljust(32)))


# -- answers that do not agree with their receipt --------------------------------------------------------


@_not_believed("other_utr", "PAID with another UTR than the receipt's is not believed.", "6.4", "PG-RCP-5")
def _other_utr(visit: Visit) -> Verdict:
    other = next(visit.desk.shared.utrs)
    return lambda cls: visit.proven(cls, visit.statement(), utr=other)


@_not_believed("paid_by_declined", "PAID with a receipt of DECLINED is not believed.", "6.4", "PG-RCP-5")
def _paid_by_declined(visit: Visit) -> Verdict:
    return _swapped(visit, TransferOutcome.DECLINED, Reason.FUNDS)


@_not_believed("paid_by_fenced", "PAID with a receipt of FENCED is not believed.", "6.4", "PG-RCP-5")
def _paid_by_fenced(visit: Visit) -> Verdict:
    return _swapped(visit, TransferOutcome.FENCED, Reason.FENCED)


def _swapped(visit: Visit, outcome: TransferOutcome, reason: Reason) -> Verdict:
    def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
        stated = visit.statement(outcome, reason)
        return visit.proven(cls, stated, status=PaymentStatus.PAID, reason=Reason.NONE, utr=visit.utr)

    return verdict


@_not_believed("declined_by_posted", "DECLINED with a receipt of POSTED is not believed.", "6.4", "PG-RCP-5")
def _declined_by_posted(visit: Visit) -> Verdict:
    return lambda cls: visit.proven(cls, visit.statement(), status=PaymentStatus.DECLINED, reason=Reason.FUNDS, utr="")


@_not_believed("other_reason", "DECLINED with another reason than the receipt's is not believed.", "6.4", "PG-RCP-5")
def _other_reason(visit: Visit) -> Verdict:
    return lambda cls: visit.proven(
        cls, visit.statement(TransferOutcome.DECLINED, Reason.FUNDS), reason=Reason.CREDENTIALS
    )


@_not_believed("declined_forged", "DECLINED with a receipt that nobody has signed is not believed.", "6.4", "PG-RCP-3")
def _declined_forged(visit: Visit) -> Verdict:
    signature = visit.t.random_bytes(64)

    def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
        stated = visit.statement(TransferOutcome.DECLINED, Reason.FUNDS)
        return visit.proven(cls, stated, encode_record(replace(_signed(visit, stated), signature=signature)))

    return verdict


@_not_believed("answer_of_other", "An answer that names another payment ID is not believed.", "6.4")
def _answer_of_other(visit: Visit) -> Verdict:
    return lambda cls: visit.proven(cls, visit.statement(), payment_id=_OTHERS["payment_id"])


@case(
    "receipt.none",
    "PAID without a receipt breaks a rule and is refused with BAD_VALUE; the payment stays open, and a receipt that "
    "comes later is believed.",
    *("6.4", "3.3", "PG-ENC-5", "PG-PAY-10"),
)
async def no_receipt(desk: Desk) -> None:
    visit = desk.visit()

    def without_receipt(asked: Reply) -> bytes:
        frame = draft(visit.paid(PaymentAck), None, asked.correlation_id)
        return replace(frame, body=body_with(visit.paid(PaymentAck), "receipt", bytes(2))).encode()

    visit.begin()
    wire = await visit.link()
    wire.send_bytes(without_receipt(await visit.until(wire, EncryptedCredentials)))
    await expect_refused(wire, ErrorCode.BAD_VALUE)
    await visit.end(Said.PAID)
