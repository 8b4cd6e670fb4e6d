"""`--mermaid`: a sequence diagram as Mermaid text, for a document (R24).

The grammar is Mermaid 11's `sequenceDiagram`. In it `;` and a line break end a statement, `#` begins a character
reference, `%%{` a directive and `$$` a formula, and texts are HTML at the end. So of every text only letters, digits
and harmless signs of ASCII stand as they are; all else is a reference such as `#59;`. Times are left to the ladder and
to SVG; an answer's latency is shown.
"""

import re
from collections.abc import Callable
from typing import Final

from paygate.dump.display import cut
from paygate.dump.model import Item
from paygate.dump.rows import Shape, Tip
from paygate.dump.sheet import Placed, Sheet, left_out_text

TEXT_WIDTH: Final = 64
"""Columns of a text; Mermaid moves lifelines apart until the longest text fits, and then nothing is readable."""
DIAGRAM_SIZE_MAX: Final = 49_000
"""Characters: Mermaid refuses a text of more than 50,000 unless it is told otherwise (`maxTextSize`)."""
_INDENT: Final = "    "
_TO_ESCAPE: Final = re.compile(r"[^A-Za-z0-9 .,_=+()/-]")
_ARROWS: Final = {Shape.REQUEST: "->>", Shape.REPLY: "-->>"}
_EVENT_ARROWS: Final = {Tip.HEAD: "--)", Tip.CROSS: "--x", Tip.NOTHING: "-->"}


class Mermaid:
    """Writes the diagram when the input has ended."""

    def __init__(self, write: Callable[[str], None], *, show_secrets: bool) -> None:
        self._write = write
        self._sheet = Sheet(show_secrets=show_secrets)

    def receive(self, item: Item) -> None:
        """Keep what is to be drawn of it."""
        self._sheet.receive(item)

    def finish(self) -> None:
        """Draw it all."""
        drawing = self._sheet.drawing()
        lines = ["sequenceDiagram"]
        lines += [f"{_INDENT}participant P{n} as {mermaid_text(label)}" for n, label in enumerate(drawing.labels)]
        size = sum(map(len, lines))
        left_out_count = drawing.left_out_count
        for index, placed in enumerate(drawing.placed):
            line = f"{_INDENT}{_statement(placed)}"
            size += len(line) + 1
            if size > DIAGRAM_SIZE_MAX:
                left_out_count += len(drawing.placed) - index
                break
            lines.append(line)
        if left_out_count:
            note = _note(0, len(drawing.labels) - 1, mermaid_text(left_out_text(left_out_count)))
            lines.append(f"{_INDENT}{note}")
        self._write("\n".join(lines) + "\n")


def mermaid_text(text: str) -> str:
    """`text` as Mermaid shows it literally, in ASCII and on one line."""
    return _TO_ESCAPE.sub(lambda match: f"#{ord(match[0])};", text)


def _statement(placed: Placed) -> str:
    row, sender, receiver = placed
    # A line break of ours, the only markup.
    text = "<br/>".join(mermaid_text(cut(line, TEXT_WIDTH)) for line in (row.label, row.text) if line)
    if row.shape is Shape.FINDING:
        return _note(sender, sender if row.flow is not None else receiver, text)
    arrow = _ARROWS.get(row.shape) or _EVENT_ARROWS[row.tip]
    return f"P{sender}{arrow}P{receiver}: {text}"


def _note(first: int, last: int, text: str) -> str:
    over = f"P{first}" if first == last else f"P{first},P{last}"
    return f"Note over {over}: {text}"
