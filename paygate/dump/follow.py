"""The story of one payment over all links (`--follow`): which items belong to it, as they come.

Strategy: what a payment was before it had an ID can be known only afterwards, so it is kept for a while: what opened
each connection, and each session's token query and ack, in tables with bounds. When the payment shows up, what is kept
of it comes first, in its order, and from then on everything that names it at once. Who asks by transaction ID or UTR
names a payment that may show up without either, so frames of every payment are kept too until one tells.

A connection's opening is told when it turns out that the connection belongs to the story; another connection may have
spoken in between, as its times show.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import Kind, Role
from paygate.codec.fields import IDENTIFIER
from paygate.codec.limits import PAYMENT_ID_SIZE
from paygate.dump.filters import PAYMENT_DIGIT_COUNT_MIN
from paygate.dump.identities import remember
from paygate.dump.model import Finding, Flow, Item, SeenFrame, StreamEvent, StreamNote
from paygate.dump.story import Story

STORY_COUNT_MAX: Final = 64
"""Payments of one token that are followed: it can be tried again after each decline (R9)."""
FLOW_COUNT_MAX: Final = 4_096
"""Connections whose opening is kept; at most 25 KB each (a key list), a few as a rule."""
SESSION_COUNT_MAX: Final = 8_192
"""Token queries with their acks that are kept until their payment comes; some 20 MB."""
HELD_FRAME_COUNT_MAX: Final = 16_384
"""Frames of payments that may turn out to be the one that is asked for; some 40 MB with the largest envelopes."""
LISTED_COUNT_MAX: Final = 16
"""Payments that an error lists."""

_HEX_PREFIX: Final = re.compile(rf"[0-9a-f]{{{PAYMENT_DIGIT_COUNT_MIN},{2 * PAYMENT_ID_SIZE}}}")
_OPENING_KINDS: Final = frozenset({Kind.HELLO, Kind.HELLO_ACK, Kind.BANK_KEYS_QUERY, Kind.BANK_KEYS})
_OPENING_EVENTS: Final = frozenset({StreamEvent.OPENED, StreamEvent.STARTED_LATE})
_ENDING_EVENTS: Final = frozenset({StreamEvent.CLOSED, StreamEvent.DROPPED, StreamEvent.CAPTURE_ENDED})

_Place = tuple[int, int]
"""Where an item stands in the input: after how many frames, and after how many notes since."""
_Kept = tuple[_Place, Item]
_KeptFrame = tuple[_Place, SeenFrame]


class Follow:
    """Chooses the items of one payment's story. Ask of every item in order."""

    def __init__(self, wanted: str) -> None:
        """Follow a payment by its ID, the beginning of it, its transaction ID or its UTR.

        Raises PaygateExit(USAGE) for what can be none of these.
        """
        self._wanted = wanted
        self._prefix = wanted.lower() if _HEX_PREFIX.fullmatch(wanted.lower()) else ""
        # Hexadecimal digits and UTRs have the form of a transaction ID, so everything may be one.
        if not IDENTIFIER.is_legal(wanted):
            raise PaygateExit(
                "--follow: expected a payment ID or at least "
                f"{PAYMENT_DIGIT_COUNT_MIN} hexadecimal digits of one, a transaction ID, or a UTR",
                ExitCode.USAGE,
            )
        self._stories: dict[bytes, Story] = {}
        self._flows: OrderedDict[Flow, None] = OrderedDict()  # of clients: all that happens to them is told
        self._waiting_counts: OrderedDict[Flow, int] = OrderedDict()  # the stories' requests on links of many payments
        self._seen: dict[bytes, str] = {}  # payments of the input with their transactions, for an error
        self._has_more = False
        self._others: dict[bytes, None] = {}  # payments whose ID begins the same
        self._is_found = False
        self._place: _Place = (0, 0)
        self._openings: OrderedDict[Flow, dict[Kind | None, _Kept]] = OrderedDict()
        self._acks: OrderedDict[bytes, list[_KeptFrame]] = OrderedDict()
        self._told_acks: OrderedDict[bytes, SeenFrame] = OrderedDict()
        self._held: OrderedDict[bytes, list[_KeptFrame]] = OrderedDict()
        self._held_count = 0

    @property
    def held_count(self) -> int:
        """How many frames are kept of payments that may turn out to be the one that is asked for."""
        return self._held_count

    @property
    def stories(self) -> list[Story]:
        """What became of each payment that was followed, in the order in which they began."""
        return list(self._stories.values())

    def story_summary(self) -> list[str]:
        """The stories in words, a few lines each."""
        if self._is_found and not self._stories:
            return [f"{self._wanted}: no payment was seen, only its token"]
        return [line for story in self._stories.values() for line in story.summary()]

    def receive(self, item: Item) -> Iterable[Item]:
        """The items to show now: none, this one, or this one and what led to it."""
        if isinstance(item, SeenFrame):
            self._place = (item.index, 0)
            return self._receive_frame(item)
        self._place = (self._place[0], self._place[1] + 1)
        if isinstance(item, Finding):
            return (item,) if item.flow is None or self._is_told(item.flow) else ()
        return self._receive_note(item)

    def finish(self) -> None:
        """Check that the story was one, when the input has ended.

        Raises PaygateExit(USAGE): no such payment, with those that there are; or several, of which the first was shown.
        """
        if self._others:
            first = next(iter(self._stories.values())).payment_id.hex()
            others = ", ".join(payment_id.hex() for payment_id in self._others)
            raise PaygateExit(
                f"--follow {self._wanted} begins several payments: {first}, which was shown, and {others}; "
                "give more digits",
                ExitCode.USAGE,
            )
        if not self._is_found:
            raise PaygateExit(f"--follow {self._wanted}: no such payment here; {self._known()}", ExitCode.USAGE)

    def _known(self) -> str:
        if not self._seen:
            return "the input shows no payment at all"
        listed = [id_.hex() + (f" ({of})" if of else "") for id_, of in self._seen.items()]
        return f"the input has {', '.join(listed)}{' and more' if self._has_more else ''}"

    # -- frames ----------------------------------------------------------------------------------------

    def _receive_frame(self, frame: SeenFrame) -> Iterable[Item]:
        payment_id = frame.payment_id
        if payment_id:
            self._note_payment(frame)
            story = self._stories.get(payment_id)
            if story is None and self._is_wanted(frame):
                return self._begin(frame)
            if story is not None:
                return self._tell(frame, [], story)
        elif self._belongs(frame):
            if frame.frame.kind is Kind.TOKEN_ACK and frame.session_id:
                remember(self._told_acks, frame.session_id, frame, STORY_COUNT_MAX)
            return self._tell(frame, self._request_of(frame), None)
        return self._keep(frame)

    def _note_payment(self, frame: SeenFrame) -> None:
        if frame.payment_id in self._seen:
            self._seen[frame.payment_id] = self._seen[frame.payment_id] or frame.transaction_id
        elif len(self._seen) < LISTED_COUNT_MAX:
            self._seen[frame.payment_id] = frame.transaction_id
        else:
            self._has_more = True

    def _is_wanted(self, frame: SeenFrame) -> bool:
        if len(self._stories) >= STORY_COUNT_MAX:
            return False
        if self._names(frame):
            return True
        if not (self._prefix and frame.payment_id.hex().startswith(self._prefix)):
            return False
        if not self._stories:
            return True
        if len(self._others) < LISTED_COUNT_MAX:
            self._others[frame.payment_id] = None
        return False

    def _names(self, frame: SeenFrame) -> bool:
        """Whether the frame names the transaction or UTR that is asked for."""
        return self._wanted in (frame.transaction_id, getattr(frame.message, "utr", ""))

    def _belongs(self, frame: SeenFrame) -> bool:
        """Whether a frame without a payment is of the story: of the token itself, or the end of a link."""
        if frame.frame.kind is Kind.ERROR and getattr(frame.message, "closes", False):
            return self._is_told(frame.flow)
        return self._names(frame)

    def _request_of(self, answer: SeenFrame) -> list[_KeptFrame]:
        """The request of an answer without a payment, if it was not told: only the answer names the UTR."""
        request = answer.answers
        if request is None or request.payment_id or self._belongs(request):
            return []
        return [((request.index, 0), request)]

    def _begin(self, frame: SeenFrame) -> list[Item]:
        story = self._stories[frame.payment_id] = Story(frame.payment_id)
        kept = self._held.pop(frame.payment_id, [])
        self._held_count -= len(kept)
        for session_id in {frame.session_id} | {item.session_id for _, item in kept}:
            kept += self._acks.pop(session_id, [])
            told = self._told_acks.get(session_id)
            if told is not None and told.answers is not None:
                story.tell(told.answers)
                story.tell(told)
        return self._tell(frame, kept, story)

    def _tell(self, frame: SeenFrame, kept: list[_KeptFrame], story: Story | None) -> list[Item]:
        """Show a frame with what was kept of its story, and with the opening of each connection that is new in it."""
        self._is_found = True
        told: list[_Kept] = []
        for place, item in sorted([*kept, (self._place, frame)], key=_place):
            if not _is_client_link(item.flow):
                self._count_waiting(item)
            elif item.flow not in self._flows:
                remember(self._flows, item.flow, None, FLOW_COUNT_MAX)
                told += self._openings.pop(item.flow, {}).values()
            told.append((place, item))
            if story is not None:
                story.tell(item)
        return [item for _, item in sorted(told, key=_place)]

    def _count_waiting(self, frame: SeenFrame) -> None:
        """Of a link that many payments share, its end is of the story only while a request of the story waits."""
        count = self._waiting_counts.get(frame.flow, 0)
        if frame.answers is not None:
            count = max(0, count - 1)
        elif not frame.frame.kind.is_reply:
            count += 1
        remember(self._waiting_counts, frame.flow, count, FLOW_COUNT_MAX)

    def _is_told(self, flow: Flow) -> bool:
        return flow in self._flows or self._waiting_counts.get(flow, 0) > 0

    # -- what may be told later ------------------------------------------------------------------------

    def _keep(self, frame: SeenFrame) -> tuple[Item, ...]:
        kind = frame.frame.kind
        if frame.payment_id:
            self._hold(frame)
        elif kind in _OPENING_KINDS:
            if _is_client_link(frame.flow):
                if frame.flow in self._flows:
                    return (frame,)
                self._opening_of(frame.flow)[kind] = (self._place, frame)
        elif kind is Kind.TOKEN_ACK and frame.session_id:
            query = frame.answers
            kept: list[_KeptFrame] = [((query.index, 0), query)] if query is not None else []
            remember(self._acks, frame.session_id, [*kept, (self._place, frame)], SESSION_COUNT_MAX)
        return ()

    def _hold(self, frame: SeenFrame) -> None:
        self._held.setdefault(frame.payment_id, []).append((self._place, frame))
        self._held.move_to_end(frame.payment_id)
        self._held_count += 1
        while self._held_count > HELD_FRAME_COUNT_MAX:
            _, forgotten = self._held.popitem(last=False)
            self._held_count -= len(forgotten)

    def _opening_of(self, flow: Flow) -> dict[Kind | None, _Kept]:
        opening = self._openings.get(flow)
        if opening is None:
            opening = {}
            remember(self._openings, flow, opening, FLOW_COUNT_MAX)
        return opening

    def _receive_note(self, note: StreamNote) -> Iterable[Item]:
        flow = note.flow
        if self._is_told(flow):
            return (note,)
        if note.event in _OPENING_EVENTS:
            self._opening_of(flow)[None] = (self._place, note)
        elif note.event in _ENDING_EVENTS:
            self._openings.pop(flow, None)
        return ()


def _place(kept: tuple[_Place, Item]) -> _Place:
    return kept[0]


def _is_client_link(flow: Flow) -> bool:
    return Role.CLIENT in flow.roles
