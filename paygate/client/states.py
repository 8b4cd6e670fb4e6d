"""What may happen to a session, and when: the table that `core.py` obeys."""

from enum import Enum
from typing import Final


class State(Enum):
    """Where a session is."""

    CONNECTING = "connecting"
    OPENING = "waiting for the gateway's hello"
    ASKING = "waiting for the token's and the bank's answers"
    ACKNOWLEDGED = "the token is valid; the customer may authorise"
    SEALING = "the encoder is at work"
    SAVING = "the payment is being written down"
    SENT = "the credentials are sent"
    RECONNECTING = "the link broke after sending"
    ASKING_STATUS = "asking what became of the payment"
    ENDED = "ended"


class Event(Enum):
    """What can happen to a session."""

    CONNECTED = "a connection came up"
    OPENED = "the gateway said hello"
    LOST = "no connection, or the link broke"
    ACCEPTED = "token and keys are good"
    TURNED_DOWN = "the token can't be paid, or the keys can't be trusted"
    AUTHORISED = "the customer gave user ID and password"
    CANCELLED = "the customer gave up"
    SEALED = "the encoder made the envelope"
    SEAL_FAILED = "the encoder failed"
    SAVED = "the payment is on disk"
    SAVE_FAILED = "the payment could not be written down"
    SENT_AGAIN = "the gateway does not know it, so the same bytes are sent again"
    FINAL = "an answer that ends the session"
    NOT_FINAL = "an answer that leaves the outcome open"
    GIVEN_UP = "asking goes on no longer"
    TIME_UP = "the session's time is over"


_UNSENT_ENDS: Final = {Event.LOST: State.ENDED, Event.CANCELLED: State.ENDED, Event.TIME_UP: State.ENDED}
TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.CONNECTING: {Event.CONNECTED: State.OPENING, **_UNSENT_ENDS},
    State.OPENING: {Event.OPENED: State.ASKING, **_UNSENT_ENDS},
    State.ASKING: {Event.ACCEPTED: State.ACKNOWLEDGED, Event.TURNED_DOWN: State.ENDED, **_UNSENT_ENDS},
    State.ACKNOWLEDGED: {Event.AUTHORISED: State.SEALING, **_UNSENT_ENDS},
    State.SEALING: {Event.SEALED: State.SAVING, Event.SEAL_FAILED: State.ENDED, **_UNSENT_ENDS},
    # R11: from here on a payment can't be cancelled.
    State.SAVING: {
        Event.SAVED: State.SENT,
        Event.SAVE_FAILED: State.ENDED,
        Event.LOST: State.ENDED,
        Event.TIME_UP: State.ENDED,
    },
    State.SENT: {
        Event.FINAL: State.ENDED,
        Event.NOT_FINAL: State.ASKING_STATUS,
        Event.LOST: State.RECONNECTING,
        Event.TIME_UP: State.ENDED,
    },
    State.RECONNECTING: {
        Event.CONNECTED: State.RECONNECTING,
        Event.OPENED: State.ASKING_STATUS,
        Event.LOST: State.RECONNECTING,
        Event.GIVEN_UP: State.ENDED,
        Event.TIME_UP: State.ENDED,
    },
    State.ASKING_STATUS: {
        Event.FINAL: State.ENDED,
        Event.NOT_FINAL: State.ASKING_STATUS,
        Event.SENT_AGAIN: State.SENT,
        Event.LOST: State.RECONNECTING,
        Event.GIVEN_UP: State.ENDED,
        Event.TIME_UP: State.ENDED,
    },
    # What was under way may still come in; it changes nothing.
    State.ENDED: {
        Event.CONNECTED: State.ENDED,
        Event.LOST: State.ENDED,
        Event.CANCELLED: State.ENDED,
        Event.SEALED: State.ENDED,
        Event.SEAL_FAILED: State.ENDED,
        Event.SAVED: State.ENDED,
        Event.SAVE_FAILED: State.ENDED,
        Event.TIME_UP: State.ENDED,
    },
}
"""What is missing is our own misuse and raises LocalProtocolError. One test walks every pair."""
