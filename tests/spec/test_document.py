"""`spec/` is what the declarations say today; its prose gives no other numbers than those that the programs run by."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from specgen import bank_conditions, diagrams, document, gateway_conditions, link_states, store_states
from specgen.__main__ import SPEC, outputs
from specgen.tables import LABELS, TIMERS, label_words
from specgen.words import SOCKET_KINDS, message_name

from paygate.bank.ledger import FREE_FAILURE_COUNT, LOCK_MS_MAX, LOCK_MS_MIN
from paygate.client.core import ANSWER_MS, POLL_MS
from paygate.client.verdict import IN_FLIGHT_MS_MAX
from paygate.codec import limits
from paygate.codec.codes import Kind, Route
from paygate.codec.errors import ErrorCode
from paygate.codec.messages import MESSAGES
from paygate.gateway import flights
from paygate.gateway.bank_side import KEY_LIST_REFRESH_MS
from paygate.gateway.payment import PASSCODE_LOCK_MS, PASSCODE_TRY_COUNT_MAX
from paygate.gateway.sessions import SESSION_COUNT_PER_TOKEN_MAX
from paygate.gateway.sqlite_tokens import UNKNOWN_TRIED_COUNT_MAX
from paygate.gateway.tokens import CheckToken
from paygate.link_states import (
    ECHO_AFTER_MS,
    ECHO_TIMEOUT_MS,
    FRAME_TIMEOUT_MS,
    HELLO_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    REQUEST_COUNT_MAX,
    TRANSITIONS,
)

TEXT = (SPEC / "protocol.md").read_text(encoding="utf-8")
REQUIREMENTS = {r.number: r.text for r in document.requirements(TEXT)}
WORDS = {1: "one", 3: "three", 5: "five"}


def test_nothing_in_spec_is_stale() -> None:
    wanted = outputs(SPEC)
    assert [name for name, text in wanted.items() if (SPEC / name).read_text(encoding="utf-8") != text] == []


def test_everything_in_spec_is_generated_or_known() -> None:
    found = {str(path.relative_to(SPEC)) for path in SPEC.rglob("*") if path.is_file()}
    assert found == set(outputs(SPEC)) | {"model/payment.pml", "vectors/README.md"}


# -- the prose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("PG-ENC-11", f"at most {limits.TIME_MS_MAX} "),
        ("PG-ENC-12", f"1 to {limits.AMOUNT_MINOR_MAX}."),
        ("PG-ENC-8", f"1 to {limits.IDENTIFIER_SIZE_MAX} bytes"),
        ("PG-ENC-9", f"1 to {limits.PASSCODE_SIZE_MAX} bytes"),
        ("PG-FRM-3", f"its {limits.HEADER_SIZE} bytes"),
        ("PG-MAC-1", f"the first {limits.MAC_SIZE} bytes of HMAC-SHA-256"),
        ("PG-LNK-6", f"at least {REQUEST_COUNT_MAX} of one peer"),
        ("PG-TIM-1", f"within {HELLO_TIMEOUT_MS // 1000} s of connecting"),
        ("PG-TIM-2", f"{FRAME_TIMEOUT_MS // 1000} s after its first byte"),
        ("PG-TIM-3", f"came for {IDLE_TIMEOUT_MS // 1000} s"),
        ("PG-TIM-4", f"came for {ECHO_AFTER_MS // 1000} s"),
        ("PG-TIM-4", f"comes for {ECHO_TIMEOUT_MS // 1000} s more"),
        ("PG-KEY-1", f"every {KEY_LIST_REFRESH_MS // 1000} seconds"),
        ("PG-TOK-2", f"After {WORDS[PASSCODE_TRY_COUNT_MAX]} wrong passcodes"),
        ("PG-TOK-2", f"for {PASSCODE_LOCK_MS // 60_000} minutes"),
        ("PG-SES-1", f"lasts {limits.SESSION_MS // 1000} seconds"),
        ("PG-SES-2", f"until {flights.PENDING_BEFORE_END_MS // 1000} seconds before"),
        ("PG-SES-3", f"the bank {flights.BANK_MS_MAX // 1000} seconds"),
        ("PG-SES-3", f"until {flights.RESOLVE_BEFORE_END_MS // 1000} seconds before"),
        ("PG-SES-4", f"{flights.PENDING_BEFORE_END_MS // 1000} seconds before"),
        ("PG-RES-5", f"{flights.RESOLVE_BACKOFF_BASE_MS // 1000} s to {flights.RESOLVE_BACKOFF_MS_MAX // 1000} s"),
        ("PG-TRF-4", f"more than {WORDS[limits.AUTHORISED_AT_SKEW_MS_MAX // 60_000]} minutes"),
        ("PG-TRF-7", f"After {WORDS[FREE_FAILURE_COUNT + 1]} in a row the account waits {LOCK_MS_MIN // 1000} seconds"),
        ("PG-TRF-7", f"up to {'an' if LOCK_MS_MAX == 3_600_000 else '?'} hour"),
        ("PG-ENV-4", f"{limits.ENVELOPE_PLAINTEXT_SIZE} bytes"),
        ("PG-TOK-3", f"At least {SESSION_COUNT_PER_TOKEN_MAX} sessions"),
        ("PG-PAY-11", f"Up to {IN_FLIGHT_MS_MAX // 1000} s after"),
        ("PG-TIM-5", f"for {ANSWER_MS // 1000} s"),
        ("PG-TIM-6", "once a second" if POLL_MS == 1_000 else "?"),
    ],
)
def test_a_number_in_the_prose_is_the_constant(number: str, words: str) -> None:
    assert words in REQUIREMENTS[number]


def test_the_order_of_header_checks_is_that_of_the_codes() -> None:
    named = re.findall(r"[A-Z]+(?:_[A-Z]+)+", REQUIREMENTS["PG-FRM-3"])
    assert named == [code.name for code in ErrorCode if code < ErrorCode.BAD_CHECKSUM] + ["UNEXPECTED_MESSAGE"]


def test_section_10_counts_what_the_gateway_remembers() -> None:
    assert f"the latest\n  {UNKNOWN_TRIED_COUNT_MAX:,}" in TEXT


def test_a_must_stands_in_a_numbered_requirement() -> None:
    prose = re.sub(r"<!-- spec: .*?<!-- /spec -->", "", TEXT, flags=re.DOTALL)
    loose = [part for part in re.split(r"\n\n|\n- ", prose) if re.search(r"\bmust\b", part) and "PG-" not in part]
    assert loose == []


@pytest.mark.parametrize("label", [label for label, _ in LABELS.values()])
def test_every_label_stands_in_a_formula(label: bytes) -> None:
    prose = re.sub(r"<!-- spec: .*?<!-- /spec -->", "", TEXT, flags=re.DOTALL)
    assert label_words(label) in prose


def test_every_word_in_capitals_is_a_code_or_a_state() -> None:
    """A code that was renamed leaves no old name in the prose."""
    known = {code.name for codes in document.CODES.values() for code in codes} | {kind.name for kind in Kind}
    known |= {state.name for state in TRANSITIONS} | {"AUTHENTICATED", "IN_FLIGHT", "NOT_FINAL"}
    known |= {name.name for name in (*diagrams.CLIENT_STATES, *diagrams.CLIENT_EVENTS)} | set(
        re.findall(r"`([A-Z_]+)`", TEXT)
    )
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", TEXT)) - known == set()


def test_every_mentioned_section_is_there() -> None:
    sections = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)", TEXT, re.MULTILINE))
    mentioned = set(re.findall(r"(?:\(|spec |section |sections |, |and )(\d+\.\d+)\b(?! [a-z]*bytes)", TEXT))
    # Those of RFCs are written "RFC 6962 section 2.1" and "RFC 9180 section 7.1".
    assert mentioned - sections - {"2.1", "7.1", "7.2", "7.3"} == set()


def test_sources_name_sections_that_are_there() -> None:
    sections = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)", TEXT, re.MULTILINE))
    root = Path(__file__).parent.parent.parent
    named = {
        (section, str(path.relative_to(root)))
        for path in sorted((root / "paygate").rglob("*.py"))
        for section in re.findall(r"\bspec (?:section )?(\d+(?:\.\d+)?)", path.read_text(encoding="utf-8"))
    }
    assert named
    assert {(section, path) for section, path in named if section not in sections} == set()


# -- the generated parts ---------------------------------------------------------------------------------


def test_an_unknown_part_is_refused_by_name() -> None:
    with pytest.raises(document.BadDocument, match="asks for `fields Nothing`"):
        document.fill("<!-- spec: fields Nothing -->\n<!-- /spec -->")


def test_a_missing_part_is_named() -> None:
    with pytest.raises(document.BadDocument, match=r"no part for: .*fields TokenAck"):
        document.fill(TEXT.replace("<!-- spec: fields TokenAck -->", "<!-- lost -->"), session=str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## 1. A\n- **PG-A-1.** one\n- **PG-A-3.** three\n", "PG-A-3 is not the next one after PG-A-1"),
        ("## 1. A\n- **PG-A-1.** one\n- **PG-A-1.** again\n", "PG-A-1 is not the next one after PG-A-1"),
        ("## 1. A\n- **PG-A-1.** see PG-B-7\n", "does not state: PG-B-7"),
    ],
)
def test_requirements_are_counted_without_gap(text: str, expected: str) -> None:
    with pytest.raises(document.BadDocument, match=expected):
        document.requirements(text)


def test_a_requirement_knows_its_section_and_text() -> None:
    found = document.requirements(
        "## 4. Frames\n\n### 4.1 Header\n\n- **PG-FRM-1.** Bit 0\n  is a flag.\n- **PG-FRM-2.** x\n"
    )
    assert found[0] == document.Requirement("PG-FRM-1", "4.1", "Bit 0 is a flag.")


@pytest.mark.pg("PG-VER-3")
@pytest.mark.parametrize(
    ("text", "expected"),
    [("# A\n", "no line begins with"), ("# A\n\nEdition 2026-01-01. New.\n", "does not say what changed")],
)
def test_an_edition_has_a_date_and_its_changes(text: str, expected: str) -> None:
    with pytest.raises(document.BadDocument, match=expected):
        document.edition(text)


def test_the_link_tables_are_total() -> None:
    for ends in (link_states.ANSWERING_ENDS, link_states.CALLING_ENDS):
        rows = link_states.link_table(ends).splitlines()[2:]
        names = "; ".join(row.split(" | ")[0] for row in rows)
        assert all(message_name(kind) in names for kind in SOCKET_KINDS)
        assert all(len(row.split(" | ")) == len(ends) + 1 and "|  |" not in row for row in rows)


def test_diagrams_have_every_arrow_of_their_table() -> None:
    diagram = diagrams.link_diagram()
    for state, row in TRANSITIONS.items():
        for entered, after in row.items():
            if state is not after:
                line = next(text for text in diagram.splitlines() if f"{state.name} --> {after.name}:" in text)
                assert entered.value in line


def test_every_timer_has_a_time() -> None:
    assert all(ms > 0 for ms, _, _ in TIMERS.values())


def test_pipe_kinds_are_told_apart() -> None:
    assert {kind for kind in MESSAGES if MESSAGES[kind].route is Route.PIPE}.isdisjoint(SOCKET_KINDS)


# -- the tables of states --------------------------------------------------------------------------------


def cells_of(text: str) -> dict[tuple[str, str], str]:
    """A table's cells by row and column; every row is whole."""
    head, _, *rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines()]
    assert rows
    assert {len(row) for row in rows} == {len(head)}
    return {(row[0], column): cell for row in rows for column, cell in zip(head[1:], row[1:], strict=True)}


# Each drives a real core through every cell: done once, and not by those who only collect tests.
gateway_cells = cache(lambda: cells_of(gateway_conditions.gateway_table()))
bank_cells = cache(lambda: cells_of(bank_conditions.bank_table()))


@pytest.mark.parametrize("cells_once", [gateway_cells, bank_cells], ids=["gateway", "bank"])
def test_the_tables_of_conditions_are_total(cells_once: Callable[[], dict[tuple[str, str], str]]) -> None:
    # "–" stands only where the bank's own result can't come or be recorded.
    assert {row for (row, _), cell in cells_once().items() if not cell.strip() or cell == "–"} <= {
        "the bank's result for one in flight: POSTED"
    }


@pytest.mark.pg("PG-PAY-7", "PG-TOK-5")
@pytest.mark.parametrize(
    ("condition", "payment", "token"),
    [
        ("all well", "IN_FLIGHT, send TransferRequest", "TokenAck INVALID"),
        ("session unknown or over", "REFUSED SESSION", "TokenAck INVALID"),
        ("draining", "REFUSED DRAINING", "Error SHUTTING_DOWN"),
        ("no bank link", "REFUSED BANK_UNREACHABLE", "TokenAck INVALID"),
        ("store full", "REFUSED STORE_UNAVAILABLE", "Error TOO_MANY_REQUESTS"),
        ("all four at once", "REFUSED DRAINING", "Error SHUTTING_DOWN"),
    ],
)
def test_a_gateway_in_trouble_says_which(condition: str, payment: str, token: str) -> None:
    assert gateway_cells()["EncryptedCredentials of a new payment", condition] == payment
    assert gateway_cells()["TokenQuery, wrong passcode", condition] == token


@pytest.mark.pg("PG-PAY-8")
def test_a_repeat_is_refused_under_no_condition() -> None:
    repeats = {
        key: cell for key, cell in gateway_cells().items() if key[0].startswith("EncryptedCredentials, the repeat")
    }
    assert set(repeats.values()) == {
        "wait with the first",
        "PENDING",
        "PAID, the same bytes",
        "REFUSED PAYMENT_MISMATCH",
    }
    refused = {row for (row, _), cell in repeats.items() if cell.startswith("REFUSED")}
    assert refused == {"EncryptedCredentials, the repeat of one ended by MISMATCH"}


@pytest.mark.pg("PG-TRF-10")
def test_a_bank_in_trouble_repeats_what_is_final_and_decides_nothing() -> None:
    new, resolve = "TransferRequest of a new payment", "ResolveRequest of a new payment"
    assert (bank_cells()[new, "draining"], bank_cells()[resolve, "draining"]) == ("UNAVAILABLE", "FENCED")
    assert bank_cells()[new, "store full"] == "ask the decoder, then UNAVAILABLE"
    assert bank_cells()[resolve, "store full"] == "UNAVAILABLE"
    repeats = ("TransferRequest, the repeat of one that is POSTED", "ResolveRequest of one that is POSTED")
    assert {cell for (row, _), cell in bank_cells().items() if row in repeats} == {"POSTED, the same bytes"}


@pytest.mark.pg("PG-RES-2")
def test_a_resolve_waits_for_the_transfer_that_is_under_way() -> None:
    cells = {column: cell for (row, column), cell in bank_cells().items() if row == "ResolveRequest of one under way"}
    assert cells["all well"] == cells["draining"] == "wait with the first, then POSTED, the same bytes"
    assert all(cell.startswith("wait with the first, then ") for cell in cells.values())


@pytest.mark.pg("PG-TOK-2")
def test_a_lock_touches_only_what_asks_with_a_passcode() -> None:
    usual = cells_of(store_states.token_table())
    locked = cells_of(store_states.token_table(*[CheckToken("TX", "wrong")] * PASSCODE_TRY_COUNT_MAX))
    with_passcode = {key for key in usual if "passcode" in key[0]}
    assert {locked[key] for key in with_passcode} == {"TokenAck LOCKED", "REFUSED TOKEN_LOCKED"}
    assert {key: cell for key, cell in locked.items() if key not in with_passcode} == {
        key: cell for key, cell in usual.items() if key not in with_passcode
    }
