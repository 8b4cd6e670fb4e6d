"""`--ladder`: a sequence diagram in the terminal, line by line as it comes (R24).

Three lines stand for the three roles, whoever plays them; the number of the connection tells them apart. That keeps
every column where it is, however many clients come and go while a live capture runs:

    ms since 2026-01-02T00:00:00.000Z
                     client                gateway                   bank
         0.000    #2 │─ TokenQuery ──────────▶│ transaction=TX-1001    │
         1.204    #2 │◀ TokenAck VALID ┄┄┄┄┄┄┄│ 1.20 ms session=003e98…│

What an arrow tells stands beside it, where the other link has its arrows. Nothing is ever wider than the terminal.
"""

import textwrap
from collections.abc import Callable
from typing import Final, NamedTuple

from paygate.clock import utc_text
from paygate.codec.codes import Role
from paygate.dump.display import cut, display_width, pad
from paygate.dump.model import Item, StreamEvent, StreamNote
from paygate.dump.output import Colours
from paygate.dump.participants import Ends, Roles
from paygate.dump.rows import TIME_WIDTH, Row, Rows, Shape, Tip, Tone, since_text
from paygate.escape import escape_line

WIDTH_MIN: Final = 40
"""Columns below which no arrow has room; a narrower terminal gets lines of this width."""
FLOW_WIDTH: Final = 5
"""`#9999`; larger numbers lose their first digits."""
_LEFT: Final = TIME_WIDTH + 1 + FLOW_WIDTH + 1

FINDING_LINE_COUNT_MAX: Final = 4
"""Lines for what a finding expected and got: as much as the longest of them needs in 80 columns."""


class Glyphs(NamedTuple):
    """What lines and arrows are drawn with."""

    lifeline: str
    request: str
    reply: str
    event: str
    right: str
    left: str
    finding: str
    ellipsis: str
    is_ascii: bool


BOX: Final = Glyphs("│", "─", "┄", "·", "▶", "◀", "✗", "…", is_ascii=False)
ASCII: Final = Glyphs("|", "-", ".", " ", ">", "<", "x", "...", is_ascii=True)


def glyphs_for(encoding: str | None) -> Glyphs:
    """The glyphs that an output of this encoding can show."""
    try:
        "".join(BOX[:-1]).encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BOX


Paint = Callable[[str], str]


class Ladder:
    """Draws each item at once; what one frame takes is bounded, and so is what is kept."""

    def __init__(
        self,
        write: Callable[[str], None],
        colours: Colours,
        *,
        width: int,
        show_secrets: bool,
        glyphs: Glyphs = BOX,
    ) -> None:
        self._write = write
        self._colours = colours
        self._width = max(width, WIDTH_MIN)
        self._span = (self._width - _LEFT - 1) // 2
        # Around a label stand a stroke, a blank at both ends, and the arrow's head.
        self._label_room = self._span - 1 - 4
        self._rows_of = Rows(show_secrets=show_secrets).of
        self._glyphs = glyphs
        self._roles = Roles()
        self._begin_ns: int | None = None
        self._has_head = False
        self._unfinished_count = 0
        self._paints: dict[Tone, Paint] = {
            Tone.PLAIN: str,
            Tone.GOOD: colours.good,
            Tone.BAD: colours.bad,
            Tone.DOUBT: colours.doubt,
        }

    def receive(self, item: Item) -> None:
        """Draw it."""
        if isinstance(item, StreamNote) and item.event is StreamEvent.CAPTURE_ENDED:
            self._unfinished_count += 1
            return
        for row in self._rows_of(item):
            if not self._has_head:
                self._draw_head(row.time_ns)
            self._draw(row)

    def finish(self) -> None:
        """Say what was still open."""
        if self._unfinished_count:
            plural = "s" if self._unfinished_count > 1 else ""
            text = f"the capture ended with {self._unfinished_count} connection{plural} open"
            self._write(self._colours.faint(cut(" " * _LEFT + text, self._width, self._glyphs.ellipsis)) + "\n")

    def _draw_head(self, time_ns: int | None) -> None:
        self._has_head = True
        self._begin_ns = time_ns
        if time_ns is not None:
            since = f"ms since {utc_text(time_ns // 1_000_000)}"
            self._write(self._colours.faint(cut(since, self._width, self._glyphs.ellipsis)) + "\n")
        client, gateway, bank = (role.name.lower() for role in Role)
        width = 2 * self._span + 1
        middle = self._span - len(gateway) // 2
        heads = pad(pad(client, middle) + gateway, width - len(bank)) + bank
        self._write(f"{' ' * _LEFT}{self._colours.party(heads)}\n")

    def _draw(self, row: Row) -> None:
        ends = self._roles.ends(row.flow, row.side, row.ends) if row.flow is not None else None
        margin = self._margin(row)
        if row.shape is Shape.FINDING:
            self._draw_finding(row, margin)
        elif ends is None:
            self._draw_strangers(row, margin)
        else:
            self._write(f"{margin}{self._arrow(row, ends)}\n")

    def _margin(self, row: Row) -> str:
        number = f"#{row.flow.number}" if row.flow is not None else ""
        if len(number) > FLOW_WIDTH:
            number = number[-FLOW_WIDTH:]
        time_ns, begin_ns = row.time_ns, self._begin_ns
        time = since_text(time_ns, begin_ns) if time_ns is not None and begin_ns is not None else ""
        return self._colours.faint(f"{time:>{TIME_WIDTH}} {number:>{FLOW_WIDTH}}") + " "

    def _arrow(self, row: Row, ends: Ends) -> str:
        """Lifelines with the arrow of one row between two of them, and what it tells between the others."""
        glyphs, colours = self._glyphs, self._colours
        room = self._label_room
        title = cut(row.title, room, glyphs.ellipsis)
        room -= len(title)
        label = colours.faint(title) if row.shape is Shape.EVENT else colours.kind(title)
        beside = []
        extras = [(code, self._paints[row.tone]) for code in row.outcome.split()]
        extras += [(row.amount, str)] if row.amount else []
        extras += [(self._text(row.latency), colours.faint)] if row.latency else []
        for extra, paint in extras:
            # What has no room on the arrow stands beside it.
            if len(extra) + 1 > room:
                beside.append(extra)
            else:
                room -= len(extra) + 1
                label += f" {paint(extra)}"
        arrow = self._stroked(row, label, room, is_rightward=ends.sender < ends.receiver)
        text = self._beside(row, " ".join([*beside, self._text(row.text)]))
        left, right = (arrow, text) if Role.CLIENT in ends else (text, arrow)
        return f"{glyphs.lifeline}{left}{glyphs.lifeline}{right}{glyphs.lifeline}"

    def _stroked(self, row: Row, label: str, rest: int, *, is_rightward: bool) -> str:
        glyphs = self._glyphs
        stroke = {Shape.REQUEST: glyphs.request, Shape.REPLY: glyphs.reply}.get(row.shape, glyphs.event)
        head = glyphs.right if is_rightward else glyphs.left
        tip = {Tip.HEAD: head, Tip.CROSS: glyphs.finding, Tip.NOTHING: stroke}[row.tip]
        return f"{stroke} {label} {stroke * rest}{tip}" if is_rightward else f"{tip} {label} {stroke * (rest + 1)}"

    def _beside(self, row: Row, text: str) -> str:
        room = self._span - 2
        text = cut(text, room, self._glyphs.ellipsis)
        paint = self._colours.faint if row.shape is Shape.EVENT else str
        return f" {paint(text)}{' ' * (room - display_width(text))}"

    def _draw_strangers(self, row: Row, margin: str) -> None:
        """Ends that stand on none of the three lines: one line of text with their addresses."""
        assert row.flow is not None
        sender, receiver = row.flow.endpoint(row.side), row.flow.endpoint(row.side.other)
        words = [
            escape_line(f"{sender} {self._glyphs.right} {receiver}"),
            row.title,
            row.outcome,
            row.latency,
            row.text,
        ]
        self._draw_text(margin, " ".join(word for word in words if word), self._paints[row.tone])

    def _draw_finding(self, row: Row, margin: str) -> None:
        self._draw_text(margin, f"{self._glyphs.finding} {row.title}", self._colours.bad)
        lines = textwrap.wrap(self._text(row.text), self._width - _LEFT - 4, break_on_hyphens=False)
        for line in lines[:FINDING_LINE_COUNT_MAX]:
            self._draw_text(" " * _LEFT, f"  {line}", self._colours.bad)

    def _draw_text(self, margin: str, text: str, paint: Paint) -> None:
        room = self._width - _LEFT - 2
        self._write(f"{margin}{self._glyphs.lifeline} {paint(cut(self._text(text), room, self._glyphs.ellipsis))}\n")

    def _text(self, text: str) -> str:
        """What the terminal's encoding can show of it; the rest as escapes."""
        return text.encode("ascii", "backslashreplace").decode() if self._glyphs.is_ascii else text
