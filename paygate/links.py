"""All links of a server, without their sockets: what the cores of bank and gateway share.

A core adds a link when a connection comes up, feeds it and answers events; at the end of each tick the shell asks for
`effects()`: what to send and whom to close. Links that nothing happened to cost nothing.
"""

import heapq
from typing import Final

from paygate.codec.messages import Message
from paygate.effects import CloseLink, Continue, LinkEffect, Send
from paygate.link import Link
from paygate.link_events import LinkEvent, LinkFailed, PeerClosed
from paygate.link_states import LinkState
from paygate.making import maker_of

_make_send: Final = maker_of(Send)
_OPEN: Final = LinkState.OPEN
_CLOSED: Final = LinkState.CLOSED


class LinkTable:
    """Links by ID. A link ID is chosen by the shell and never used twice in one run."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._reasons: dict[int, str] = {}  # why a link closed
        self._touched: dict[int, None] = {}  # in order, each once
        self._deadlines: list[tuple[int, int]] = []  # heap of (deadline_ms, link_id); may hold outdated entries
        self._armed: dict[int, int] = {}  # link ID to its earliest entry in the heap

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, link_id: int) -> bool:
        return link_id in self._links

    def add(self, link_id: int, link: Link) -> None:
        """A connection is up."""
        assert link_id not in self._links
        self._links[link_id] = link
        self._touch(link_id)

    def get(self, link_id: int) -> Link | None:
        """The link, to send on, or None if it is gone. Its output leaves with the next `effects()`."""
        link = self._links.get(link_id)
        if link is not None:
            self._touch(link_id)
        return link

    def remove(self, link_id: int) -> None:
        """The connection is gone; nothing more is sent. A reply that comes later finds no link."""
        self._links.pop(link_id, None)
        self._reasons.pop(link_id, None)
        self._touched.pop(link_id, None)
        self._armed.pop(link_id, None)

    def receive_data(self, link_id: int, data: bytes | memoryview, now_ms: int) -> list[LinkEvent]:
        """Bytes came on a link. A link that is gone or closed gives nothing."""
        link = self._links.get(link_id)
        if link is None:
            return []
        events = link.receive_data(data, now_ms)
        if link.has_news:
            self._touched[link_id] = None
            if link.state is _CLOSED:
                self._note_end(link_id, events)
        return events

    def receive_eof(self, link_id: int) -> list[LinkEvent]:
        """A link's stream has ended."""
        link = self.get(link_id)
        events = link.receive_eof() if link else []
        self._note_end(link_id, events)
        return events

    def send_reply(self, link_id: int, correlation_id: int, message: Message) -> None:
        """Queue the reply to a request of a peer; harmless when its link has closed or is gone.

        It leaves with the next `effects()`. Raises LocalProtocolError if no such request waits on the link or the kind
        is not its reply's.
        """
        link = self._links.get(link_id)
        if link is not None:
            link.send_reply(correlation_id, message)
            self._touched[link_id] = None

    def send_request(self, link_id: int, message: Message) -> None:
        """Queue a request; harmless when the link is gone, or not open.

        It leaves with the next `effects()`. Raises LocalProtocolError if the message is no request from here to there.
        """
        link = self._links.get(link_id)
        if link is not None and link.state is _OPEN:
            link.send_request(message)
            self._touched[link_id] = None

    def close(self, link_id: int, reason: str) -> None:
        """We are done with a link."""
        link = self.get(link_id)
        if link and not link.is_closed:
            self._reasons[link_id] = reason
            link.close()

    def next_deadline_ms(self) -> int | None:
        """No later than when `receive_timer` has work, or None; it may be too early, never too late."""
        return self._deadlines[0][0] if self._deadlines else None

    def receive_timer(self, now_ms: int) -> list[tuple[int, LinkEvent]]:
        """The time is now `now_ms`: what became of links whose deadlines have passed."""
        events: list[tuple[int, LinkEvent]] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            deadline_ms, link_id = heapq.heappop(self._deadlines)
            link = self._links.get(link_id)
            if link is None or self._armed.get(link_id) != deadline_ms:
                continue
            del self._armed[link_id]
            self._touch(link_id)
            of_link = link.receive_timer(now_ms)
            self._note_end(link_id, of_link)
            events += [(link_id, event) for event in of_link]
            self._arm(link_id, link)
        return events

    def effects(self) -> list[LinkEffect]:
        """What the links touched since the last call want sent, which want another turn, and which are closed."""
        effects: list[LinkEffect] = []
        for link_id in self._touched:
            link = self._links[link_id]
            data = link.data_to_send()
            if data:
                effects.append(_make_send(link_id, data))
            if link.is_between_frames:
                # Its deadline has not come nearer than the one that is armed.
                if link_id not in self._armed:
                    self._arm(link_id, link)
                continue
            if link.state is _CLOSED:
                effects.append(CloseLink(link_id, self._reasons.get(link_id, "closed by us")))
            elif link.is_backlogged:
                effects.append(Continue(link_id))
            self._arm(link_id, link)
        self._touched.clear()
        return effects

    def _touch(self, link_id: int) -> None:
        self._touched[link_id] = None

    def _arm(self, link_id: int, link: Link) -> None:
        # A deadline that moved later, or went away while we owe an answer, keeps its old entry, which is looked at
        # again when it comes up: an active link so costs a heap operation a timeout, not one a frame.
        deadline_ms = link.next_deadline_ms()
        if deadline_ms is not None:
            armed_ms = self._armed.get(link_id)
            if armed_ms is None or deadline_ms < armed_ms:
                self._armed[link_id] = deadline_ms
                heapq.heappush(self._deadlines, (deadline_ms, link_id))
        elif link.state is _CLOSED:
            self._armed.pop(link_id, None)

    def _note_end(self, link_id: int, events: list[LinkEvent]) -> None:
        """Keep why a link has ended, which its last event tells."""
        if not events:
            return
        end = events[-1]
        if isinstance(end, LinkFailed):
            self._reasons[link_id] = f"protocol: {end.error.text}"
        elif isinstance(end, PeerClosed):
            self._reasons[link_id] = end.text
