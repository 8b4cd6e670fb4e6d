"""What a sequence diagram in a document shows: rows and lifelines, put in order when everything has been seen.

A document's diagram needs all of its lifelines before its first arrow, so its rows are kept; their number is bounded.
"""

from typing import Final, NamedTuple

from paygate.dump.model import Item, SeenFrame
from paygate.dump.participants import Lifelines, Roles, lifelines_of
from paygate.dump.rows import Row, Rows

ROW_COUNT_MAX: Final = 500
"""More rows nobody reads as a diagram."""


class Placed(NamedTuple):
    """A row between two columns, each counted from 0."""

    row: Row
    sender: int
    receiver: int


class Drawing(NamedTuple):
    """All of a diagram: `labels` name the columns from left to right."""

    labels: list[str]
    placed: list[Placed]
    left_out_count: int
    """Rows behind the last one that are not drawn."""


def left_out_text(count: int) -> str:
    """What a diagram says at its end of `count` rows that it leaves out."""
    return f"{count} more rows are not shown; choose fewer frames, as with --follow or --flow"


class Sheet:
    """Collects the rows of a diagram."""

    def __init__(self, *, show_secrets: bool) -> None:
        self._rows_of = Rows(show_secrets=show_secrets).of
        self._roles = Roles()
        self._rows: list[Row] = []
        self._left_out_count = 0

    def receive(self, item: Item) -> None:
        """Keep what is to be drawn of it, up to ROW_COUNT_MAX rows; count the rest."""
        if len(self._rows) >= ROW_COUNT_MAX and isinstance(item, SeenFrame):
            # As many as it would be; most of a large capture comes here.
            self._left_out_count += 1 + len(item.findings)
            return
        for row in self._rows_of(item):
            if len(self._rows) < ROW_COUNT_MAX:
                self._rows.append(row)
            else:
                self._left_out_count += 1

    def drawing(self) -> Drawing:
        """The whole diagram, with what has become known of every flow by now."""
        crossings = [
            lifelines_of(row.flow, row.side, self._roles.ends(row.flow, row.side, row.ends))
            if row.flow is not None
            else None
            for row in self._rows
        ]
        lines = Lifelines(crossing for crossing in crossings if crossing is not None)
        labels = lines.labels or ["no paygate traffic"]
        placed = [
            Placed(row, lines.column(crossing[0]), lines.column(crossing[1]))
            if crossing is not None
            # About the input as a whole.
            else Placed(row, 0, len(labels) - 1)
            for row, crossing in zip(self._rows, crossings, strict=True)
        ]
        return Drawing(labels, placed, self._left_out_count)
