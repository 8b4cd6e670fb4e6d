"""The tables of `spec/protocol.md`: fields, rules, kinds, registries, errors, limits, timers, labels, suites."""

import ast
import inspect
from collections.abc import Iterable, Sequence

from paygate.bank.ledger import LOCK_MS_MAX, LOCK_MS_MIN
from paygate.client import core as client_core
from paygate.client.verdict import IN_FLIGHT_MS_MAX
from paygate.codec import limits, seal
from paygate.codec.codes import Code, PaymentStatus, Reason, TransferOutcome
from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Record, fields_of
from paygate.codec.frame import body_size_range
from paygate.codec.messages import MESSAGES, Message
from paygate.codec.money import CURRENCY_EXPONENTS
from paygate.gateway import bank_side, flights
from paygate.gateway.payment import PASSCODE_LOCK_MS
from paygate.link_states import ECHO_AFTER_MS, ECHO_TIMEOUT_MS, FRAME_TIMEOUT_MS, HELLO_TIMEOUT_MS, IDLE_TIMEOUT_MS
from specgen.packets import packet_diagram
from specgen.words import (
    SOCKET_KINDS,
    allowed_words,
    first_sentence,
    meaning_words,
    message_name,
    route_words,
    size_words,
    sizes_of,
    type_words,
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- records and messages --------------------------------------------------------------------------------


def record_block(record: type[Record]) -> str:
    """What a record is: a heading line, a diagram, its fields, and the rules between them."""
    size_min, size_max = sizes_of(record)
    if issubclass(record, Message):
        size_min, size_max = body_size_range(record.kind)
        head = f"**{record.__name__}** (0x{record.kind:02x}), {route_words(record.kind)}, body "
    else:
        head = f"**{record.__name__}**, "
    parts = [
        f"{head}{size_words(size_min, size_max)} bytes. {first_sentence(record)}",
        packet_diagram(record),
        field_table(record),
    ]
    if record.rules:
        rules = [f"- `{rule.field}`: {rule.expected}" for rule in record.rules]
        parts.append("Rules between fields, in the order in which they are checked:\n\n" + "\n".join(rules))
    return "\n\n".join(parts)


def field_table(record: type[Record]) -> str:
    """The fields of a record in wire order."""
    rows = [
        [
            f"`{field.name}`",
            type_words(field.type),
            size_words(field.type.size_min, field.type.size_max),
            allowed_words(field.type),
            meaning_words(field),
        ]
        for field in fields_of(record)
    ]
    return table(["field", "type", "bytes", "allowed", "meaning"], rows)


def kinds_table() -> str:
    """Every kind that may travel on a socket."""
    rows = []
    for kind in SOCKET_KINDS:
        sizes = size_words(*body_size_range(kind))
        rows.append([f"0x{kind:02x}", message_name(kind), route_words(kind), sizes, first_sentence(MESSAGES[kind])])
    return table(["kind", "name", "route", "body bytes", "what it is"], rows)


def pipe_kinds_table() -> str:
    """The kinds between a program and its children."""
    rows = [
        [f"0x{kind:02x}", message_name(kind), route_words(kind), first_sentence(declared)]
        for kind, declared in MESSAGES.items()
        if kind not in SOCKET_KINDS
    ]
    return table(["kind", "name", "route", "what it is"], rows)


# -- registries ------------------------------------------------------------------------------------------


def codes_table(codes: type[Code]) -> str:
    """A registry: number, name, meaning, and what the codes of some registries say besides."""
    rows = [[_number(code), code.name, *_extra(code), code.meaning] for code in codes]
    return table(["code", "name", *_EXTRA_HEADS.get(codes, []), "meaning"], rows)


_EXTRA_HEADS: dict[type[Code], list[str]] = {
    ErrorCode: ["closes"],
    Reason: ["given by"],
    TransferOutcome: ["final", "reasons"],
    PaymentStatus: ["reasons"],
}


def _number(code: Code) -> str:
    return f"0x{code:04x}" if type(code).__name__.endswith("Id") else str(int(code))


def _extra(code: Code) -> list[str]:
    match code:
        case ErrorCode():
            return ["yes" if code.closes else "no"]
        case Reason():
            return ["–" if code is Reason.NONE else "bank" if code.is_banks else "gateway"]
        case TransferOutcome():
            return ["yes" if code.is_final else "no", _reasons(code)]
        case PaymentStatus():
            return [_reasons(code)]
    return []


def _reasons(code: TransferOutcome | PaymentStatus) -> str:
    """The reasons that an outcome or status may carry, neighbours drawn together."""
    fitting = [reason for reason in Reason if code.fits(reason)]
    runs: list[list[Reason]] = []
    for reason in fitting:
        if runs and int(reason) == int(runs[-1][-1]) + 1:
            runs[-1].append(reason)
        else:
            runs.append([reason])
    return ", ".join(run[0].name if len(run) == 1 else f"{int(run[0])} to {int(run[-1])}" for run in runs)


# -- limits, timers, labels, suites ----------------------------------------------------------------------


def limits_table() -> str:
    """Every maximum and size of the wire format, from `paygate/codec/limits.py`."""
    rows = [[f"`{name}`", str(value), reason] for name, value, reason in documented_limits()]
    return table(["limit", "value", "why"], rows)


def documented_limits() -> list[tuple[str, int, str]]:
    """Name, value and reason of each constant of `limits.py`, in its order; the reason is its docstring."""
    body = ast.parse(inspect.getsource(limits)).body
    found = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            reason = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                reason = " ".join(str(after.value.value).split())
            assert reason, f"limits.{node.target.id} has no reason below it"
            found.append((node.target.id, int(getattr(limits, node.target.id)), reason))
    return found


TIMERS = {
    "hello": (HELLO_TIMEOUT_MS, "from connecting to Hello, or to HelloAck", "either end: Error HELLO_TIMEOUT, close"),
    "frame": (FRAME_TIMEOUT_MS, "from a frame's first byte to its last", "either end: Error FRAME_TIMEOUT, close"),
    "idle": (
        IDLE_TIMEOUT_MS,
        "without a whole frame, while no reply is owed",
        "answering end: Error IDLE_TIMEOUT, close",
    ),
    "link test": (ECHO_AFTER_MS, "without a whole frame", "gateway, on its bank link: Echo"),
    "link test unanswered": (
        ECHO_TIMEOUT_MS,
        "without a whole frame after the Echo",
        "gateway, on its bank link: Error IDLE_TIMEOUT, close",
    ),
    "session": (limits.SESSION_MS, "from the token ack", "client: by its own alarm; gateway: SESSION"),
    "bank": (flights.BANK_MS_MAX, "from the credentials at the gateway", "gateway: ResolveRequest (6.7)"),
    "resolve before end": (
        flights.RESOLVE_BEFORE_END_MS,
        "before the session's end",
        "gateway: ResolveRequest, if that is earlier (6.7)",
    ),
    "pending": (flights.PENDING_BEFORE_END_MS, "before the session's end", "gateway: PENDING to whoever still waits"),
    "resolve again, first": (
        flights.RESOLVE_BACKOFF_BASE_MS,
        "after a ResolveRequest, or half of it, by chance between",
        "gateway: the next one; the bound doubles",
    ),
    "resolve again, at most": (
        flights.RESOLVE_BACKOFF_MS_MAX,
        "after a ResolveRequest, or half of it, by chance between",
        "gateway: the next one",
    ),
    "passcode lock": (PASSCODE_LOCK_MS, "from the fifth wrong passcode", "gateway: LOCKED till then (PG-TOK-2)"),
    "password wait, first": (LOCK_MS_MIN, "from the third wrong password", "bank: CREDENTIALS till then; doubles"),
    "password wait, at most": (LOCK_MS_MAX, "from a wrong password", "bank: CREDENTIALS till then (PG-TRF-7)"),
    "unknown": (IN_FLIGHT_MS_MAX, "after the session's end", "client: UNKNOWN says something only from then on"),
    "key list": (bank_side.KEY_LIST_REFRESH_MS, "after the last one", "gateway: BankKeysQuery"),
    "answer": (
        client_core.ANSWER_MS,
        "from BankKeysQuery, TokenQuery or StatusQuery to its answer",
        "client: closes, without an Error; the link counts as lost",
    ),
    "status poll": (client_core.POLL_MS, "after an answer that leaves the outcome open", "client: StatusQuery"),
    "authorisation": (
        limits.AUTHORISED_AT_SKEW_MS_MAX,
        "between `authorised_at_ms` and the bank's clock",
        "bank: LATE beyond it (7.1)",
    ),
}
"""Name to (milliseconds, from when, who does what)."""


def timers_table() -> str:
    """Every timer, from the constants that the programs run by."""
    rows = [[name, f"{ms / 1000:g} s", since, what] for name, (ms, since, what) in TIMERS.items()]
    return table(["timer", "how long", "since or before", "who, and what then"], rows)


def currencies_table() -> str:
    """The currencies whose minor unit is not a hundredth."""
    by_count: dict[int, list[str]] = {}
    for currency, count in CURRENCY_EXPONENTS.items():
        by_count.setdefault(count, []).append(currency)
    return table(["decimals", "currencies"], [[str(count), ", ".join(sorted(c))] for count, c in by_count.items()])


LABELS = {
    "envelope": (seal.LABEL_ENVELOPE, "HPKE `info` (8.2)"),
    "password salt": (seal.LABEL_SALT, "salt of the password key (8.3)"),
    "verifier": (seal.LABEL_VERIFIER, "verifier of a password key (8.3)"),
    "key list": (seal.LABEL_KEY_LIST, "signature over a key list (8.4)"),
    "receipt": (seal.LABEL_RECEIPT, "leaf of a receipt (8.5)"),
    "receipt root": (seal.LABEL_RECEIPT_ROOT, "signature over a tree of receipts (8.5)"),
}


def label_words(label: bytes) -> str:
    """A label as the spec writes it: in quotes, its last byte as \\0."""
    assert label.endswith(b"\0")
    return f'"{label[:-1].decode()}\\0"'


def labels_table() -> str:
    """Every label, as text and as bytes."""
    rows = [[name, f"`{label_words(label)}`", f"`{label.hex()}`", use] for name, (label, use) in LABELS.items()]
    return table(["label", "text", "bytes", "use"], rows)


def suites_table() -> str:
    """The HPKE suites, best first, with the sizes that follow from them."""
    rows = []
    for suite in seal.SUITES:
        ciphertext = limits.ENVELOPE_PLAINTEXT_SIZE + seal.AEAD_TAG_SIZE
        rows.append(
            [
                f"0x{suite.kem_id:04x} {suite.kem_id.meaning}",
                f"0x{suite.kdf_id:04x} {suite.kdf_id.meaning}",
                f"0x{suite.aead_id:04x} {suite.aead_id.meaning}",
                str(suite.public_key_size),
                f"enc {suite.enc_size} ‖ ciphertext {ciphertext} = {suite.enc_size + ciphertext}",
            ]
        )
    return table(["KEM", "KDF", "AEAD", "public key bytes", "envelope bytes"], rows)
