"""What the gateway answers *under conditions* that its core knows and its store doesn't, *measured*.

Each cell begins with a new core and store (`driven_core`): what the row speaks of is brought about while all is well,
then the column's condition, then the request comes. A column of several conditions has the same answers under each.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from paygate.clock import Now
from paygate.codec.codes import KeysStatus, Reason, Role, TransferOutcome
from paygate.codec.limits import SESSION_MS
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    EncryptedCredentials,
    Message,
    PaymentAck,
    ResolveResult,
    StatusQuery,
    TokenQuery,
    TransferRequest,
    TransferResult,
)
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.core import GatewayCore
from paygate.gateway.flights import PENDING_BEFORE_END_MS
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import IssueToken, Token
from paygate.link import Link
from specgen.driven_core import ADDRESS, OTHER_ENVELOPE, VFS_NAME, Disk, DrivenCore, Question, answer_words, new_disk
from specgen.tables import table
from specgen.vector_fixtures import (
    AMOUNT_MINOR,
    BANK_ID,
    GATEWAY_ID,
    LINK_KEY,
    MERCHANT_ID,
    NOW_MS,
    OPAQUE_ENVELOPE,
    PASSCODE,
    TRANSACTION_ID,
    UTR,
    build_receipt,
    build_signed_key_list,
    build_terms,
    fixed_bytes,
)

_KEY_LIST: Final = build_signed_key_list()
_IN_FLIGHT: Final = "in flight"
_CLIENT, _BANK = 1, 2  # links
_SESSION_ID: Final = fixed_bytes("random 0", 16)
_TERMS: Final = build_terms(session_id=_SESSION_ID)
_CREDENTIALS: Final = EncryptedCredentials(_SESSION_ID, _TERMS.payment_id, NOW_MS, bytes(8), OPAQUE_ENVELOPE)
_STATUS: Final = StatusQuery(_TERMS.payment_id, TRANSACTION_ID, PASSCODE)


class _Gateway(DrivenCore[GatewayCore]):
    """A gateway with one token, a client in a session, and a bank that answers when the row says so."""

    def __init__(self, path: Path, disk: Disk, signed_key_list: bytes) -> None:
        self._random = (fixed_bytes(f"random {number}", 16) for number in itertools.count())
        self._signed_key_list = signed_key_list
        self.disk = disk
        self.tokens = SqliteTokens(path, vfs=VFS_NAME)
        super().__init__(self._new_core(), self.tokens)
        self.tokens.apply(
            [IssueToken(Token(TRANSACTION_ID, PASSCODE, MERCHANT_ID, "", AMOUNT_MINOR, "INR", None))], self.now
        )
        self._connect()
        self.ask(_CLIENT, TokenQuery(TRANSACTION_ID, PASSCODE))

    def _new_core(self) -> GatewayCore:
        return GatewayCore(GatewayIdentity(GATEWAY_ID, BANK_ID, LINK_KEY), lambda _: next(self._random), lambda: 0.5)

    def _connect(self) -> None:
        now_ms = self.now.mono_ms
        self.links = {
            _CLIENT: Link(Role.CLIENT, "client", Role.GATEWAY, is_caller=True, now_ms=now_ms),
            _BANK: Link(
                Role.BANK, BANK_ID, Role.GATEWAY, is_caller=False, now_ms=now_ms, key_of={GATEWAY_ID: LINK_KEY}.get
            ),
        }
        self.perform(self.core.link_connected(_CLIENT, ADDRESS, self.now) + self.core.bank_connected(_BANK, self.now))
        self.settle()
        _, asked, _ = self.requests.pop()
        status = KeysStatus.AVAILABLE if self._signed_key_list else KeysStatus.UNAVAILABLE
        self.links[_BANK].send_reply(asked, BankKeys(status, self._signed_key_list))
        self.settle()

    def restart(self) -> None:
        """Every session is forgotten; what is in flight is asked for. Links and their correlation IDs begin anew."""
        self.replies.clear()
        self.core = self._new_core()
        self.perform(self.core.resume(self.tokens.payments_in_flight(), self.now))
        self._connect()
        self.pass_time(1_000)

    def pass_time(self, duration_ms: int) -> None:
        """In steps, since each link wants its echoes."""
        for _ in range(0, duration_ms, 1_000):
            self.now = Now(self.now.mono_ms + 1_000, self.now.wall_ms + 1_000)
            self.perform(self.core.receive_timer(self.now))
            self.settle()

    def lose_bank(self) -> None:
        """The link is gone."""
        del self.links[_BANK]
        self.perform(self.core.link_closed(_BANK, "reset by peer", self.now))

    def fill_disk(self) -> None:
        """No room from now on."""
        self.disk.is_full = True

    def drain(self) -> None:
        """It is shutting down."""
        self.perform(self.core.drain(self.now))

    def end_session(self) -> None:
        """Nothing is taken for it any more, and who waits has been told PENDING."""
        self.pass_time(SESSION_MS - PENDING_BEFORE_END_MS)

    def suffer_all(self) -> None:
        """Everything is the matter."""
        self.end_session()
        self.lose_bank()
        self.fill_disk()
        self.drain()

    def end_payment(self, outcome: TransferOutcome) -> None:
        """The bank answers what it was asked last of the payment, if it still can."""
        if _BANK in self.links:
            _, asked, request = self.requests[-1]
            kind = TransferResult if isinstance(request, TransferRequest) else ResolveResult
            utr = UTR if outcome is TransferOutcome.POSTED else ""
            receipt = build_receipt(outcome, Reason.NONE)
            self.links[_BANK].send_reply(asked, kind(_TERMS.payment_id, outcome, Reason.NONE, utr, receipt))
            self.settle()

    @property
    def token_state(self) -> str:
        """As the store has it."""
        return next(self.tokens.tokens()).state.name


class _GatewayRow(NamedTuple):
    name: str
    before: str | TransferOutcome | None
    """What the payment is before: in flight, ended so, or unknown."""
    request: Message | TransferOutcome
    """Or what the bank says."""
    signed_key_list: bytes = _KEY_LIST


_OTHER_CREDENTIALS: Final = replace(_CREDENTIALS, envelope=OTHER_ENVELOPE)
_POSTED: Final = TransferOutcome.POSTED
_GATEWAY_ROWS: Final = (
    _GatewayRow("TokenQuery, right passcode", None, TokenQuery(TRANSACTION_ID, PASSCODE)),
    _GatewayRow("TokenQuery, wrong passcode", None, TokenQuery(TRANSACTION_ID, "wrong")),
    _GatewayRow("EncryptedCredentials of a new payment", None, _CREDENTIALS),
    _GatewayRow("EncryptedCredentials, the repeat of one in flight", _IN_FLIGHT, _CREDENTIALS),
    _GatewayRow("EncryptedCredentials, the repeat of one that is PAID", _POSTED, _CREDENTIALS),
    _GatewayRow("EncryptedCredentials, the repeat of one ended by MISMATCH", TransferOutcome.MISMATCH, _CREDENTIALS),
    _GatewayRow("EncryptedCredentials, a payment ID in flight with another envelope", _IN_FLIGHT, _OTHER_CREDENTIALS),
    _GatewayRow("EncryptedCredentials, a PAID payment ID with another envelope", _POSTED, _OTHER_CREDENTIALS),
    _GatewayRow("StatusQuery of a payment that never came", None, _STATUS),
    _GatewayRow("StatusQuery of one in flight", _IN_FLIGHT, _STATUS),
    _GatewayRow("StatusQuery of one that is PAID", _POSTED, _STATUS),
    _GatewayRow("StatusQuery, wrong passcode", _POSTED, replace(_STATUS, passcode="wrong")),
    _GatewayRow("the bank's result for one in flight: POSTED", _IN_FLIGHT, _POSTED),
    _GatewayRow("BankKeysQuery, a list at hand", None, BankKeysQuery(BANK_ID)),
    _GatewayRow("BankKeysQuery, no list at hand yet", None, BankKeysQuery(BANK_ID), b""),
    _GatewayRow("BankKeysQuery of another bank", None, BankKeysQuery("another")),
)
_GATEWAY_CONDITIONS: Final[dict[str, list[Callable[[_Gateway], None]]]] = {
    "all well": [lambda _: None],
    "session unknown or over": [_Gateway.restart, _Gateway.end_session, lambda gateway: gateway.pass_time(SESSION_MS)],
    "draining": [_Gateway.drain],
    "no bank link": [_Gateway.lose_bank],
    "store full": [_Gateway.fill_disk],
    "all four at once": [_Gateway.suffer_all],
}


def gateway_table() -> str:
    """What the gateway answers, by what else is the matter."""
    rows = []
    for row in _GATEWAY_ROWS:
        cells = [{_gateway_cell(row, condition) for condition in alike} for alike in _GATEWAY_CONDITIONS.values()]
        assert all(len(found) == 1 for found in cells), (row.name, cells)
        rows.append([row.name, *(found.pop() for found in cells)])
    return table(["what comes", *_GATEWAY_CONDITIONS], rows)


def _gateway_cell(row: _GatewayRow, condition: Callable[[_Gateway], None]) -> str:
    with new_disk() as (disk, path):
        gateway = _Gateway(path, disk, row.signed_key_list)
        try:
            asked = gateway.ask(_CLIENT, _CREDENTIALS) if row.before else None
            if isinstance(row.before, TransferOutcome):
                gateway.end_payment(row.before)
            first = gateway.replies.get(asked) if asked else None
            condition(gateway)
            return _measured(gateway, row.request, asked, first)
        finally:
            disk.is_full = False
            gateway.tokens.close()


def _measured(
    gateway: _Gateway, request: Message | TransferOutcome, asked: Question | None, first: Message | None
) -> str:
    state, request_count, told = gateway.token_state, len(gateway.requests), set(gateway.replies)
    if isinstance(request, TransferOutcome):
        gateway.end_payment(request)
        answer = gateway.replies.get(asked) if asked and asked not in told else None
    else:
        asked = gateway.ask(_CLIENT, request)
        answer = gateway.replies.get(asked)
    said = answer_words(answer, first)
    if isinstance(request, TransferOutcome):
        said = f"tell who waits {said}" if answer else ""
    elif any(isinstance(sent, TransferRequest) for _, _, sent in gateway.requests[request_count:]):
        said = "send TransferRequest"
    moved = "" if gateway.token_state == state else gateway.token_state
    if not said and not moved and isinstance(request, EncryptedCredentials):
        said = _waiting_words(gateway, asked)
    return ", ".join(part for part in (moved, said) if part) or "–"


def _waiting_words(gateway: _Gateway, asked: Question | None) -> str:
    """Who got no answer gets the first one's."""
    gateway.disk.is_full = False
    gateway.end_payment(_POSTED)
    payers = [answer for answer in gateway.replies.values() if isinstance(answer, PaymentAck)]
    assert asked is not None
    assert gateway.replies[asked] == payers[0]
    return "wait with the first"
