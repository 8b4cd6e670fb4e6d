"""The default output of `paygate-dump`: one line a frame, with what is wrong below it (R24).

    2026-11-24
    12:00:01.123456   1 client shop -> gateway GW1  TokenQuery          #2   transaction=TX-1001 passcode=<secret>
    12:00:01.125801   1 gateway GW1 -> client shop  TokenAck            #2   VALID …  answers TokenQuery after 2.3 ms

Everything that comes from a peer or a file goes through `paygate.escape` before it is printed (T21).
"""

from collections.abc import Callable
from datetime import date
from typing import Final

from paygate.codec.codes import Kind, Role
from paygate.codec.messages import MESSAGES
from paygate.dump.model import NANOSECONDS_PER_SECOND, Finding, Flow, Item, SeenFrame, Side, StreamEvent, StreamNote
from paygate.dump.output import Colours, latency_text
from paygate.dump.participants import ends_of_kind
from paygate.dump.summary import Summary, summary
from paygate.escape import escape_line

__all__ = ["Lines", "finding_text", "summary"]

PARTIES_WIDTH_MAX: Final = 64
"""Columns up to which a line's kind is aligned with the lines above; two longest party IDs may take more."""
_PARTIES_WIDTH_MIN: Final = 30
_TIME_WIDTH: Final = len("12:00:01.123456")
_KIND_WIDTH: Final = max(len(declared.__name__) for declared in MESSAGES.values())
_SECONDS_PER_DAY: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_INDENT: Final = " " * (_TIME_WIDTH + 5)


class Lines:
    """Writes a line for each frame, finding and connection, as they come."""

    def __init__(self, write: Callable[[str], None], colours: Colours, *, show_secrets: bool = False) -> None:
        self._write = write
        self._colours = colours
        self._summary = Summary(colours, show_secrets=show_secrets)
        self._kinds = {
            kind: colours.kind(declared.__name__) + " " * (_KIND_WIDTH - len(declared.__name__))
            for kind, declared in MESSAGES.items()
        }
        self._parties_width = _PARTIES_WIDTH_MIN
        self._second: int | None = None
        self._second_text = ""
        self._day: int | None = None
        self._open_flow_count = 0

    def receive(self, item: Item) -> None:
        """Write it."""
        if type(item) is SeenFrame:
            self._write(f"{self.frame_line(item)}\n{self.findings_below(item)}")
        elif type(item) is Finding:
            self._write(self._finding_line(item))
        elif type(item) is StreamNote:
            if item.event is StreamEvent.CAPTURE_ENDED:
                self._open_flow_count += 1
            elif item.event is not StreamEvent.CLOSED:  # which FIN or RST have told
                self._write(self._note_line(item))

    def finish(self) -> None:
        """Tell of connections that the capture left open."""
        if self._open_flow_count:
            count = f"{self._open_flow_count} connection{'' if self._open_flow_count == 1 else 's'}"
            self._write(f"{self._colours.faint(f'the capture ended with {count} open')}\n")

    def frame_line(self, frame: SeenFrame) -> str:
        """A frame's line without its end, a new day's line before it."""
        kind, message, colours = frame.frame.kind, frame.message, self._colours
        text = colours.bad("a broken body") if message is None else self._summary.text(kind, message, frame.opened)
        answered = frame.answers
        if answered is not None:
            after = f" after {latency_text(frame.latency_ns)}" if frame.latency_ns is not None else ""
            text += "  " + colours.faint(f"answers {MESSAGES[answered.frame.kind].__name__}{after}")
        parties = self._parties(frame.flow, frame.side, kind)
        return f"{self._time(frame.time_ns)} {parties} {self._kinds[kind]} #{frame.frame.correlation_id:<3} {text}"

    def findings_below(self, frame: SeenFrame) -> str:
        """What is wrong with a frame, a line each; empty if nothing is."""
        if not frame.findings:
            return ""
        return "".join([f"{_INDENT}{self._finding(finding)}\n" for finding in frame.findings])

    # -- parts of lines ------------------------------------------------------------------------------------

    def _time(self, time_ns: int | None) -> str:
        # A line for a new day stands before the line that is the first of that day.
        if time_ns is None:
            return "-".ljust(_TIME_WIDTH)
        second, rest_ns = divmod(time_ns, NANOSECONDS_PER_SECOND)
        new_day = ""
        if second != self._second:
            self._second = second
            day, second_of_day = divmod(second, _SECONDS_PER_DAY)
            minute, seconds = divmod(second_of_day, 60)
            self._second_text = f"{minute // 60:02}:{minute % 60:02}:{seconds:02}"
            if day != self._day:
                self._day = day
                new_day = f"{self._colours.faint(_date_text(day))}\n"
        return new_day + self._colours.faint(f"{self._second_text}.{rest_ns // 1_000:06}")

    def _parties(self, flow: Flow, side: Side, kind: Kind | None) -> str:
        if flow.knows_sides or kind is None:
            sender, receiver = _who(flow, side), _who(flow, side.other)
        else:
            # Nobody knows which end sent it, but most kinds have one legal sender.
            ends = ends_of_kind(kind)
            sender, receiver = (_ROLE_NAMES[ends.sender], _ROLE_NAMES[ends.receiver]) if ends else ("?", "?")
        return self._ends(flow, sender, receiver)

    def _ends(self, flow: Flow, sender: str, receiver: str) -> str:
        width = len(sender) + len(receiver) + 4
        if width > self._parties_width:
            self._parties_width = min(width, PARTIES_WIDTH_MAX)
        colour = self._colours.party
        return f"{flow.number:3} {colour(sender)} -> {colour(receiver)}" + " " * (self._parties_width - width)

    def _finding(self, finding: Finding) -> str:
        return self._colours.bad(f"! {finding_text(finding)}")

    def _finding_line(self, finding: Finding) -> str:
        parties = f"{self._parties(finding.flow, finding.side, None)} " if finding.flow is not None else ""
        return f"{self._time(finding.time_ns)} {parties}{self._finding(finding)}\n"

    def _note_line(self, note: StreamNote) -> str:
        size = f", {note.size} byte{'' if note.size == 1 else 's'}" if note.size else ""
        text = self._colours.faint(f"{note.event.value}{size}")
        # Roles are what all other lines show; which addresses a flow has stands here.
        flow, side = note.flow, note.side
        parties = self._ends(flow, _address(flow, side), _address(flow, side.other))
        return f"{self._time(note.time_ns)} {parties} {text}\n"


def finding_text(finding: Finding) -> str:
    """What is wrong, where, what was expected, what stands there, and which section says so. Safe to print."""
    where = [f"offset {finding.offset}"] if finding.offset is not None else []
    if finding.path:
        where.append(finding.path)
    at = f" at {', '.join(where)}" if where else ""
    expected = f": expected {finding.expected}" if finding.expected else ""
    got = f"{', ' if expected else ': '}got {finding.got}" if finding.got else ""
    section = f" (spec {finding.section})" if finding.section else ""
    return escape_line(f"{finding.name}{at}{expected}{got}{section}")


_ROLE_NAMES: Final = {role: role.name.lower() for role in Role}


def _who(flow: Flow, side: Side) -> str:
    """A role with its party's ID, if they are known; else the address."""
    role = flow.roles[side]
    if role is None:
        return _address(flow, side)
    party_id, name = flow.party_ids[side], _ROLE_NAMES[role]
    # Clients mostly call themselves just that.
    return f"{name} {escape_line(party_id)}" if party_id not in ("", name) else name


def _address(flow: Flow, side: Side) -> str:
    return escape_line(str(flow.endpoint(side)))


def _date_text(day: int) -> str:
    """The date of a day since 1970-01-01; of one that no calendar has, its number."""
    try:
        return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()
    except (ValueError, OverflowError):  # A file may claim any time.
        return f"day {day} since 1970-01-01"
