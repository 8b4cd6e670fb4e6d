"""The bank's mind: gateways' requests, envelopes on their way to the decoder, payments; no socket, clock or file.

Strategy: a transfer goes through three steps. FindPayment asks the ledger first, so a repeat is answered with the
same bytes before anything is decrypted (T1). Then the decoder opens the envelope. Then Transfer decides and, in the
same transaction, makes the outcome final. What is in memory only is who waits for an answer: if a link breaks or the
process dies, the outcome stands or falls with its transaction, and ResolveRequest tells which. One that comes while
its transfer is under way waits for it: a fence ends payments that were lost, not those that are being made.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from paygate.bank.ledger import (
    FindPayment,
    Opened,
    Outcome,
    PaymentOperation,
    PaymentOutcome,
    Resolve,
    Transfer,
)
from paygate.clock import Now
from paygate.codec.codes import KeysStatus, Reason, Role, SealStatus, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import (
    BankKeys,
    BankKeysQuery,
    Message,
    OpenedEnvelope,
    OpenEnvelope,
    ResolveRequest,
    ResolveResult,
    TransferRequest,
    TransferResult,
)
from paygate.codec.seal import envelope_hash
from paygate.codec.sealed import Terms
from paygate.effects import Commit, Effect, LinkEffect, LogLine
from paygate.link import Link
from paygate.link_checks import KeyOf
from paygate.link_events import LinkEvent, LinkFailed, PeerClosed, RequestReceived
from paygate.link_events import Opened as LinkOpened
from paygate.links import LinkTable
from paygate.making import maker_of
from paygate.net.addresses import Address

DECODE_COUNT_MAX: Final = 4_096
"""Envelopes that may be with the decoder at once: at its 100 us each, less than half a second of waiting."""

_NOT_OPENED: Final = {SealStatus.KEY_RETIRED: Reason.KEY_RETIRED, SealStatus.NOT_OPENED: Reason.TERMS}
_UNAVAILABLE: Final = PaymentOutcome(TransferOutcome.UNAVAILABLE)
_PAYMENT_REQUESTS: Final = (TransferRequest, ResolveRequest)


@dataclass(frozen=True, slots=True)
class Decode:
    """Effect: have the decoder open an envelope; the answer comes back through `decoded` with the same tag."""

    tag: int
    request: OpenEnvelope


_Asker = tuple[int, int, Callable[[bytes, TransferOutcome, Reason, str, bytes], TransferResult | ResolveResult], bytes]
"""Whom an answer goes to, if the link is still there: link ID, correlation ID, what makes the reply, payment ID."""

_Waiting = tuple[_Asker, Terms, bytes, int]
"""A transfer whose envelope is with the decoder: who asked, terms, envelope hash, deadline in monotonic ms."""

_Then = Callable[["BankCore", Any, PaymentOutcome, list[Effect]], None]
"""What is done with an outcome, for whom or for what it was asked; it adds its effects."""

_make_commit: Final = maker_of(Commit)
_make_decode: Final = maker_of(Decode)
_make_find: Final = maker_of(FindPayment)
_make_open_envelope: Final = maker_of(OpenEnvelope)
_make_opened: Final = maker_of(Opened)
_make_resolve_result: Final = maker_of(ResolveResult)
_make_transfer: Final = maker_of(Transfer)
_make_transfer_result: Final = maker_of(TransferResult)


class BankCore:
    """One bank, for all gateways that are linked to it. Effects besides the shared ones: Decode, Posted, LogLine."""

    def __init__(
        self,
        bank_id: str,
        signed_key_list: bytes,
        key_of: KeyOf,
        *,
        decode_count_max: int = DECODE_COUNT_MAX,
        restored_ms: int = 0,
    ) -> None:
        """`key_of` finds the link key of a gateway, or gives None for a stranger.

        `restored_ms`: when the ledger was restored from a backup. What was authorised before may have been posted under
        a UTR that it does not know, so it is late, and never posted a second time (T6).
        """
        self.signed_key_list = signed_key_list
        """What BankKeysQuery is answered with; may be replaced at any time (T12)."""
        self._bank_id = bank_id
        self._key_of = key_of
        self._decode_count_max = decode_count_max
        self._restored_ms = restored_ms
        self._links = LinkTable()
        # Commits in the order of their outcomes, each with what is done then and with what.
        self._awaited: deque[tuple[PaymentOperation, _Then, Any]] = deque()
        self._decoding: dict[int, _Waiting] = {}
        # By gateway and payment ID: how many transfers are looked up or opened, and the resolves that wait for them.
        self._under_way: dict[tuple[str, bytes], int] = {}
        self._resolves: dict[tuple[str, bytes], list[tuple[Resolve, _Asker]]] = {}
        self._failed: set[int] = set()  # links that we ended for what a request asked
        self._next_tag = 1
        self._is_draining = False

    # -- links -----------------------------------------------------------------------------------------

    def link_connected(self, link_id: int, address: Address, now: Now) -> list[Effect]:
        """A peer connected; it must say hello as a gateway whose key it can use (T13)."""
        link = Link(Role.BANK, self._bank_id, Role.GATEWAY, is_caller=False, now_ms=now.mono_ms, key_of=self._key_of)
        self._links.add(link_id, link)
        return []

    def link_refused(self, address: Address, reason: str, now: Now) -> list[Effect]:
        """A peer was turned away at once."""
        return [LogLine(f"turned {address[0]} port {address[1]} away: {reason}")]

    def receive_data(self, link_id: int, data: bytes, now: Now) -> list[Effect]:
        """Bytes came on a link."""
        effects: list[Effect] = []
        for event in self._links.receive_data(link_id, data, now.mono_ms):
            if type(event) is RequestReceived:
                self._handle_request(link_id, event.correlation_id, event.message, now, effects)
            else:
                effects += self._handle(link_id, event)
        return effects

    def receive_eof(self, link_id: int, now: Now) -> list[Effect]:
        """A link's stream has ended."""
        effects: list[Effect] = []
        for event in self._links.receive_eof(link_id):
            effects += self._handle(link_id, event)
        return effects

    def link_closed(self, link_id: int, reason: str, now: Now) -> list[Effect]:
        """A link is gone; what it asked for is decided all the same."""
        self._links.remove(link_id)
        self._failed.discard(link_id)
        return []

    def receive_timer(self, now: Now) -> list[Effect]:
        """Fail links whose deadlines have passed."""
        effects: list[Effect] = []
        for link_id, event in self._links.receive_timer(now.mono_ms):
            effects += self._handle(link_id, event)
        return effects

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work."""
        return self._links.next_deadline_ms()

    def link_effects(self) -> list[LinkEffect]:
        """What the links want of the shell, once a tick."""
        return self._links.effects()

    def drain(self, now: Now) -> list[Effect]:
        """R12: answer what is under way, decline new transfers as UNAVAILABLE; replays and fences go on."""
        self._is_draining = True
        return []

    @property
    def is_drained(self) -> bool:
        """Whether no transfer is under way."""
        return not self._decoding and not self._awaited

    # -- requests --------------------------------------------------------------------------------------

    def _handle(self, link_id: int, event: LinkEvent) -> list[Effect]:
        match event:
            case LinkOpened(peer_id=gateway_id):
                return [LogLine(f"gateway {gateway_id} is linked")]
            case LinkFailed(error=error):
                return [LogLine(f"link {link_id} failed: {error.text}")]
            case PeerClosed(text=text):
                return [LogLine(f"link {link_id} closed by its peer: {text}")]
            case _:
                return []

    def _handle_request(
        self, link_id: int, correlation_id: int, message: Message, now: Now, effects: list[Effect]
    ) -> None:
        link = self._links.get(link_id)
        # A fault behind this request in the same read takes it not back (PG-LNK-11); one of ours before it does.
        if link is None or link_id in self._failed:
            return
        if isinstance(message, BankKeysQuery):
            is_ours = message.bank_id == self._bank_id
            link.send_reply(
                correlation_id,
                BankKeys(KeysStatus.AVAILABLE, self.signed_key_list) if is_ours else _UNKNOWN_BANK,
            )
            return
        assert isinstance(message, _PAYMENT_REQUESTS), "the link lets no other request through"
        terms = message.terms
        if terms.gateway_id != link.peer_id:  # T14: the link's key says who it is.
            self._fail(link_id, link, "bad value at terms.gateway_id: expected the gateway of this link")
            effects.append(LogLine(f"gateway {link.peer_id} sent a request of another gateway; its link is closed"))
        elif terms.bank_id != self._bank_id:
            self._fail(link_id, link, "bad value at terms.bank_id: expected this bank")
            effects.append(LogLine(f"gateway {link.peer_id} sent a request for another bank; its link is closed"))
        elif isinstance(message, TransferRequest):
            asker: _Asker = (link_id, correlation_id, _make_transfer_result, terms.payment_id)
            self._ask(asker, message, now.mono_ms + message.time_left_ms, effects)
        else:
            asker = (link_id, correlation_id, _make_resolve_result, terms.payment_id)
            self._resolve(asker, Resolve(terms, message.envelope_hash), effects)

    def _fail(self, link_id: int, link: Link, text: str) -> None:
        self._failed.add(link_id)
        link.fail(ErrorCode.BAD_VALUE, text)

    # -- transfers -------------------------------------------------------------------------------------

    def _ask(self, asker: _Asker, request: TransferRequest, deadline_mono_ms: int, effects: list[Effect]) -> None:
        """The first step: is the payment known?"""
        terms = request.terms
        key = (terms.gateway_id, terms.payment_id)
        self._under_way[key] = self._under_way.get(key, 0) + 1
        sent_envelope_hash = envelope_hash(request.envelope)
        asked = (asker, request, sent_envelope_hash, deadline_mono_ms)
        effects.append(self._commit(_make_find(terms, sent_envelope_hash), BankCore._found, asked))

    def _found(
        self, asked: tuple[_Asker, TransferRequest, bytes, int], outcome: PaymentOutcome, effects: list[Effect]
    ) -> None:
        """The second step: the ledger said whether it is known. If not, its envelope is opened."""
        asker, request, sent_envelope_hash, deadline_mono_ms = asked
        if outcome.outcome is None and (self._is_draining or len(self._decoding) >= self._decode_count_max):
            outcome = _UNAVAILABLE
        if outcome.outcome is not None:
            self._decided(asker, outcome, effects)
            self._ended(request.terms, effects)
            return
        if request.terms.authorised_at_ms < self._restored_ms:
            # Its time is over, whatever is in the envelope.
            late = _make_transfer(request.terms, sent_envelope_hash, Reason.TERMS, 0)
            effects.append(self._commit(late, BankCore._decided, asker))
            self._ended(request.terms, effects)
            return
        tag = self._next_tag
        self._next_tag += 1
        self._decoding[tag] = (asker, request.terms, sent_envelope_hash, deadline_mono_ms)
        effects.append(_make_decode(tag, _make_open_envelope(request.key_id, request.terms, request.envelope)))

    def decoded(self, tag: int, opened: OpenedEnvelope | None, now: Now) -> list[Effect]:
        """The decoder's answer to a Decode; None if it died and can't answer."""
        asker, terms, sent_envelope_hash, deadline_mono_ms = self._decoding.pop(tag)
        effects: list[Effect] = []
        if opened is None:
            self._decided(asker, _UNAVAILABLE, effects)
        else:
            credentials = _NOT_OPENED.get(opened.status) or _make_opened(opened.user_id, opened.verifier)
            transfer = _make_transfer(terms, sent_envelope_hash, credentials, deadline_mono_ms)
            effects.append(self._commit(transfer, BankCore._decided, asker))
        self._ended(terms, effects)
        return effects

    def _ended(self, terms: Terms, effects: list[Effect]) -> None:
        """A transfer is answered, or is committed just before these effects: the last one lets the resolves go."""
        key = (terms.gateway_id, terms.payment_id)
        others_count = self._under_way.pop(key) - 1
        if others_count:
            self._under_way[key] = others_count
        else:
            effects += [
                self._commit(resolve, BankCore._decided, asker) for resolve, asker in self._resolves.pop(key, ())
            ]

    def _resolve(self, asker: _Asker, resolve: Resolve, effects: list[Effect]) -> None:
        """Ask the ledger now, or behind the transfer of this payment that is under way and would find a fence.

        The wait is bounded, since a decoder that hangs is replaced.
        """
        key = (resolve.terms.gateway_id, resolve.terms.payment_id)
        if key in self._under_way:
            self._resolves.setdefault(key, []).append((resolve, asker))
        else:
            effects.append(self._commit(resolve, BankCore._decided, asker))

    def _decided(self, asker: _Asker, outcome: PaymentOutcome, effects: list[Effect]) -> None:
        """The outcome is final: it is answered."""
        assert outcome.outcome is not None
        link_id, correlation_id, make_reply, payment_id = asker
        reply = make_reply(payment_id, outcome.outcome, outcome.reason, outcome.utr, outcome.receipt)
        # The gateway may be gone; the outcome stands, and it will ask.
        self._links.send_reply(link_id, correlation_id, reply)
        if outcome.posted is not None:
            effects.append(outcome.posted)

    # -- commits ---------------------------------------------------------------------------------------

    def _commit(self, operation: PaymentOperation, then: _Then, asked: Any) -> Commit:
        self._awaited.append((operation, then, asked))
        return _make_commit(operation)

    def committed(self, outcomes: Sequence[Outcome], now: Now) -> list[Effect]:
        """The ledger's outcomes; their statements are on disk, so the answers may leave."""
        effects: list[Effect] = []
        for outcome in outcomes:
            assert isinstance(outcome, PaymentOutcome)
            _, then, asked = self._awaited.popleft()
            then(self, asked, outcome, effects)
        return effects

    def commit_failed(self, operations: Sequence[PaymentOperation], now: Now) -> list[Effect]:
        """T30: the disk is full. What only asks is asked again alone; what would change something is refused."""
        effects: list[Effect] = []
        # Asking writes nothing; if even that finds no room, asking again would not end.
        may_ask = not all(isinstance(operation, FindPayment) for operation in operations)
        for operation in operations:
            committed, then, asked = self._awaited.popleft()
            assert committed is operation
            if isinstance(operation, Transfer) or not may_ask:
                then(self, asked, _UNAVAILABLE, effects)
            else:
                find = FindPayment(operation.terms, operation.envelope_hash)
                is_find = isinstance(operation, FindPayment)
                effects.append(self._commit(find, then if is_find else BankCore._found_or_unavailable, asked))
        return effects

    def _found_or_unavailable(self, asker: _Asker, outcome: PaymentOutcome, effects: list[Effect]) -> None:
        # A fence that can't be written is none; the gateway asks again.
        self._decided(asker, outcome if outcome.outcome is not None else _UNAVAILABLE, effects)


_UNKNOWN_BANK: Final = BankKeys(KeysStatus.UNKNOWN_BANK, b"")
