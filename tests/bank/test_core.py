"""The bank's core with a real ledger and a gateway's end of a link; the decoder is played by the test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from bank_books import ASHA_MINOR, ENVELOPE_HASH, VERIFIER, WRONG_VERIFIER, Books, statement_of
from builders import BANK_ID, FIXED_ENVELOPE, GATEWAY_ID, LINK_KEY, NOW_MS, build_signed_key_list, build_terms

from paygate.bank.core import BankCore, Decode
from paygate.bank.ledger import Posted
from paygate.codec.codes import KeysStatus, Reason, Role, SealStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Message,
    OpenedEnvelope,
    ResolveRequest,
    ResolveResult,
    TransferRequest,
    TransferResult,
)
from paygate.codec.sealed import Terms
from paygate.effects import CloseLink, Commit, Effect, Send
from paygate.files.sqlite import StoreFull
from paygate.link import Link
from paygate.link_events import Opened, PeerClosed, ReplyReceived

KEY_LIST = build_signed_key_list()
ADDRESS = ("127.0.0.1", 40_000)
RIGHT = OpenedEnvelope(SealStatus.DONE, "asha", VERIFIER)


class Bank:
    """A core in a shell without sockets: what the core sends goes to the gateways' ends at once."""

    def __init__(self, books: Books, **limits: int) -> None:
        self.books = books
        self.core = BankCore(BANK_ID, KEY_LIST, {GATEWAY_ID: LINK_KEY}.get, **limits)
        self.gateways: dict[int, Link] = {}
        self.events: list[Any] = []
        self.decodes: list[Decode] = []
        self.posted: list[Posted] = []
        self.closed: dict[int, str] = {}
        self.is_full = False

    def connect(self, link_id: int = 1, gateway_id: str = GATEWAY_ID, link_key: bytes = LINK_KEY) -> Link:
        """A gateway connects and says hello."""
        now_ms = self.books.now.mono_ms
        link = Link(Role.GATEWAY, gateway_id, Role.BANK, is_caller=True, now_ms=now_ms, link_key=link_key)
        self.gateways[link_id] = link
        self.perform(self.core.link_connected(link_id, ADDRESS, self.books.now))
        self.tick()
        return link

    def ask(self, message: Message, link_id: int = 1) -> int:
        return self.gateways[link_id].send_request(message)

    def tick(self) -> None:
        """What the gateways' ends have to send reaches the core, in one step."""
        effects: list[Effect] = []
        for link_id, link in self.gateways.items():
            data = link.data_to_send()
            if data:
                effects += self.core.receive_data(link_id, data, self.books.now)
        self.perform(effects)

    def decode(self, opened: OpenedEnvelope | None = RIGHT) -> None:
        """The decoder answers all that it was asked, the same for each."""
        effects: list[Effect] = []
        decodes, self.decodes = self.decodes, []
        for decode in decodes:
            effects += self.core.decoded(decode.tag, opened, self.books.now)
        self.perform(effects)

    def perform(self, effects: Sequence[Effect]) -> None:
        others: list[Effect] = []
        while effects:
            operations = [e.operation for e in effects if isinstance(e, Commit)]
            others += [e for e in effects if not isinstance(e, Commit)]
            effects = []
            if operations:
                try:
                    if self.is_full and any(type(o).__name__ != "FindPayment" for o in operations):
                        raise StoreFull("no room")
                    outcomes = self.books.ledger.apply(operations, self.books.now)
                except StoreFull:
                    effects = self.core.commit_failed(operations, self.books.now)
                else:
                    effects = self.core.committed(outcomes, self.books.now)
        for effect in others:
            match effect:
                case Decode():
                    self.decodes.append(effect)
                case Posted():
                    self.posted.append(effect)
        for told in self.core.link_effects():
            match told:
                case Send(link_id=link_id, data=data):
                    self.events += self.gateways[link_id].receive_data(data, self.books.now.mono_ms)
                case CloseLink(link_id=link_id, reason=reason):
                    self.closed[link_id] = reason

    def replies(self) -> list[Any]:
        """The replies that came since the last call."""
        replies = [event.message for event in self.events if isinstance(event, ReplyReceived)]
        self.events.clear()
        return replies


@pytest.fixture
def bank(books: Books) -> Bank:
    bank = Bank(books)
    bank.connect()
    assert bank.events == [Opened(Role.BANK, BANK_ID)]
    bank.events.clear()
    return bank


def request(terms: Terms | None = None, time_left_ms: int = 20_000, **changes: Any) -> TransferRequest:
    return TransferRequest(terms or build_terms(**changes), time_left_ms, b"k" * 8, FIXED_ENVELOPE)


def test_a_transfer_goes_through_ledger_decoder_and_ledger(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    assert [decode.request.key_id for decode in bank.decodes] == [b"k" * 8]
    assert not bank.core.is_drained
    assert bank.replies() == []
    bank.decode()
    (reply,) = bank.replies()
    assert isinstance(reply, TransferResult)
    assert (reply.payment_id, reply.outcome) == (build_terms().payment_id, TransferOutcome.POSTED)
    assert [posted.posting.utr for posted in bank.posted] == [reply.utr]
    assert bank.core.is_drained


@pytest.mark.pg("PG-RES-8", "PG-RES-9")
def test_a_repeat_is_answered_with_the_same_bytes_and_without_the_decoder(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.decode()
    (first,) = bank.replies()
    for _ in range(100):
        bank.ask(request(time_left_ms=0))
    bank.tick()
    assert bank.decodes == []
    assert bank.replies() == [first] * 100
    assert len(bank.posted) == 1


def test_the_same_payment_many_times_at_once_is_one_debit(bank: Bank) -> None:
    for _ in range(1_000):
        bank.ask(request())
    bank.tick()
    bank.decode()
    replies = bank.replies()
    assert len(replies) == 1_000
    assert len(set(replies)) == 1
    assert bank.books.balance("C-1") == ASHA_MINOR - 125_000


@pytest.mark.pg("PG-ENV-5", "PG-TRF-3", "PG-TRF-8")
@pytest.mark.parametrize(
    ("status", "reason"), [(SealStatus.KEY_RETIRED, Reason.KEY_RETIRED), (SealStatus.NOT_OPENED, Reason.TERMS)]
)
def test_an_envelope_that_does_not_open_is_declined_for_ever(bank: Bank, status: SealStatus, reason: Reason) -> None:
    bank.ask(request())
    bank.tick()
    bank.decode(OpenedEnvelope(status, "-", bytes(32)))
    bank.ask(request())
    bank.tick()
    first, again = bank.replies()
    assert (first.outcome, first.reason) == (TransferOutcome.DECLINED, reason)
    assert again == first


@pytest.mark.pg("PG-ENC-11", "PG-TRF-4")
def test_time_spent_at_the_decoder_counts(bank: Bank) -> None:
    bank.ask(request(time_left_ms=1_000))
    bank.tick()
    bank.books.advance(1_000)
    bank.decode()
    assert [reply.reason for reply in bank.replies()] == [Reason.LATE]


@pytest.mark.pg("PG-TRF-4")
def test_a_request_with_no_time_left_is_late(bank: Bank) -> None:
    bank.ask(request(time_left_ms=0))
    bank.tick()
    bank.decode()
    assert [(r.outcome, r.reason) for r in bank.replies()] == [(TransferOutcome.DECLINED, Reason.LATE)]


@pytest.mark.pg("PG-TRF-4", "PG-TRF-6")
def test_what_was_authorised_before_a_restore_and_is_not_known_is_late_for_ever(books: Books) -> None:
    known = request(build_terms(payment_id=b"known to a backu"))
    bank = Bank(books)
    bank.connect()
    bank.ask(known)
    bank.tick()
    bank.decode()
    (first,) = bank.replies()
    # Restored a second later than the two were authorised, and well within the five minutes of the window (T6).
    restored = Bank(books, restored_ms=NOW_MS + 1)
    restored.connect()
    for message in (
        known,
        request(),
        request(build_terms(authorised_at_ms=NOW_MS + 1, payment_id=b"authorised after")),
    ):
        restored.ask(message)
    restored.tick()
    restored.decode()
    again, late, new = restored.replies()
    assert (again.outcome, again.receipt) == (TransferOutcome.POSTED, first.receipt)
    assert (late.outcome, late.reason) == (TransferOutcome.DECLINED, Reason.LATE)
    assert new.reason is Reason.TOKEN_ALREADY_PAID  # it was looked at
    assert not restored.decodes
    restored.ask(request())
    restored.tick()
    assert restored.replies() == [late]


@pytest.mark.pg("PG-RES-1", "PG-TRF-2")
def test_nothing_is_answered_before_it_is_durable(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    (decode,) = bank.decodes
    effects = bank.core.decoded(decode.tag, RIGHT, bank.books.now)
    assert [type(effect) for effect in effects] == [Commit]
    assert bank.core.link_effects() == []
    outcomes = bank.books.ledger.apply([e.operation for e in effects if isinstance(e, Commit)], bank.books.now)
    told = bank.core.committed(outcomes, bank.books.now)
    assert [type(effect) for effect in told] == [Posted]
    assert [type(effect) for effect in bank.core.link_effects()] == [Send]
    # The same with a fence.
    bank.ask(ResolveRequest(build_terms(payment_id=b"o" * 16), ENVELOPE_HASH))
    effects = bank.core.receive_data(1, bank.gateways[1].data_to_send(), bank.books.now)
    assert [type(effect) for effect in effects] == [Commit]
    assert bank.core.link_effects() == []


@pytest.mark.pg("PG-RES-8")
def test_a_repeat_is_known_by_its_terms_and_envelope_whatever_else_it_says(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.decode()
    bank.ask(replace(request(time_left_ms=1), key_id=b"another!"))
    bank.tick()
    first, again = bank.replies()
    assert again == first


@pytest.mark.pg("PG-PAY-12")
def test_a_wrong_password_and_an_unknown_user_are_told_alike(bank: Bank) -> None:
    answers = []
    for user_id, verifier in (("asha", WRONG_VERIFIER), ("nobody", VERIFIER)):
        bank.ask(request(payment_id=verifier[:16], transaction_id=f"TX-{len(user_id)}"))
        bank.tick()
        bank.decode(OpenedEnvelope(SealStatus.DONE, user_id, verifier))
        (reply,) = bank.replies()
        answers.append((reply.outcome, reply.reason, reply.utr, len(reply.receipt)))
    assert answers[0] == answers[1]


# -- resolve ---------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-RES-1", "PG-RES-3")
def test_resolve_fences_what_was_never_seen_and_a_late_transfer_finds_the_fence(bank: Bank) -> None:
    terms = build_terms()
    bank.ask(ResolveRequest(terms, ENVELOPE_HASH))
    bank.tick()
    bank.ask(request(terms))
    bank.tick()
    assert bank.decodes == []
    fence, late = bank.replies()
    assert isinstance(fence, ResolveResult)
    assert isinstance(late, TransferResult)
    assert fence.outcome is late.outcome is TransferOutcome.FENCED
    assert fence.receipt == late.receipt
    assert bank.books.balance("C-1") == ASHA_MINOR


@pytest.mark.pg("PG-RES-2")
@pytest.mark.parametrize("comes_at_once", [True, False])
def test_a_resolve_behind_its_transfer_waits_for_it(bank: Bank, comes_at_once: bool) -> None:
    bank.ask(request())
    if not comes_at_once:
        bank.tick()
    bank.ask(ResolveRequest(build_terms(), ENVELOPE_HASH))
    bank.ask(ResolveRequest(build_terms(payment_id=b"o" * 16), ENVELOPE_HASH))
    bank.tick()
    (other,) = bank.replies()
    assert other.outcome is TransferOutcome.FENCED
    bank.decode()
    paid, resolved = bank.replies()
    assert paid.outcome is TransferOutcome.POSTED
    assert isinstance(resolved, ResolveResult)
    assert (resolved.outcome, resolved.receipt) == (paid.outcome, paid.receipt)
    assert bank.core.is_drained


def test_a_resolve_behind_a_transfer_that_can_not_be_opened_fences_it(bank: Bank) -> None:
    bank.ask(request())
    bank.ask(ResolveRequest(build_terms(), ENVELOPE_HASH))
    bank.tick()
    bank.decode(None)
    assert [r.outcome for r in bank.replies()] == [TransferOutcome.UNAVAILABLE, TransferOutcome.FENCED]


def test_a_repeat_that_is_turned_away_does_not_end_the_wait(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.perform(bank.core.drain(bank.books.now))
    bank.ask(request())
    bank.ask(ResolveRequest(build_terms(), ENVELOPE_HASH))
    bank.tick()
    bank.decode()
    outcomes = [r.outcome for r in bank.replies()]
    assert outcomes == [TransferOutcome.UNAVAILABLE, TransferOutcome.POSTED, TransferOutcome.POSTED]
    assert bank.core.is_drained


@pytest.mark.pg("PG-LNK-11", "PG-RES-9")
def test_resolve_brings_a_result_that_was_lost(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.perform(bank.core.link_closed(1, "lost", bank.books.now))
    del bank.gateways[1]
    bank.decode()
    assert len(bank.posted) == 1
    bank.connect(link_id=2)
    bank.events.clear()
    bank.ask(ResolveRequest(build_terms(), ENVELOPE_HASH), link_id=2)
    bank.tick()
    (reply,) = bank.replies()
    assert (reply.outcome, reply.utr) == (TransferOutcome.POSTED, bank.posted[0].posting.utr)


@pytest.mark.pg("PG-RES-8")
def test_other_terms_get_a_mismatch_that_reveals_nothing(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.decode()
    bank.replies()
    bank.ask(request(amount_minor=1))
    bank.ask(ResolveRequest(build_terms(amount_minor=1), ENVELOPE_HASH))
    bank.ask(ResolveRequest(build_terms(), bytes(32)))
    bank.tick()
    payment_id = build_terms().payment_id
    nothing = (payment_id, TransferOutcome.MISMATCH, Reason.NONE, "", b"")
    assert [(r.payment_id, r.outcome, r.reason, r.utr, r.receipt) for r in bank.replies()] == [nothing] * 3


@pytest.mark.pg("PG-LNK-11")
def test_what_was_received_whole_before_a_link_ended_is_served(bank: Bank) -> None:
    bank.ask(request())
    data = bank.gateways[1].data_to_send()
    bank.perform(bank.core.receive_data(1, data + bytes(20), bank.books.now))
    assert 1 in bank.closed
    bank.decode()
    assert len(bank.posted) == 1


# -- who asks --------------------------------------------------------------------------------------------


@pytest.mark.pg("PG-TRF-1")
@pytest.mark.parametrize("changes", [{"gateway_id": "GW2"}, {"bank_id": "BANK2"}])
@pytest.mark.parametrize("resolves", [True, False])
def test_a_gateway_speaks_for_itself_and_to_this_bank_only(bank: Bank, changes: dict[str, Any], resolves: bool) -> None:
    terms = build_terms(**changes)
    bank.ask(ResolveRequest(terms, ENVELOPE_HASH) if resolves else request(terms))
    bank.ask(request())  # what comes behind it on the same link is not looked at
    bank.tick()
    closed = [event for event in bank.events if isinstance(event, PeerClosed)]
    assert [event.code for event in closed] == [ErrorCode.BAD_VALUE]
    assert 1 in bank.closed
    assert bank.decodes == []
    assert bank.books.query("SELECT count(*) FROM payment") == [(0,)]


def test_a_stranger_is_turned_away_at_hello(bank: Bank) -> None:
    bank.connect(link_id=2, gateway_id="GW-stranger")
    bank.connect(link_id=3, link_key=bytes(32))
    codes = [event.code for event in bank.events if isinstance(event, PeerClosed)]
    assert codes == [ErrorCode.UNKNOWN_PARTY, ErrorCode.BAD_MAC]
    assert set(bank.closed) == {2, 3}


def test_a_silent_caller_is_closed(bank: Bank) -> None:
    bank.perform(bank.core.link_connected(2, ADDRESS, bank.books.now))
    bank.gateways[2] = Link(Role.GATEWAY, GATEWAY_ID, Role.BANK, is_caller=True, now_ms=0, link_key=LINK_KEY)
    bank.books.advance(5_000)
    deadline_ms = bank.core.next_deadline_ms()
    assert deadline_ms is not None
    assert deadline_ms <= bank.books.now.mono_ms
    bank.perform(bank.core.receive_timer(bank.books.now))
    assert set(bank.closed) == {2}


@pytest.mark.pg("PG-KEY-2")
def test_keys_are_relayed_and_can_be_replaced(bank: Bank) -> None:
    newer = build_signed_key_list(serial=8)
    bank.ask(BankKeysQuery(BANK_ID))
    bank.tick()
    bank.core.signed_key_list = newer
    bank.ask(BankKeysQuery(BANK_ID))
    bank.ask(BankKeysQuery("BANK2"))
    bank.tick()
    assert bank.replies() == [
        BankKeys(KeysStatus.AVAILABLE, KEY_LIST),
        BankKeys(KeysStatus.AVAILABLE, newer),
        BankKeys(KeysStatus.UNKNOWN_BANK, b""),
    ]


# -- trouble ---------------------------------------------------------------------------------------------


def test_a_dead_decoder_gives_unavailable_and_the_payment_can_be_tried_again(bank: Bank) -> None:
    bank.ask(request())
    bank.tick()
    bank.decode(None)
    bank.ask(request())
    bank.tick()
    bank.decode()
    assert [r.outcome for r in bank.replies()] == [TransferOutcome.UNAVAILABLE, TransferOutcome.POSTED]


def test_no_more_envelopes_than_the_limit_wait_for_the_decoder(books: Books) -> None:
    bank = Bank(books, decode_count_max=2)
    bank.connect()
    bank.events.clear()
    for number in range(4):
        bank.ask(request(payment_id=bytes([number + 1] * 16), transaction_id=f"TX-{number}"))
    bank.tick()
    assert len(bank.decodes) == 2
    assert [r.outcome for r in bank.replies()] == [TransferOutcome.UNAVAILABLE] * 2


@pytest.mark.pg("PG-TRF-10")
def test_a_full_disk_refuses_what_is_new_and_still_replays(bank: Bank) -> None:
    known, new = build_terms(), build_terms(payment_id=b"n" * 16, transaction_id="TX-new")
    bank.ask(request(known))
    bank.tick()
    bank.decode()
    (first,) = bank.replies()
    bank.is_full = True
    bank.ask(request(new))
    bank.tick()
    bank.ask(ResolveRequest(known, ENVELOPE_HASH))
    bank.ask(ResolveRequest(new, ENVELOPE_HASH))
    bank.ask(request(known))
    bank.tick()
    resolved, repeated = bank.replies()
    bank.decode()
    refused, not_fenced = bank.replies()
    assert (resolved.outcome, resolved.receipt) == (first.outcome, first.receipt)
    assert repeated == first
    assert not_fenced.outcome is refused.outcome is TransferOutcome.UNAVAILABLE
    bank.is_full = False
    bank.ask(request(new))
    bank.tick()
    bank.decode()
    assert [r.outcome for r in bank.replies()] == [TransferOutcome.POSTED]


def test_a_store_that_can_not_even_be_asked_gives_unavailable(bank: Bank) -> None:
    bank.ask(request())
    (commit,) = bank.core.receive_data(1, bank.gateways[1].data_to_send(), bank.books.now)
    bank.perform(bank.core.commit_failed([commit.operation], bank.books.now))
    assert [r.outcome for r in bank.replies()] == [TransferOutcome.UNAVAILABLE]


@pytest.mark.pg("PG-TRF-10")
def test_a_draining_bank_ends_what_it_began_and_begins_nothing(bank: Bank) -> None:
    begun, new = build_terms(), build_terms(payment_id=b"n" * 16, transaction_id="TX-new")
    known = build_terms(payment_id=b"k" * 16, transaction_id="TX-known")
    bank.ask(request(known))
    bank.tick()
    bank.decode()
    (first,) = bank.replies()
    bank.ask(request(begun))
    bank.tick()
    bank.perform(bank.core.drain(bank.books.now))
    assert not bank.core.is_drained
    bank.ask(request(known))
    bank.ask(request(new))
    bank.ask(ResolveRequest(new, ENVELOPE_HASH))
    bank.tick()
    bank.decode()
    again, refused, fenced, posted = bank.replies()
    assert again == first
    assert refused.outcome is TransferOutcome.UNAVAILABLE
    assert fenced.outcome is TransferOutcome.FENCED
    assert posted.outcome is TransferOutcome.POSTED
    assert bank.core.is_drained


@pytest.mark.pg("PG-TRM-1")
def test_every_receipt_matches_the_terms_that_were_sent(bank: Bank) -> None:
    terms = build_terms()
    bank.ask(request(terms))
    bank.tick()
    bank.decode()
    (reply,) = bank.replies()
    statement_of(reply, terms)
