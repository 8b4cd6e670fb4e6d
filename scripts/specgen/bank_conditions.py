"""What the bank answers *under conditions* that its core knows and its ledger doesn't, *measured*.

As in `gateway_conditions`: a new core and ledger for each cell, what the row speaks of, the column's condition, then
the request. What is not answered at once is answered when the decoder has spoken.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from paygate.bank.core import BankCore
from paygate.bank.ledger import BankIdentity, OpenCustomer, OpenMerchant
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.codec.codes import Role, SealStatus
from paygate.codec.limits import SESSION_MS, VERIFIER_SIZE
from paygate.codec.messages import BankKeysQuery, Message, OpenedEnvelope, ResolveRequest, TransferRequest
from paygate.codec.seal import envelope_hash
from paygate.link import Link
from specgen.driven_core import ADDRESS, OTHER_ENVELOPE, VFS_NAME, Disk, DrivenCore, answer_words, new_disk
from specgen.tables import table
from specgen.vector_fixtures import (
    AMOUNT_MINOR,
    BANK_ID,
    GATEWAY_ID,
    LINK_KEY,
    MERCHANT_ID,
    OPAQUE_ENVELOPE,
    RECEIPT_KEY,
    USER_ID,
    build_signed_key_list,
    build_terms,
    fixed_bytes,
)

_GATEWAY: Final = 1  # link
_OPENED: Final = OpenedEnvelope(SealStatus.DONE, USER_ID, bytes(VERIFIER_SIZE))
_TRANSFER: Final = TransferRequest(build_terms(), SESSION_MS, bytes(8), OPAQUE_ENVELOPE)
_OTHER_TRANSFER: Final = replace(_TRANSFER, envelope=OTHER_ENVELOPE)
_RESOLVE: Final = ResolveRequest(_TRANSFER.terms, envelope_hash(OPAQUE_ENVELOPE))
_OTHER_RESOLVE: Final = ResolveRequest(_TRANSFER.terms, envelope_hash(OTHER_ENVELOPE))
_DECODE_COUNT_MAX: Final = 3
"""How much this bank's decoder may have at once; few, so that it is soon too much."""


class _Bank(DrivenCore[BankCore]):
    """A bank with a customer and a merchant, a gateway, and a decoder that answers when the row says so."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.disk = disk
        self.opened: OpenedEnvelope | None = _OPENED
        self.ledger = SqliteLedger(path, BankIdentity(BANK_ID, "PGBK", "INR"), RECEIPT_KEY, vfs=VFS_NAME)
        keys = {GATEWAY_ID: LINK_KEY}
        core = BankCore(BANK_ID, build_signed_key_list(), keys.get, decode_count_max=_DECODE_COUNT_MAX)
        super().__init__(core, self.ledger)
        customer = OpenCustomer("C", USER_ID, _OPENED.verifier, AMOUNT_MINOR)
        self.ledger.apply([customer, OpenMerchant(MERCHANT_ID, "", 0)], self.now)
        link = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=self.now.mono_ms, link_key=LINK_KEY)
        self.links = {_GATEWAY: link}
        self.perform(self.core.link_connected(_GATEWAY, ADDRESS, self.now))
        self.settle()

    def decode(self) -> None:
        """The decoder answers all that it was given, in order; or dies, having answered nothing."""
        decodes, self.decodes = self.decodes, []
        for decode in decodes:
            self.perform(self.core.decoded(decode.tag, self.opened, self.now))

    def fill_disk(self) -> None:
        """No room from now on."""
        self.disk.is_full = True

    def fill_decoder(self) -> None:
        """Other payments, as many as the decoder may have."""
        for number in range(len(self.decodes), _DECODE_COUNT_MAX):
            terms = build_terms(payment_id=fixed_bytes(f"payment {number}", 16), transaction_id=f"TX-{number}")
            self.ask(_GATEWAY, replace(_TRANSFER, terms=terms))

    def kill_decoder(self) -> None:
        """Whatever it has now or is given, it will not answer."""
        self.opened = None


class _Row(NamedTuple):
    name: str
    is_begun: bool
    """Whether the payment's first TransferRequest came before."""
    is_final: bool
    """Whether the decoder has answered it, and so it is POSTED."""
    request: Message


_ROWS: Final = (
    _Row("TransferRequest of a new payment", False, False, _TRANSFER),
    _Row("TransferRequest, the repeat of one under way", True, False, _TRANSFER),
    _Row("TransferRequest, a payment ID under way with another envelope", True, False, _OTHER_TRANSFER),
    _Row("TransferRequest, the repeat of one that is POSTED", True, True, _TRANSFER),
    _Row("TransferRequest, a POSTED payment ID with another envelope", True, True, _OTHER_TRANSFER),
    _Row("ResolveRequest of a new payment", False, False, _RESOLVE),
    _Row("ResolveRequest of one under way", True, False, _RESOLVE),
    _Row("ResolveRequest, a payment ID under way with another envelope hash", True, False, _OTHER_RESOLVE),
    _Row("ResolveRequest of one that is POSTED", True, True, _RESOLVE),
    _Row("ResolveRequest, a POSTED payment ID with another envelope hash", True, True, _OTHER_RESOLVE),
    _Row("BankKeysQuery", False, False, BankKeysQuery(BANK_ID)),
    _Row("BankKeysQuery of another bank", False, False, BankKeysQuery("another")),
)
_CONDITIONS: Final[dict[str, Callable[[_Bank], None]]] = {
    "all well": lambda _: None,
    "draining": lambda bank: bank.perform(bank.core.drain(bank.now)),
    "store full": _Bank.fill_disk,
    "decoder died": _Bank.kill_decoder,
    "too much with the decoder": _Bank.fill_decoder,
}


def bank_table() -> str:
    """What the bank answers, by what else is the matter."""
    rows = [[row.name, *(_cell(row, condition) for condition in _CONDITIONS.values())] for row in _ROWS]
    return table(["request", *_CONDITIONS], rows)


def _cell(row: _Row, condition: Callable[[_Bank], None]) -> str:
    with new_disk() as (disk, path):
        bank = _Bank(path, disk)
        try:
            begun = bank.ask(_GATEWAY, _TRANSFER) if row.is_begun else None
            if row.is_final:
                bank.decode()
            condition(bank)
            asked = bank.ask(_GATEWAY, row.request)
            is_answered = asked in bank.replies
            bank.decode()
            first = bank.replies[begun] if begun else None
            said = answer_words(bank.replies[asked], first)
            if is_answered:
                return said
            told = list(bank.replies)
            assert begun is None or told.index(begun) < told.index(asked), "who came first is answered first"
            return f"{'wait with the first' if begun else 'ask the decoder'}, then {said}"
        finally:
            disk.is_full = False
            bank.ledger.close()
