"""Receipts that come in a StatusAck, to a client: within the session, and when it is asked later (spec 6.5, 8.5).

An answer to a question is worth no more than an answer to the payment; what is new is that keys may have changed.
"""

from dataclasses import replace
from typing import Final

from paygate.codec.codes import PaymentStatus
from paygate.codec.messages import PaymentAnswer
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import require
from paygate.conform.client_doubt_cases import in_doubt
from paygate.conform.client_options import Said
from paygate.conform.client_receipt_cases import LIES, DeclaredLie
from paygate.conform.client_side import DOUBT, OPEN_SESSION_MS, Desk, Visit, case

_TOLD_LATER: Final = (
    *("forged", "altered", "other_key", "other_payment_id", "other_envelope", "other_utr", "paid_by_fenced"),
    "answer_of_other",
)
"""One lie for each check; the finer ones are told in the PaymentAck only, for a receipt is verified in one place."""


def _told_within(name: str, lie: DeclaredLie) -> None:
    @case(f"open.lie.{name}", f"In a StatusAck: {lie.expects}", *("6.5", "8.5", *lie.where, "PG-PAY-10"))
    async def story(desk: Desk) -> None:
        visit = desk.visit(session_left_ms=OPEN_SESSION_MS)
        visit.decide(lie.tell(visit))
        visit.answer_payment(visit.said(PaymentStatus.PENDING))
        await visit.run(*DOUBT)
        require(visit.question_count > 0, "a StatusQuery", "none")


def _told_when_asked(name: str, lie: DeclaredLie) -> None:
    @case(f"status.lie.{name}", f"Asked later: {lie.expects}", *("6.5", "8.5", *lie.where, "PG-PAY-10"))
    async def story(desk: Desk) -> None:
        visit = await in_doubt(desk)
        visit.decide(lie.tell(visit))
        await visit.run_status(*DOUBT)


for _name in _TOLD_LATER:
    _told_within(_name, LIES[_name])
    _told_when_asked(_name, LIES[_name])


# -- keys that have changed since the payment ------------------------------------------------------------


def _sign_with(visit: Visit, signer: PlayedBankKeys) -> None:
    """The gateway relays PAID, with a receipt that this bank's receipt key has signed."""
    key_id = signer.key_list(0).receipt_keys[0].receipt_key_id

    def verdict(cls: type[PaymentAnswer]) -> PaymentAnswer:
        statement = visit.statement(receipt_key_id=key_id)
        return visit.proven(cls, statement, signer.receipts(statement)[0])

    visit.decide(verdict)


def _list_later(visit: Visit, signer: PlayedBankKeys, serial_step: int) -> None:
    """The gateway relays another list, in which this bank's receipt key has taken the place of the first one."""
    key_list = visit.key_list
    listed = signer.key_list(0).receipt_keys
    visit.key_list = replace(key_list, serial=key_list.serial + serial_step, receipt_keys=listed)


def _new_keys(visit: Visit) -> PlayedBankKeys:
    return PlayedBankKeys(visit.bank.bank_id, visit.bank.bank_code, visit.t.random_bytes(32))


@case(
    "status.rotated_key",
    "Asked later, a client believes a receipt whose key is only in a newer list, which the gateway relays.",
    *("8.5", "8.4", "PG-RCP-6", "PG-KEY-5"),
)
async def rotated_key(desk: Desk) -> None:
    visit = await in_doubt(desk)
    signer = _new_keys(visit)
    _list_later(visit, signer, 1)
    _sign_with(visit, signer)
    await visit.run_status(Said.PAID)


@case(
    "status.kept_key",
    "Asked later, a client believes a receipt under the list that it paid by, though a newer one has its key no more.",
    *("8.5", "PG-RCP-6"),
)
async def kept_key(desk: Desk) -> None:
    visit = await in_doubt(desk)
    _list_later(visit, _new_keys(visit), 1)
    visit.decide(visit.paid)
    await visit.run_status(Said.PAID)


@case(
    "status.forged_keys",
    "Asked later, a client does not believe a receipt under a list that another root key signed.",
    *("8.5", "8.4", "PG-KEY-4", "PG-RCP-1"),
)
async def forged_keys(desk: Desk) -> None:
    visit = await in_doubt(desk)
    signer = _new_keys(visit)
    _list_later(visit, signer, 1)
    visit.signed_keys = signer.sign(visit.key_list)
    _sign_with(visit, signer)
    await visit.run_status(*DOUBT, must_ask=False)


@case(
    "status.lower_serial",
    "Asked later, a client does not believe a receipt under a list with a lower serial than one that it accepted.",
    *("8.5", "8.4", "PG-KEY-5", "PG-RCP-6"),
)
async def lower_serial(desk: Desk) -> None:
    visit = await in_doubt(desk)
    signer = _new_keys(visit)
    _list_later(visit, signer, -1)
    _sign_with(visit, signer)
    await visit.run_status(*DOUBT, must_ask=False)
