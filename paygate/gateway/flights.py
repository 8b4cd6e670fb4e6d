"""Payments in flight: who waits for each, and when to look at it again (design: In doubt).

Only times and waiters, which a crash may forget; that a payment is in flight is the store's to remember. All times are
monotonic milliseconds.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from paygate.codec.sealed import Terms
from paygate.making import maker_of

BANK_MS_MAX: Final = 20_000
"""The bank has 20 of the session's 30 seconds from the moment that the credentials arrive."""
RESOLVE_BEFORE_END_MS: Final = 5_000
"""Resolving begins so long before the session's end, but the bank has at least half of the time till PENDING."""
PENDING_BEFORE_END_MS: Final = 2_000
"""The client hears PENDING at 28 s, in time before its own alarm at 30 s."""
RESOLVE_BACKOFF_BASE_MS: Final = 1_000
RESOLVE_BACKOFF_MS_MAX: Final = 30_000
"""A bank that is back is asked within half a minute: a payment is final within its session and 60 s of healing."""

Asker = tuple[int, int]
"""Link ID and correlation ID of a request that waits for its reply."""


@dataclass(slots=True)
class Flight:
    """A payment that waits for the bank's final word."""

    terms: Terms
    envelope_hash: bytes
    resolve_at_ms: int
    waiters: list[Asker]
    pending_at_ms: int | None
    """When those who wait hear PENDING; None once nobody waits."""
    look_at_ms: int | None = None
    """Its one entry in the heap that counts."""
    resolve_count: int = 0
    """How often the bank was asked what became of it."""


_make_flight: Final = maker_of(Flight)


class Flights:
    """All payments in flight, by payment ID. `jitter` gives floats in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._flights: dict[bytes, Flight] = {}
        # The payments to look at by when, and a heap of the times. Those of a tick have a time in common, so a payment
        # costs no heap operation of its own. Outdated entries are passed over.
        self._due: dict[int, list[bytes]] = {}
        self._due_ms: list[int] = []

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def has_waiters(self) -> bool:
        """Whether any client waits for an outcome."""
        return any(flight.waiters for flight in self._flights.values())

    def resume(self, terms: Terms, envelope_hash: bytes, now_ms: int) -> None:
        """One from before a restart: nobody waits, and it is resolved when the bank is there."""
        self._flights[terms.payment_id] = Flight(terms, envelope_hash, now_ms, [], None)

    def wait(self, asker: Asker, terms: Terms, envelope_hash: bytes, pending_at_ms: int, now_ms: int) -> Flight:
        """Let an asker wait for a payment; whoever repeats one in flight waits with the first."""
        payment_id = terms.payment_id
        flight = self._flights.get(payment_id)
        if flight is None:
            latest_ms = pending_at_ms + PENDING_BEFORE_END_MS - RESOLVE_BEFORE_END_MS
            half_time_ms = (now_ms + pending_at_ms + 1) // 2
            resolve_at_ms = max(min(now_ms + BANK_MS_MAX, latest_ms), half_time_ms)
            flight = _make_flight(terms, envelope_hash, resolve_at_ms, [asker], pending_at_ms)
            self._flights[payment_id] = flight
        else:
            flight.waiters.append(asker)
            flight.pending_at_ms = pending_at_ms
        self._schedule(flight)
        return flight

    def end(self, payment_id: bytes) -> list[Asker]:
        """The payment has its final outcome; gives who waited for it."""
        flight = self._flights.pop(payment_id, None)
        return flight.waiters if flight else []

    def resolve_all(self, now_ms: int) -> None:
        """A link to the bank is open: what was sent on one before may or may not have arrived."""
        for flight in self._flights.values():
            flight.resolve_at_ms = now_ms
            self._schedule(flight)

    def resolve_later(self, payment_id: bytes, now_ms: int) -> None:
        """The bank could not say now; it is asked again after a back-off."""
        flight = self._flights.get(payment_id)
        if flight is not None:
            flight.resolve_at_ms = now_ms + self._backoff_ms(flight)
            self._schedule(flight)

    def next_deadline_ms(self) -> int | None:
        """When `take_due` has work; it may be too early, never too late."""
        return self._due_ms[0] if self._due_ms else None

    def take_due(self, now_ms: int) -> Iterator[tuple[Flight, list[Asker], bool]]:
        """Flights to look at: each with the askers that are to hear PENDING, and whether to ask the bank now."""
        while self._due_ms and self._due_ms[0] <= now_ms:
            when_ms = heapq.heappop(self._due_ms)
            for payment_id in self._due.pop(when_ms):
                flight = self._flights.get(payment_id)
                if flight is None or flight.look_at_ms != when_ms:
                    continue
                told: list[Asker] = []
                if flight.pending_at_ms is not None and now_ms >= flight.pending_at_ms:
                    told, flight.waiters, flight.pending_at_ms = flight.waiters, [], None
                is_to_resolve = now_ms >= flight.resolve_at_ms
                if is_to_resolve:
                    flight.resolve_at_ms = now_ms + self._backoff_ms(flight)
                self._schedule(flight)
                yield flight, told, is_to_resolve

    def _backoff_ms(self, flight: Flight) -> int:
        # Half fixed, half jitter: never a storm, never later than the cap.
        bound_ms = min(RESOLVE_BACKOFF_BASE_MS << min(flight.resolve_count, 16), RESOLVE_BACKOFF_MS_MAX)
        flight.resolve_count += 1
        return bound_ms // 2 + int(self._jitter() * (bound_ms // 2))

    def _schedule(self, flight: Flight) -> None:
        when_ms, pending_at_ms = flight.resolve_at_ms, flight.pending_at_ms
        if pending_at_ms is not None and pending_at_ms < when_ms:
            when_ms = pending_at_ms
        flight.look_at_ms = when_ms
        due = self._due.get(when_ms)
        if due is None:
            due = self._due[when_ms] = []
            heapq.heappush(self._due_ms, when_ms)
        due.append(flight.terms.payment_id)
