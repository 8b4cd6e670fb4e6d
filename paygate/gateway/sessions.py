"""Sessions: what a positive acknowledgement opens (R3, R10). In memory only; a restart ends them all."""

from collections import deque
from collections.abc import Callable
from typing import Final

from paygate.codec import limits
from paygate.gateway.tokens import Token

SESSION_COUNT_MAX: Final = 350_000
"""Above this many the oldest end early: at 10,000 payments a second 300,000 are live, and a shopper who takes all of
his 30 seconds must not lose his session to those who are faster. Each costs 450 bytes."""
SESSION_COUNT_PER_TOKEN_MAX: Final = 16
"""A shopper may try again in several windows; whoever holds one token must not push other tokens' sessions out."""
RANDOM_SIZE: Final = 4_096
"""So many random bytes are asked for at once, which make 256 session IDs, so that not every payment has a system call
for its own."""
_ID_SIZE: Final = limits.SESSION_ID_SIZE


Session = tuple[str, str, int, str, int]
"""The token that may be paid, as terms need it, and until when: transaction ID, merchant ID, amount in minor units,
currency; and when it ends, in monotonic milliseconds.

A plain tuple, which the cycle collector leaves alone once it has seen it: there may be 300,000, and looking through as
many objects took longer than handling many payments.
"""


class Sessions:
    """Live sessions by their ID. All last equally long, so they end in the order in which they were opened."""

    def __init__(self, random_bytes: Callable[[int], bytes], session_ms: int) -> None:
        self.session_ms = session_ms
        self._random_bytes = random_bytes
        self._unused_ids: list[bytes] = []  # each is given once, and kept nowhere else before or after
        self._sessions: dict[bytes, Session] = {}
        self._order: deque[bytes] = deque()  # their IDs, oldest first: the first is live, others may have been closed
        self._ids_of: dict[str, tuple[bytes, ...]] = {}  # transaction ID to its session IDs, oldest first

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, token: Token, now_ms: int) -> bytes:
        """Open a session and give its ID, which only its client learns."""
        transaction_id = token.transaction_id
        ids_of_token = self._ids_of.get(transaction_id, ())
        if len(ids_of_token) >= SESSION_COUNT_PER_TOKEN_MAX:
            self._close(ids_of_token[0])
            ids_of_token = ids_of_token[1:]
        elif len(self._sessions) >= SESSION_COUNT_MAX:
            self._close(self._order[0])
            ids_of_token = self._ids_of.get(transaction_id, ())  # It may have been this token's.
        if not self._unused_ids:
            random = self._random_bytes(RANDOM_SIZE)
            self._unused_ids = [random[at : at + _ID_SIZE] for at in range(0, len(random), _ID_SIZE)]
        session_id = self._unused_ids.pop()
        terms = (transaction_id, token.merchant_id, token.amount_minor, token.currency)
        self._sessions[session_id] = (*terms, now_ms + self.session_ms)
        self._order.append(session_id)
        self._ids_of[transaction_id] = (*ids_of_token, session_id)
        return session_id

    def find(self, session_id: bytes) -> Session | None:
        """The session, if it has not been closed."""
        return self._sessions.get(session_id)

    def next_deadline_ms(self) -> int | None:
        """When the oldest session ends."""
        return self._sessions[self._order[0]][-1] if self._order else None

    def end_due(self, now_ms: int) -> None:
        """Forget the sessions whose time is over."""
        while self._order and self._sessions[self._order[0]][-1] <= now_ms:
            self._close(self._order[0])

    def _close(self, session_id: bytes) -> None:
        transaction_id = self._sessions.pop(session_id)[0]
        ids = self._ids_of[transaction_id]
        if len(ids) > 1:
            self._ids_of[transaction_id] = tuple(other for other in ids if other != session_id)
        else:
            del self._ids_of[transaction_id]
        order = self._order
        while order and order[0] not in self._sessions:
            order.popleft()
        if len(order) > 2 * len(self._sessions) + SESSION_COUNT_PER_TOKEN_MAX:
            # Those of one token end each other out of order; what they leave behind an older one is bounded.
            self._order = deque(live for live in order if live in self._sessions)
