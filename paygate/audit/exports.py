"""What one side says of its payments, in a file for the other side's audit: `--against`.

JSON lines. The first says whose word it is, each further one is a payment, and the last says how many there were, so
that a file that was cut is noticed. Nothing in it is the customer's, and no passcode.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.codes import TransferOutcome
from paygate.files.durable import replace_file

FORMAT: Final = 1
IN_FLIGHT: Final = "IN_FLIGHT"
"""The outcome of a payment that the gateway began and does not know the end of."""
_OUTCOMES: Final = frozenset({IN_FLIGHT, *(outcome.name for outcome in TransferOutcome)})

Side = Literal["bank", "gateway"]


@dataclass(frozen=True, slots=True)
class ExportedPayment:
    """A payment as one side knows it; a receipt proves it to anybody (spec 8.5)."""

    payment_id: bytes
    transaction_id: str
    merchant_id: str
    amount_minor: int
    currency: str
    outcome: str
    """The name of a TransferOutcome, or IN_FLIGHT."""
    utr: str
    envelope_hash: bytes
    receipt: bytes = field(repr=False)

    @property
    def is_posted(self) -> bool:
        """Whether money moved."""
        return self.outcome == TransferOutcome.POSTED.name


@dataclass(frozen=True, slots=True)
class ExportHeader:
    """Whose payments they are."""

    side: Side
    bank_id: str
    gateway_id: str
    signed_key_list: bytes = field(default=b"", repr=False)
    """The bank's, under which receipts verify; empty in a gateway's export."""


def write_export(path: Path, header: ExportHeader, payments: Iterable[ExportedPayment]) -> int:
    """Put an export at `path`, mode 0600, whole or not at all; gives how many payments it holds. Raises PaygateExit."""
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        yield _line({"paygate_export": FORMAT, **_texts(asdict(header))})
        for payment in payments:
            count += 1
            yield _line(_texts({name: getattr(payment, name) for name in _NAMES}))
        yield _line({"payment_count": count})

    try:
        replace_file(path, lines())
    except OSError as error:
        raise PaygateExit(f"could not write {path}: {error.strerror}", ExitCode.USAGE) from None
    return count


def read_export(path: Path, side: Side) -> tuple[ExportHeader, list[ExportedPayment]]:
    """The other side's export. Raises PaygateExit that names the line."""
    try:
        with path.open("rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise PaygateExit(f"could not read {path}: {error.strerror}", ExitCode.USAGE) from None
    if not lines:
        raise _bad(path, 1, "an export of payments, and the file is empty")
    header = _parsed(path, 1, lines[0], _header_of)
    if header.side != side:
        raise _bad(path, 1, f"the export of a {side}, not of a {header.side}")
    payments = [_parsed(path, number, line, _payment_of) for number, line in enumerate(lines[1:-1], 2)]
    count = _parsed(path, len(lines), lines[-1], lambda values: values["payment_count"])
    if count != len(payments):
        raise _bad(path, len(lines), f"{len(payments)} payments, as many as there are lines; it says {count}")
    return header, payments


_NAMES: Final = tuple(f.name for f in fields(ExportedPayment))
_BLOBS: Final = frozenset({"payment_id", "envelope_hash", "receipt", "signed_key_list"})


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}


def _line(values: dict[str, Any]) -> bytes:
    return f"{json.dumps(values)}\n".encode()


def _parsed(path: Path, number: int, line: bytes, parse: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise TypeError
        return parse({name: bytes.fromhex(value) if name in _BLOBS else value for name, value in values.items()})
    except (ValueError, KeyError, TypeError):
        raise _bad(path, number, "a line of an export of payments, and whole") from None


def _bad(path: Path, number: int, expected: str) -> PaygateExit:
    return PaygateExit(f"{path}, line {number}: expected {expected}; export it again", ExitCode.USAGE)


def _header_of(values: dict[str, Any]) -> ExportHeader:
    if values.pop("paygate_export") != FORMAT or values["side"] not in ("bank", "gateway"):
        raise ValueError
    return ExportHeader(**values)


def _payment_of(values: dict[str, Any]) -> ExportedPayment:
    payment = ExportedPayment(**values)
    is_typed = payment.outcome in _OUTCOMES and payment.amount_minor.__class__ is int
    if not is_typed or not all(isinstance(getattr(payment, name), (str, bytes, int)) for name in _NAMES):
        raise ValueError
    return payment
