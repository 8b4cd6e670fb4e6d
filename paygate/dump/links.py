"""Who speaks, what answers what, and whether a link keeps to the protocol: what one frame alone does not tell.

Strategy: a flow begins with nothing known of it. Hello and HelloAck say who its ends are; where the capture began
later, the first kind that has one legal sender does (spec 4.2). A request waits under its sender and correlation ID
until its reply takes it away (spec 5.2).

What a receiver would refuse is a finding (`paygate.dump.link_rules`). A link whose ends have refused something is over
(spec 5.3), so of several faults of one frame the first counts. Bytes without sides may be anything that somebody
pasted, so they are matched, but not judged.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from paygate.codec.codes import Kind
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import Error
from paygate.dump.envelopes import EnvelopeOpener
from paygate.dump.findings import OwnFinding
from paygate.dump.identities import Identities
from paygate.dump.link_rules import (
    REPLY_KINDS,
    TRAITS,
    Fault,
    LinkSeen,
    Traits,
    finding_of,
    kind_name,
    learn_ends,
    state_fault,
    unexpected,
)
from paygate.dump.model import Finding, Flow, FlowKind, Item, SeenFrame, StreamEvent, StreamNote

FLOW_COUNT_MAX: Final = 16_384
"""Flows that are remembered at once; more than a server's descriptors allow, and some 10 MB."""
FLOW_WAITING_COUNT_MAX: Final = 8_192
"""Requests that may wait in one flow: twice the 4096 that a server must serve (PG-LNK-6), since both ends may ask."""
WAITING_COUNT_MAX: Final = 16_384
"""Requests that may wait in all flows: four full links; some 50 MB if each holds the largest envelope."""
LISTED_COUNT_MAX: Final = 4
"""Requests that an UNANSWERED finding names; it counts the others."""


class Links:
    """Annotates frames: roles, answers, latency, IDs, what their envelopes hold; and judges what links do."""

    def __init__(self, opener: EnvelopeOpener | None = None) -> None:
        self._opener = opener
        self._identities = Identities(opener)
        self._links: OrderedDict[Flow, LinkSeen] = OrderedDict()
        self._waiting_count = 0

    @property
    def waiting_count(self) -> int:
        """How many requests are held because their answer has not been seen yet."""
        return self._waiting_count

    def receive(self, item: Item) -> Iterable[Item]:
        """The item again, completed, and findings that it leads to."""
        if type(item) is SeenFrame:
            self._receive_frame(item)
        elif type(item) is StreamNote:
            return self._receive_note(item)
        elif type(item) is Finding and item.flow is not None:
            # Where bytes are missing or were no frame, there may have been a frame.
            link = self._link_of(item.flow)
            link.is_whole = False
            link.lose(item.side if item.flow.knows_sides else None)
        return (item,)

    def finish(self) -> Iterable[Item]:
        """What is still open when the input has ended."""
        found = [
            finding
            for flow, link in self._links.items()
            # Pasted bytes are often one half of a conversation.
            if flow.kind is not FlowKind.BYTES and (finding := _unanswered(flow, link, None)) is not None
        ]
        unused = self._opener.finish() if self._opener is not None else None
        return [*found, unused] if unused is not None else found

    # -- flows -----------------------------------------------------------------------------------------

    def _link_of(self, flow: Flow) -> LinkSeen:
        link = self._links.get(flow)
        if link is not None:
            self._links.move_to_end(flow)
            return link
        link = self._links[flow] = LinkSeen()
        if len(self._links) > FLOW_COUNT_MAX:
            self._forget(next(iter(self._links)))
        return link

    def _forget(self, flow: Flow) -> LinkSeen | None:
        link = self._links.pop(flow, None)
        if link is not None:
            self._waiting_count -= len(link.waiting)
        return link

    def _receive_note(self, note: StreamNote) -> Iterable[Item]:
        event = note.event
        if event is StreamEvent.OPENED:
            link = self._link_of(note.flow)
            link.is_whole = link.is_opened = True
        elif event is StreamEvent.STARTED_LATE:
            self._link_of(note.flow).is_whole = False
        elif event is StreamEvent.IMPLAUSIBLE:
            # Bytes were left out.
            self._link_of(note.flow).lose(note.side)
        elif event is StreamEvent.DROPPED:
            self._forget(note.flow)
        elif event is StreamEvent.CLOSED or event is StreamEvent.CAPTURE_ENDED:
            ended = self._forget(note.flow)
            finding = _unanswered(note.flow, ended, note) if ended is not None else None
            if finding is not None:
                return (note, finding)
        return (note,)

    # -- frames ----------------------------------------------------------------------------------------

    def _receive_frame(self, frame: SeenFrame) -> None:
        flow = frame.flow
        link = self._link_of(flow)
        kind = frame.frame.kind
        traits = TRAITS[kind]
        if not link.has_frames:
            link.has_frames = True
            if kind is Kind.HELLO:
                # It is the first frame of every link (PG-LNK-1), so nothing was before it.
                link.is_whole = True
        has_sides = flow.knows_sides
        if not has_sides:
            # Pasted bytes may come from several links, one behind the other.
            link.is_whole = False
        if traits.tells_ends:
            learn_ends(flow, frame, traits)
        # The state is judged before the answer that may change it.
        fault = state_fault(link, frame, traits) if has_sides else None
        if traits.is_request:
            match_fault = self._receive_request(link, frame, traits)
        else:
            match_fault = self._receive_answer(link, frame)
        fault = fault or match_fault
        not_opened = self._identities.identify(frame)
        if fault is not None:
            frame.findings += (finding_of(frame, fault),)
        if not_opened is not None:
            frame.findings += (not_opened,)

    def _receive_request(self, link: LinkSeen, frame: SeenFrame, traits: Traits) -> Fault | None:
        correlation_id = frame.frame.correlation_id
        assert traits.reply is not None
        key = (int(frame.side) if frame.flow.knows_sides else int(traits.reply), correlation_id)
        waiting = link.waiting
        is_repeated = key in waiting
        waiting[key] = frame
        link.asked_index = frame.index
        if is_repeated:
            if link.is_whole:
                expected = "a correlation ID under which no request of this end waits"
                got = f"{correlation_id}, under which one waits"
                return Fault(ErrorCode.DUPLICATE_CORRELATION, "correlation_id", expected, got, "5.2")
            return None
        self._waiting_count += 1
        if len(waiting) > FLOW_WAITING_COUNT_MAX:
            waiting.popitem(last=False)
            self._waiting_count -= 1
            link.is_whole = False
        while self._waiting_count > WAITING_COUNT_MAX:
            # Of the flow that was quiet for longest. It can't be the only one: a flow has a smaller bound.
            self._forget(next(iter(self._links)))
        return None

    def _receive_answer(self, link: LinkSeen, frame: SeenFrame) -> Fault | None:
        kind = frame.frame.kind
        message = frame.message
        correlation_id = frame.frame.correlation_id
        waiting = link.waiting
        if kind is Kind.ERROR and type(message) is Error and message.closes:
            # Nobody looks at the correlation ID of such an Error (PG-ERR-4).
            self._receive_closing_error(link, frame)
            return None
        key = (1 - frame.side, correlation_id) if frame.flow.knows_sides else (int(kind), correlation_id)
        if kind is Kind.ERROR and not frame.flow.knows_sides:
            key = next((k for k in ((int(r), correlation_id) for r in REPLY_KINDS) if k in waiting), key)
        request = waiting.get(key)
        if request is None:
            if kind is Kind.HELLO_ACK:
                was_open, link.is_open = link.is_open, True
                if was_open and link.is_whole:
                    return unexpected("one HelloAck in a link", "another", "5.3")
            if not link.is_whole or message is None:
                return None
            expected = "a correlation ID under which a request waits"
            got = f"{correlation_id}, under which none waits"
            return Fault(ErrorCode.UNKNOWN_CORRELATION, "correlation_id", expected, got, "5.2")
        asked = request.frame.kind
        if kind is not Kind.ERROR and TRAITS[asked].reply is not kind:
            if not link.is_whole:
                return None
            reply = TRAITS[asked].reply
            assert reply is not None
            return unexpected(
                f"{kind_name(reply)}, since {kind_name(asked)} waits under {correlation_id}", kind_name(kind), "5.2"
            )
        del waiting[key]
        self._waiting_count -= 1
        if kind is Kind.HELLO_ACK:
            link.is_open = True
        frame.answers = request
        if frame.time_ns is not None and request.time_ns is not None and frame.time_ns >= request.time_ns:
            frame.latency_ns = frame.time_ns - request.time_ns
        return None

    def _receive_closing_error(self, link: LinkSeen, frame: SeenFrame) -> None:
        if link.closed_by[frame.side]:
            return
        link.closed_by[frame.side] = True
        if not link.is_open:
            # It says itself why there is no HelloAck.
            for key in [key for key, request in link.waiting.items() if request.frame.kind is Kind.HELLO]:
                del link.waiting[key]
                self._waiting_count -= 1


def _unanswered(flow: Flow, link: LinkSeen, note: StreamNote | None) -> Finding | None:
    """The finding about what still waits in vain; `note` tells of the connection's end, None of the input's."""
    requests = link.unanswered
    if not requests:
        return None
    first = requests[0]
    listed = [f"{kind_name(r.frame.kind)} {r.frame.correlation_id}" for r in requests[:LISTED_COUNT_MAX]]
    if len(requests) > LISTED_COUNT_MAX:
        listed.append(f"{len(requests) - LISTED_COUNT_MAX} more")
    is_closed = note is not None and note.event is StreamEvent.CLOSED
    return Finding(
        name=OwnFinding.UNANSWERED.name,
        expected="a reply before the connection ended" if is_closed else "a reply, perhaps after the capture's end",
        got=f"none to {', '.join(listed)}",
        section="5.2",
        number=note.number if note is not None else first.number,
        time_ns=note.time_ns if note is not None else None,
        flow=flow,
        side=first.side,
        offset=first.offset,
        frame_offset=first.offset,
    )
