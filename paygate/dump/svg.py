"""`--svg`: a sequence diagram as a picture that stands alone: no script, no font, no link to anything (R24).

Every character beyond ASCII is written as a reference, so that the picture is right whatever the output's encoding is.
Widths are computed from the widest common monospaced fonts, 0.62 of their size; in narrower ones texts end sooner.
"""

from collections.abc import Callable
from html import escape
from typing import Final, NamedTuple

from paygate.clock import utc_text
from paygate.dump.display import cut, display_width
from paygate.dump.model import Item
from paygate.dump.rows import Row, Shape, Tip, Tone, since_text
from paygate.dump.sheet import Drawing, Placed, Sheet, left_out_text

FONT_SIZE: Final = 13
SMALL_SIZE: Final = 11
_WIDTH_OF_SIZE: Final = 0.62
CHAR_WIDTH: Final = FONT_SIZE * _WIDTH_OF_SIZE
SMALL_WIDTH: Final = SMALL_SIZE * _WIDTH_OF_SIZE
GAP_MIN: Final = 220
"""Between two lifelines: room for the name of the longest kind."""
GAP_MAX: Final = 480
"""Longer texts are cut: wider pictures need scrolling in a document."""
EDGE: Final = 100
"""Beside the outer lifelines: room for half of a head."""
MARGIN: Final = 24
TIME_WIDTH: Final = 96
"""Left of the first lifeline: room for times up to ten digits."""
LOOP_WIDTH: Final = 40
"""How far an arrow to its own lifeline goes out."""
TOP: Final = 96
"""Where the first row begins, below the heads."""
HEAD_HEIGHT: Final = 28
ROW_HEIGHT: Final = 44
EVENT_HEIGHT: Final = 30
_HEAD_PAD: Final = 10


class _Palette(NamedTuple):
    """Colours by what they mean; contrast to paper and box is at least 4.5, as WCAG 2 asks for small text."""

    ink: str
    faint: str
    line: str
    paper: str
    box: str
    good: str
    bad: str
    doubt: str


_LIGHT: Final = _Palette("#1f2328", "#59636e", "#afb8c1", "#ffffff", "#f0f3f6", "#116329", "#b3141d", "#7d4e00")
_DARK: Final = _Palette("#e6edf3", "#9aa4af", "#5a636e", "#0d1117", "#21262d", "#56d364", "#ff8a80", "#e3b341")


def _colour_rules(p: _Palette) -> str:
    # Not custom properties: several programs that turn SVG into pictures don't know them.
    return (
        f"text,.kind,.plain,.amount{{fill:{p.ink};stroke:{p.paper}}}.small,.faint{{fill:{p.faint}}}"
        f".good{{fill:{p.good}}}.bad{{fill:{p.bad}}}.doubt{{fill:{p.doubt}}}.paper{{fill:{p.paper}}}"
        f".head{{fill:{p.box};stroke:{p.line}}}.note{{fill:{p.box};stroke:{p.bad}}}.life{{stroke:{p.line}}}"
        f".arrow{{stroke:{p.ink}}}.tip{{fill:{p.ink}}}.arrow.event{{stroke:{p.faint}}}.tip.event{{fill:{p.faint}}}"
        f".cross{{stroke:{p.bad}}}"
    )


_STYLE: Final = (
    f"text{{font:{FONT_SIZE}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre;"
    "paint-order:stroke;stroke-width:4px;stroke-linejoin:round}"
    f"text.small{{font-size:{SMALL_SIZE}px}}.kind,.plain,.good,.bad,.doubt{{font-weight:bold}}"
    ".arrow,.cross{fill:none;stroke-width:1.5}.arrow.reply{stroke-dasharray:6 4}.arrow.event{stroke-dasharray:2 4}"
    f"{_colour_rules(_LIGHT)}"
    f"@media(prefers-color-scheme:dark){{{_colour_rules(_DARK)}}}"
    "text.inside{stroke:none}"
)


class Svg:
    """Writes the picture when the input has ended."""

    def __init__(self, write: Callable[[str], None], *, show_secrets: bool) -> None:
        self._write = write
        self._sheet = Sheet(show_secrets=show_secrets)

    def receive(self, item: Item) -> None:
        """Keep what is to be drawn of it."""
        self._sheet.receive(item)

    def finish(self) -> None:
        """Draw it all."""
        self._write(_Picture(self._sheet.drawing()).text())


class _Picture:
    """One drawing on its way to text: x and y in pixels from the top left corner."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._gap = _gap_of(drawing)
        self._begin_ns = next((p.row.time_ns for p in drawing.placed if p.row.time_ns is not None), None)
        self._first_x = float(MARGIN + TIME_WIDTH + EDGE)
        last_x = self._x(len(drawing.labels) - 1)
        has_loop = any(p.sender == p.receiver for p in drawing.placed)
        self._width = last_x + (self._gap if has_loop else EDGE) + MARGIN
        self._parts: list[str] = []

    def text(self) -> str:
        """The whole document."""
        y = float(TOP)
        for placed in self._drawing.placed:
            y = self._row(placed, y)
        if self._drawing.left_out_count:
            text = cut(left_out_text(self._drawing.left_out_count), int((self._width - 2 * MARGIN) / SMALL_WIDTH))
            self._text(MARGIN, y + 20, "small", text)
            y += EVENT_HEIGHT
        height = y + MARGIN
        size = f"{self._width:.0f} {height:.0f}"
        about = f"{len(self._drawing.placed)} messages, events and findings between {', '.join(self._drawing.labels)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self._width:.0f}" '
                f'height="{height:.0f}" role="img" aria-labelledby="title desc">',
                '<title id="title">paygate sequence diagram</title>',
                f'<desc id="desc">{_xml(about)}</desc>',
                f"<style>{_STYLE}</style>",
                '<rect class="paper" width="100%" height="100%"/>',
                *self._lifelines(y),
                *self._parts,
                "</svg>\n",
            ]
        )

    def _x(self, column: int) -> float:
        return self._first_x + column * self._gap

    def _lifelines(self, bottom: float) -> list[str]:
        parts = []
        if self._begin_ns is not None:
            since = f"ms since {utc_text(self._begin_ns // 1_000_000)}"
            parts.append(f'<text class="small" x="{MARGIN}" y="{MARGIN + 6}">{_xml(since)}</text>')
        top = TOP - 16 - HEAD_HEIGHT
        for column, label in enumerate(self._drawing.labels):
            x = self._x(column)
            text = cut(label, int(2 * (EDGE - _HEAD_PAD) / CHAR_WIDTH))
            width = display_width(text) * CHAR_WIDTH + 2 * _HEAD_PAD
            parts += [
                f'<line class="life" x1="{x:.1f}" y1="{top + HEAD_HEIGHT}" x2="{x:.1f}" y2="{bottom:.1f}"/>',
                f'<rect class="head" x="{x - width / 2:.1f}" y="{top}" width="{width:.1f}" height="{HEAD_HEIGHT}" '
                'rx="4"/>',
                f'<text class="kind inside" x="{x:.1f}" y="{top + 19}" text-anchor="middle">{_xml(text)}</text>',
            ]
        return parts

    def _row(self, placed: Placed, y: float) -> float:
        """Draw one row whose room begins at y; returns where it ends."""
        row = placed.row
        if row.time_ns is not None and self._begin_ns is not None:
            x = MARGIN + TIME_WIDTH - 16
            time = since_text(row.time_ns, self._begin_ns)
            self._parts.append(f'<text class="small" x="{x}" y="{y + 22:.1f}" text-anchor="end">{_xml(time)}</text>')
        if row.shape is Shape.FINDING:
            return self._finding(placed, y)
        self._arrow(placed, y + 22)
        # Fields stand below their arrow; a mark without any is lower.
        return y + (ROW_HEIGHT if row.text or row.shape is not Shape.EVENT else EVENT_HEIGHT)

    def _arrow(self, placed: Placed, y: float) -> None:
        row, sender, receiver = placed
        begin, end = self._x(sender), self._x(receiver)
        shape = {Shape.REPLY: " reply", Shape.EVENT: " event"}.get(row.shape, "")
        toward = -1 if end > begin else 1
        # A stroke ends within its tip, so that it does not blunt it.
        stroke_end = end + (0 if row.tip is Tip.NOTHING else 8 * toward)
        if sender == receiver:
            out = begin + LOOP_WIDTH
            path = f"M{begin:.1f} {y - 5:.1f}H{out:.1f}V{y + 5:.1f}H{stroke_end:.1f}"
            y_tip, room = y + 5, self._gap - LOOP_WIDTH - 2 * _HEAD_PAD
            x, y_label, anchor = out + _HEAD_PAD, y, "start"
        else:
            path = f"M{begin:.1f} {y:.1f}H{stroke_end:.1f}"
            y_tip, room = y, abs(end - begin) - 2 * _HEAD_PAD
            x, y_label, anchor = (begin + end) / 2, y - 6, "middle"
        self._parts.append(f'<path class="arrow{shape}" d="{path}"/>')
        if row.tip is Tip.CROSS:
            cross = f"M{end + 8 * toward - 5:.1f} {y_tip - 5:.1f}l10 10m0 -10l-10 10"
            self._parts.append(f'<path class="cross" d="{cross}"/>')
        elif row.tip is Tip.HEAD:
            tip = f"M{end:.1f} {y_tip:.1f}l{9 * toward} -5v10z"
            self._parts.append(f'<path class="tip{shape}" d="{tip}"/>')
        self._label(row, x, y_label, room, anchor)
        if row.text:
            text = _xml(cut(row.text, int(room / SMALL_WIDTH)))
            self._parts.append(f'<text class="small" x="{x:.1f}" y="{y + 14:.1f}" text-anchor="{anchor}">{text}</text>')

    def _label(self, row: Row, x: float, y: float, room: float, anchor: str) -> None:
        """Kind, outcome, amount and latency, as far as they have room."""
        left = int(room / CHAR_WIDTH)
        spans = []
        kind = "faint" if row.shape is Shape.EVENT else "kind"
        for css, word in (
            (kind, row.title),
            (_TONE_CLASSES[row.tone], row.outcome),
            ("amount", row.amount),
            ("faint", row.latency),
        ):
            if not word or left < 2:
                continue
            text = cut(word, left)
            left -= display_width(text) + 1
            spans.append(f'<tspan class="{css}">{_xml(text)}</tspan>')
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{" ".join(spans)}</text>')

    def _finding(self, placed: Placed, y: float) -> float:
        lines = [(line, css) for line, css in ((placed.row.title, "bad"), (placed.row.text, "small")) if line]
        room = self._width - TIME_WIDTH - 2 * MARGIN - 2 * _HEAD_PAD
        cut_lines = [
            (cut(line, int(room / (SMALL_WIDTH if css == "small" else CHAR_WIDTH))), css) for line, css in lines
        ]
        width = 2 * _HEAD_PAD + max(
            display_width(line) * (SMALL_WIDTH if css == "small" else CHAR_WIDTH) for line, css in cut_lines
        )
        # Over the lifeline that it is about, as far as the picture's edges allow.
        x = min(max(self._x(placed.sender) - width / 2, MARGIN + TIME_WIDTH), self._width - MARGIN - width)
        height = 10 + 16 * len(cut_lines)
        self._parts.append(
            f'<rect class="note" x="{x:.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="{height}" rx="4"/>'
        )
        for index, (line, css) in enumerate(cut_lines):
            self._text(x + _HEAD_PAD, y + 21 + 16 * index, f"{css} inside", line)
        return y + height + 14

    def _text(self, x: float, y: float, css: str, text: str) -> None:
        self._parts.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{_xml(text)}</text>')


_TONE_CLASSES: Final = {Tone.PLAIN: "plain", Tone.GOOD: "good", Tone.BAD: "bad", Tone.DOUBT: "doubt"}


def _gap_of(drawing: Drawing) -> float:
    """Between two lifelines: what the longest label or text of an arrow between neighbours needs, within bounds."""
    needed = [float(GAP_MIN)]
    for row, sender, receiver in drawing.placed:
        if row.shape is not Shape.FINDING and abs(sender - receiver) == 1:
            needed.append(display_width(row.label) * CHAR_WIDTH + 2 * _HEAD_PAD)
            needed.append(display_width(row.text) * SMALL_WIDTH + 2 * _HEAD_PAD)
    # Rounded up, so that what was just computed to fit does.
    return float(min(max(needed) + 1, GAP_MAX))


def _xml(text: str) -> str:
    return escape(text).encode("ascii", "xmlcharrefreplace").decode()
