"""A database that is gone or empty while the text records beside it tell of payments was lost (T32).

One that is made anew in its place would have forgotten them: a bank would post them again, a gateway would let their
tokens be paid again and take their lines, the last that tells of them, out of its record.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from paygate.files.file_errors import check_regular, unusable
from paygate.files.layout import FieldProblem, Layout
from paygate.files.sqlite import StoreCorrupt


def refuse_lost(
    store: Path, layout: Layout, program: str, is_payment: Callable[[tuple[str, ...]], bool] = lambda _: True
) -> None:
    """Before a server's store is opened, which makes it if it is not there; `layout` is that of the payments' record.

    Raises StoreCorrupt if the store was lost, StateError if the record can't be read.
    """
    with contextlib.suppress(FileNotFoundError):
        if store.stat().st_size:
            return
    record = store.with_name(layout.file_name)
    try:
        check_regular(record)
        with contextlib.suppress(FileNotFoundError), record.open("rb") as file:
            count = sum(is_payment(fields) for line in file if (fields := _fields(layout, line)))
            if count:
                raise StoreCorrupt(
                    f"{store} is {'empty' if store.exists() else 'not there'}, and {record.name} tells of {count} "
                    f"payments: restore it from a backup ('{program} restore'); if there was none, move {record} away"
                )
    except OSError as error:
        raise unusable(error, record) from None


def _fields(layout: Layout, line: bytes) -> tuple[str, ...]:
    """A record's fields; none of a comment or a line that is no record."""
    if line.lstrip().startswith(b"#"):
        return ()
    try:
        return layout.parse(line)
    except FieldProblem:
        return ()
