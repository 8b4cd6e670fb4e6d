"""The gateway's end of its link to the bank: whether there is one, what troubles it, and the key list that it brings.

One link at a time carries the payments of all clients. What the bank says of a payment is the core's to handle.
"""

from dataclasses import dataclass, field
from typing import Final

from paygate.codec.codes import KeysStatus, Role
from paygate.codec.messages import BankKeys, BankKeysQuery, Error, Message
from paygate.effects import Effect, LogLine
from paygate.gateway.bank_trouble import another_bank_text, refusal_text
from paygate.gateway.flights import Flights
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, Opened, PeerClosed
from paygate.links import LinkTable

KEY_LIST_REFRESH_MS: Final = 60_000
"""How old the relayed key list may be; a rotation overlaps far longer (T12)."""
NO_ANSWER_YET: Final = "no answer yet"


@dataclass(frozen=True, slots=True)
class GatewayIdentity:
    """Who this gateway is, and whose link key it holds."""

    gateway_id: str
    bank_id: str
    link_key: bytes = field(repr=False)


class BankSide:
    """The link to the bank, which comes and goes."""

    def __init__(self, identity: GatewayIdentity, links: LinkTable, flights: Flights) -> None:
        """`links`: where its link is. `flights`: payments in flight, which are resolved when a link opens."""
        self._identity = identity
        self._links = links
        self._flights = flights
        self.link_id = 0
        """Set while a connection to the bank is up, its link open or not; 0, which is no link's, otherwise."""
        self.is_open = False
        """Whether payments can be sent to the bank."""
        self.was_open = False
        """Whether there ever was an open link to the bank in this run."""
        self.trouble = NO_ANSWER_YET
        """Why there is no open link to the bank; empty while there is one."""
        self.told_trouble = ""
        """The trouble that the operator was told of last; empty again once the link is open."""
        self._signed_key_list = b""
        self._refresh_keys_ms: int | None = None

    # -- the connection --------------------------------------------------------------------------------

    def connected(self, link_id: int, now_ms: int) -> None:
        """Our connection to the bank is up; the link opens with the bank's HelloAck."""
        identity = self._identity
        link = Link(
            Role.GATEWAY,
            identity.gateway_id,
            Role.BANK,
            is_caller=True,
            now_ms=now_ms,
            link_key=identity.link_key,
        )
        self.link_id = link_id
        self.trouble = NO_ANSWER_YET
        self._links.add(link_id, link)

    def closed(self, reason: str) -> list[Effect]:
        """The connection is gone, and its link removed."""
        self.link_id = 0
        self.is_open = False
        self._refresh_keys_ms = None
        if self.trouble in ("", NO_ANSWER_YET):
            self.trouble = reason
        if self.trouble == self.told_trouble:  # Once, not at every attempt.
            return []
        self.told_trouble = self.trouble
        return [LogLine(f"no link to bank {self._identity.bank_id}: {self.trouble}")]

    def handle(self, event: LinkEvent, now_ms: int, effects: list[Effect]) -> None:
        """The link opened or ended. What follows an end, the shell does: it closes the connection, and `closed` it."""
        if isinstance(event, Opened):
            self._opened(event.peer_id, now_ms, effects)
        elif isinstance(event, LinkFailed):
            self.is_open = False
            self.trouble = refusal_text(event.error.text, event.error.code)
        elif isinstance(event, PeerClosed):
            self.is_open = False
            self.trouble = refusal_text(event.text, event.code)

    def _opened(self, peer_id: str, now_ms: int, effects: list[Effect]) -> None:
        bank_id = self._identity.bank_id
        if peer_id != bank_id:
            self._links.close(self.link_id, "another bank than configured")
            self.trouble = another_bank_text(peer_id, bank_id)
            return
        self.is_open = self.was_open = True
        self.trouble = self.told_trouble = ""
        self._ask_for_keys(now_ms)
        self._flights.resolve_all(now_ms)
        effects.append(LogLine(f"linked to bank {peer_id}, {len(self._flights)} payments to resolve"))

    # -- questions -------------------------------------------------------------------------------------

    def ask(self, message: Message) -> None:
        """Send the bank a request, if its link is open; if it isn't, what is in flight is resolved on the next."""
        self._links.send_request(self.link_id, message)

    def replied(self, message: Message, effects: list[Effect]) -> None:
        """The bank answered a request, with no result."""
        bank_id = self._identity.bank_id
        if isinstance(message, BankKeys):
            if message.status is KeysStatus.AVAILABLE:
                if not self._signed_key_list:
                    # From here on clients can pay: before it they get no key to seal for.
                    effects.append(LogLine(f"has the keys of bank {bank_id}"))
                self._signed_key_list = message.signed_key_list
        elif isinstance(message, Error):  # It refused a request; the payment is resolved in its time.
            effects.append(LogLine(f"bank {bank_id} refused a request: {message.text}"))

    def keys_of(self, bank_id: str) -> BankKeys:
        """What a client is told that asks for the keys of a bank."""
        if bank_id != self._identity.bank_id:
            return BankKeys(KeysStatus.UNKNOWN_BANK, b"")
        if not self._signed_key_list:
            return BankKeys(KeysStatus.UNAVAILABLE, b"")
        return BankKeys(KeysStatus.AVAILABLE, self._signed_key_list)

    # -- time ------------------------------------------------------------------------------------------

    def next_deadline_ms(self) -> int | None:
        """When `receive_timer` has work."""
        return self._refresh_keys_ms

    def receive_timer(self, now_ms: int) -> None:
        """The time is now `now_ms`: a key list that is old is asked for again."""
        if self._refresh_keys_ms is not None and now_ms >= self._refresh_keys_ms:
            self._ask_for_keys(now_ms)

    def _ask_for_keys(self, now_ms: int) -> None:
        self.ask(BankKeysQuery(self._identity.bank_id))
        self._refresh_keys_ms = now_ms + KEY_LIST_REFRESH_MS
