"""The gateway's text records against its store (R13 to R15)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import apsw

from paygate.audit.findings import Check, Finding, check_of
from paygate.audit.text_files import REBUILT, TextFile, text_lines
from paygate.files.text_records import FieldProblem
from paygate.gateway.audit import tokens_in_flight
from paygate.gateway.record_lines import (
    CONNECTIONS_LAYOUT,
    PAYMENTS_LAYOUT,
    REFUSED,
    TOKENS_LAYOUT,
    payment_row,
    token_row,
)
from paygate.gateway.token_tables import all_payments, all_tokens
from paygate.gateway.tokens import TokenState

_OUTCOME: Final = [column.name for column in PAYMENTS_LAYOUT.columns].index("outcome")


def record_checks(directory: Path, connection: apsw.Connection) -> Iterator[Check]:
    """Each of the three files; the store must be whole."""
    in_flight = tokens_in_flight(connection)

    def token_rows() -> Iterator[tuple[str, ...]]:
        for token in all_tokens(connection):
            is_in_flight = token.transaction_id in in_flight
            yield token_row(replace(token, state=TokenState.IN_FLIGHT) if is_in_flight else token)

    yield TextFile(directory, TOKENS_LAYOUT, TOKENS_LAYOUT.columns[0].name, token_rows(), is_shared=True).check()
    yield TextFile(
        directory,
        PAYMENTS_LAYOUT,
        "payment ID",
        map(payment_row, all_payments(connection)),
        is_known_elsewhere=lambda fields: fields[_OUTCOME] == REFUSED,
        unknown_remedy="was an older copy of the store restored? 'reconcile' with the bank's export brings it back",
    ).check()
    yield _connections(directory)


def _connections(directory: Path) -> Check:
    """T22: each connection that began has ended, once; one that a kill left open is closed at the next start."""
    name = CONNECTIONS_LAYOUT.file_name
    is_open: dict[str, int] = {}
    count = 0

    def findings() -> Iterator[Finding]:
        nonlocal count
        try:
            for number, line in text_lines(directory / name):
                count += 1
                try:
                    _, event, link, *_ = CONNECTIONS_LAYOUT.parse(line)
                except FieldProblem as bad:
                    yield _finding(number, f"can't be read: {CONNECTIONS_LAYOUT.problem(number, bad)}", "a row")
                    continue
                if event == "connected":
                    if link in is_open:
                        yield _finding(number, f"connects link {link}, which is open", "a disconnect between them")
                    is_open[link] = number
                elif event == "disconnected" and is_open.pop(link, None) is None:
                    yield _finding(number, f"disconnects link {link}, which is not open", "a connect before it")
        except OSError as error:
            yield Finding(name, "file", "", f"can't be read ({error.strerror})", "the file", REBUILT)

    found = list(findings())
    left = f"{len(is_open)} connections were open when the gateway was killed; its next start closes them"
    remarks = [left] if is_open else []
    return check_of(f"lines of {name}", "each connect has its disconnect", found, lambda: count, remarks)


def _finding(number: int, problem: str, expected: str) -> Finding:
    remedy = "nothing else holds connections: look for who edited it"
    return Finding(CONNECTIONS_LAYOUT.file_name, "line", str(number), problem, expected, remedy)
