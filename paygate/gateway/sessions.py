"""Sessions: what a positive acknowledgement opens (R3, R10). In memory only; a restart ends them all."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paygate.codec import limits
from paygate.gateway.tokens import Token
from paygate.making import maker_of

SESSION_COUNT_MAX: Final = 100_000
"""Above this many in 30 seconds the oldest end early."""
SESSION_COUNT_PER_TOKEN_MAX: Final = 16
"""A shopper may try again in several windows; whoever holds one token must not push other tokens' sessions out."""


@dataclass(frozen=True, slots=True)
class Session:
    """Which token may be paid, and until when on the monotonic clock."""

    token: Token
    ends_ms: int


_make_session: Final = maker_of(Session)


class Sessions:
    """Live sessions by their ID. All last equally long, so they end in the order in which they were opened."""

    def __init__(self, random_bytes: Callable[[int], bytes], session_ms: int) -> None:
        self.session_ms = session_ms
        self._random_bytes = random_bytes
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._ids_of: dict[str, list[bytes]] = {}  # transaction ID to its session IDs, oldest first

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, token: Token, now_ms: int) -> bytes:
        """Open a session and give its ID, which only its client learns."""
        ids = self._ids_of.get(token.transaction_id)
        if ids is not None and len(ids) >= SESSION_COUNT_PER_TOKEN_MAX:
            self._close(ids[0])
        elif len(self._sessions) >= SESSION_COUNT_MAX:
            self._close(next(iter(self._sessions)))
        session_id = self._random_bytes(limits.SESSION_ID_SIZE)
        self._sessions[session_id] = _make_session(token, now_ms + self.session_ms)
        self._ids_of.setdefault(token.transaction_id, []).append(session_id)
        return session_id

    def find(self, session_id: bytes) -> Session | None:
        """The session, if it has not been closed."""
        return self._sessions.get(session_id)

    def next_deadline_ms(self) -> int | None:
        """When the oldest session ends."""
        return next(iter(self._sessions.values())).ends_ms if self._sessions else None

    def end_due(self, now_ms: int) -> None:
        """Forget the sessions whose time is over."""
        while self._sessions:
            session_id, session = next(iter(self._sessions.items()))
            if session.ends_ms > now_ms:
                break
            self._close(session_id)

    def _close(self, session_id: bytes) -> None:
        transaction_id = self._sessions.pop(session_id).token.transaction_id
        ids = self._ids_of[transaction_id]
        ids.remove(session_id)
        if not ids:
            del self._ids_of[transaction_id]
