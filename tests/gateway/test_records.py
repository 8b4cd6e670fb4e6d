"""The text records: what people read, what merchants add, and what a crash leaves (R13 to R15)."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import NOW_MS, PASSCODE, TRANSACTION_ID, UTR, build_terms
from failing_disk import VFS_NAME, FailingDisk
from gateway.world import ADDRESS, build_token, hash_of, payment_id

from paygate.clock import Now
from paygate.codec.codes import Reason, TokenStatus, TransferOutcome
from paygate.effects import Effect, LogLine
from paygate.files.text_records import FieldProblem
from paygate.gateway.effects import ConnectionRecord, RefusalRecord
from paygate.gateway.record_lines import TOKENS_LAYOUT, parse_token, token_row
from paygate.gateway.records import GatewayRecords
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.tokens import (
    BeginPayment,
    CheckToken,
    IssueToken,
    Operation,
    PaymentBegun,
    PaymentSettled,
    SettlePayment,
    Token,
    TokenState,
)

NOW = Now(5, NOW_MS)
LATER = Now(45, NOW_MS + 40)
TOKENS, PAYMENTS, CONNECTIONS = "PaymentTokensData.txt", "GatewayTransaction.txt", "LogFiles.txt"
LINE = f"{TRANSACTION_ID} | {PASSCODE} | unpaid | 1250.00 | M-100 | INR"
CANARY = "hunter2-canary"
FIRST = BeginPayment(build_terms(payment_id=payment_id("first")), hash_of())
POSTED = SettlePayment(payment_id("first"), TransferOutcome.POSTED, Reason.NONE, UTR, b"receipt")


class Desk:
    """One gateway's store and text records."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: list[str] = []
        self._open()

    def _open(self) -> None:
        self.store = SqliteTokens(self.directory / "tokens.sqlite", vfs=VFS_NAME)
        self.records = GatewayRecords(self.directory, self.store, self.log.append)
        self.records.heal(NOW)

    def restart(self) -> None:
        """End, by whatever means, and start again."""
        self.close()
        self.log.clear()
        self._open()

    def close(self) -> None:
        self.records.close()
        self.store.close()

    def add(self, *lines: str) -> None:
        """What a merchant does, and the second that follows."""
        with (self.directory / TOKENS).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.records.poll(NOW)

    def edit(self, text: str) -> None:
        """What an editor does, a second after the last change, and the second that follows."""
        path = self.directory / TOKENS
        changed_ns = path.stat().st_mtime_ns
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(changed_ns, changed_ns + 1_000_000_000))
        self.records.poll(NOW)

    def text(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="utf-8")

    def rows(self, name: str) -> list[list[str]]:
        """The fields of every line that is no comment."""
        lines = [line for line in self.text(name).splitlines() if line and not line.startswith("#")]
        return [[field.strip() for field in line.split("|")] for line in lines]

    def states(self) -> dict[str, str]:
        return {row[0]: row[2] for row in self.rows(TOKENS)}

    def apply(self, operation: Operation, now: Now = NOW) -> Any:
        return self.store.apply([operation], now)[0]

    def begin(self, begin: BeginPayment = FIRST) -> list[Effect]:
        """Commit a payment; gives what is to be recorded."""
        outcome = self.apply(begin)
        assert isinstance(outcome, PaymentBegun)
        assert outcome.payment is not None
        return [outcome.payment, outcome.token] if outcome.token else []

    def settle(self, settle: SettlePayment = POSTED) -> list[Effect]:
        outcome = self.apply(settle, LATER)
        assert isinstance(outcome, PaymentSettled)
        assert outcome.payment is not None
        return [outcome.payment, outcome.token] if outcome.token else []


@pytest.fixture
def desk(tmp_path: Path, disk: FailingDisk) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    disk.is_full = False
    desk.close()


# -- lines and tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        build_token(),
        build_token(expires_ms=NOW_MS + 123, merchant_name=""),
        build_token(state=TokenState.PAID, utr=UTR),
        build_token(passcode="a\\x41#{}~!", merchant_name="Pipes | and \\ more", currency="JPY", amount_minor=7),
    ],
)
def test_a_token_comes_back_from_its_line(token: Token) -> None:
    assert parse_token(TOKENS_LAYOUT.parse(TOKENS_LAYOUT.format(token_row(token)))) == token


def test_the_shortest_line_and_a_full_one() -> None:
    assert parse_token(TOKENS_LAYOUT.parse(LINE.encode())) == build_token(merchant_name="")
    full = parse_token(TOKENS_LAYOUT.parse(f"{LINE} | | 2026-12-31T23:59:59Z | Books".encode()))
    assert (full.expires_ms, full.merchant_name) == (1_798_761_599_000, "Books")


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("TX 1 | 4321 | unpaid | 1.00 | M-1 | INR", "transaction ID"),
        (" | 4321 | unpaid | 1.00 | M-1 | INR", "transaction ID"),
        ("TX-1 | 43 21 | unpaid | 1.00 | M-1 | INR", "passcode"),
        ("TX-1 |  | unpaid | 1.00 | M-1 | INR", "passcode"),
        ("TX-1 | 4321 | maybe | 1.00 | M-1 | INR", "paid/unpaid"),
        ("TX-1 | 4321 | paid | 1.00 | M-1 | INR", "UTR"),
        (f"TX-1 | 4321 | unpaid | 1.00 | M-1 | INR | {UTR}", "UTR"),
        ("TX-1 | 4321 | unpaid | 0 | M-1 | INR", "amount"),
        ("TX-1 | 4321 | unpaid | -1.00 | M-1 | INR", "amount"),
        ("TX-1 | 4321 | unpaid | 1.001 | M-1 | INR", "amount"),
        ("TX-1 | 4321 | unpaid | 1.5 | M-1 | JPY", "amount"),
        ("TX-1 | 4321 | unpaid | 99999999999999999.00 | M-1 | INR", "amount"),
        ("TX-1 | 4321 | unpaid | 1.00 | | INR", "merchant"),
        ("TX-1 | 4321 | unpaid | 1.00 | M-1 | inr", "currency"),
        ("TX-1 | 4321 | unpaid | 1.00 | M-1 | INR | | tomorrow", "expiry"),
        ("TX-1 | 4321 | unpaid | 1.00 | M-1 | INR | | | two\\x0alines", "merchant name"),
        ("TX-1 | 4321 | unpaid | 1.00 | M-1", "line"),
    ],
)
def test_a_bad_line_names_its_column(line: str, column: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        parse_token(TOKENS_LAYOUT.parse(line.encode()))
    assert caught.value.column == column


# -- taking in (R13) -------------------------------------------------------------------------------------


def test_a_line_that_is_added_while_the_gateway_runs_is_taken_in(desk: Desk) -> None:
    desk.add(LINE)
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.VALID
    assert desk.rows(TOKENS) == [[TRANSACTION_ID, PASSCODE, "unpaid", "1250.00", "M-100", "INR", "", "-", ""]]
    assert LINE not in desk.text(TOKENS)
    assert desk.log == []


def test_bad_lines_are_told_by_number_stay_and_stop_nobody(desk: Desk) -> None:
    first = desk.text(TOKENS).count("\n") + 1
    bad = [
        f"TX-2 | {CANARY} | unpaid | 12.345 | M-100 | INR",
        f"TX-3 | {CANARY} with blanks | unpaid | 1.00 | M-100 | INR",
        f"TX-4 | {CANARY} | unpaid",
        f"TX-5 | {CANARY}|x | unpaid | 1.00 | M-100 | INR | | | | |",
    ]
    desk.add("# a remark", *bad, "", LINE)
    assert desk.states() == {
        "TX-2": "unpaid",
        "TX-3": "unpaid",
        "TX-4": "unpaid",
        "TX-5": "x",
        TRANSACTION_ID: "unpaid",
    }
    assert [t.transaction_id for t in desk.store.tokens()] == [TRANSACTION_ID]
    assert [line.split(",")[0] for line in desk.log] == [f"{TOKENS} line {first + 1 + i}" for i in range(4)]
    assert all(line.endswith("; it may hold a secret in clear: mend or remove it") for line in desk.log)
    assert "amount: expected at most 2 decimals" in desk.log[0]
    assert CANARY not in "".join(desk.log)
    desk.records.poll(NOW)
    assert len(desk.log) == 4  # each is told once
    # Mended by its writer, with an editor.
    desk.edit(desk.text(TOKENS).replace("12.345", "12.34"))
    assert desk.apply(CheckToken("TX-2", CANARY)).status is TokenStatus.VALID


def test_bad_lines_found_at_the_start_are_told_by_the_numbers_that_they_have_then(desk: Desk) -> None:
    with (desk.directory / TOKENS).open("a") as file:
        file.write(f"TX-2 | {CANARY} | unpaid | 12.345 | M-100 | INR\n{LINE}\n{LINE.replace('1250', '1251')}\n")
    desk.restart()
    lines = desk.text(TOKENS).splitlines()
    numbers = [int(text.split(",")[0].split()[-1]) for text in desk.log]
    assert [lines[number - 1].split()[0] for number in numbers] == ["TX-2", TRANSACTION_ID]
    assert [" 1251.00 " in lines[number - 1] for number in numbers] == [False, True]


def test_an_amount_that_is_edited_in_place_is_told_and_put_right(desk: Desk) -> None:
    desk.add(*(LINE.replace(TRANSACTION_ID, f"TX-{number}") for number in range(100)))
    desk.records.poll(NOW)
    text = desk.text(TOKENS)
    assert len(text) > 2 * 4096
    desk.edit(text.replace("1250.00", "9999.00", 1))
    assert len(desk.log) == 1
    assert "this token is known with other contents" in desk.log[0]
    assert [row[3] for row in desk.rows(TOKENS)] == ["1250.00"] * 100 + ["9999.00"]


def test_a_line_is_cancelled_by_a_line(desk: Desk) -> None:
    desk.add(LINE)
    desk.add(LINE.replace("unpaid", "cancelled"))
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.EXPIRED
    assert desk.states() == {TRANSACTION_ID: "cancelled"}
    assert len(desk.rows(TOKENS)) == 1
    assert desk.log == []


def test_a_token_is_cancelled_where_its_own_line_is_edited(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.poll(NOW)
    desk.edit(desk.text(TOKENS).replace("| unpaid  ", "| cancelled"))
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.EXPIRED
    assert desk.log == []


def test_issued_and_cancelled_in_one_second(desk: Desk) -> None:
    desk.add(LINE, LINE.replace("unpaid", "cancelled"))
    assert desk.states() == {TRANSACTION_ID: "cancelled"}
    assert len(desk.rows(TOKENS)) == 1


@pytest.mark.parametrize(
    "change",
    [("1250.00", "1.00"), (PASSCODE, CANARY), ("M-100", "M-2"), ("INR", "EUR"), ("INR", "INR | | 2030-01-01")],
)
def test_to_cancel_a_token_one_must_know_all_of_it(desk: Desk, change: tuple[str, str]) -> None:
    desk.add(LINE)
    desk.add(LINE.replace("unpaid", "cancelled").replace(*change))
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.VALID
    assert "known with other contents" in desk.log[0]
    assert CANARY not in desk.log[0]


def test_what_is_paid_or_in_flight_or_unknown_is_not_cancelled(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    desk.add(LINE.replace("unpaid", "cancelled"), "TX-none | 1 | cancelled | 1.00 | M-1 | INR")
    assert "the token is in-flight and can't be cancelled" in desk.log[0]
    assert "one that the gateway knows" in desk.log[1]
    assert next(desk.store.tokens()).state is TokenState.IN_FLIGHT


def test_duplicates_are_one_token(desk: Desk) -> None:
    desk.add(LINE, LINE)
    desk.add(LINE)
    assert len(desk.rows(TOKENS)) == 1
    assert desk.log == []


def test_a_known_token_with_another_amount_is_not_changed(desk: Desk) -> None:
    desk.add(LINE)
    line_number = desk.text(TOKENS).count("\n") + 1
    desk.add(LINE.replace("1250.00", "1.00"))
    assert next(desk.store.tokens()).amount_minor == 125_000
    assert desk.log == [
        f"{TOKENS} line {line_number}, transaction ID: expected a new one: this token is known with other contents, "
        f'and is not changed, got "{TRANSACTION_ID}"; the line is skipped; '
        "it may hold a secret in clear: mend or remove it"
    ]


def test_lines_wait_while_the_disk_is_full(desk: Desk, disk: FailingDisk) -> None:
    disk.is_full = True
    desk.add(LINE)
    desk.records.poll(NOW)
    desk.records.poll(NOW)
    assert list(desk.store.tokens()) == []
    assert len(desk.log) == 1  # not every second
    assert "wait until there is room" in desk.log[0]
    disk.is_full = False
    desk.records.poll(NOW)
    desk.records.poll(NOW)
    assert desk.log[1:] == [f"there is room on the disk again; the lines of {TOKENS} that waited are taken in"]
    assert desk.states() == {TRANSACTION_ID: "unpaid"}
    assert len(desk.rows(TOKENS)) == 1


# -- payments (R14) --------------------------------------------------------------------------------------


def test_a_payment_is_one_line_that_gets_its_outcome_in_place(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    begun = ["2026-01-02T00:00:00.000Z", payment_id("first").hex(), TRANSACTION_ID, "1250.00", "INR", "M-100"]
    assert desk.rows(PAYMENTS) == [[*begun, "in-flight", "", "", ""]]
    assert desk.states() == {TRANSACTION_ID: "in-flight"}
    size = (desk.directory / PAYMENTS).stat().st_size
    desk.records.record(desk.settle())
    assert desk.rows(PAYMENTS) == [[*begun, "paid", "", UTR, "2026-01-02T00:00:00.040Z"]]
    assert desk.rows(TOKENS)[0][2:7] == ["paid", "1250.00", "M-100", "INR", UTR]
    assert (desk.directory / PAYMENTS).stat().st_size == size


@pytest.mark.parametrize(
    ("outcome", "reason", "words"),
    [
        *((TransferOutcome.DECLINED, r, r.name.lower().replace("_", " ")) for r in Reason if r.is_banks),
        (TransferOutcome.MISMATCH, Reason.NONE, "payment mismatch"),
    ],
)
def test_what_the_bank_declines_fits_in_place(desk: Desk, outcome: TransferOutcome, reason: Reason, words: str) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    desk.records.record(desk.settle(SettlePayment(payment_id("first"), outcome, reason, "", b"")))
    assert [row[6:8] for row in desk.rows(PAYMENTS)] == [["declined", words]]
    assert desk.states() == {TRANSACTION_ID: "unpaid"}


@pytest.mark.parametrize("reason", [r for r in Reason if r >= Reason.DRAINING])
def test_a_refused_attempt_is_a_line(desk: Desk, reason: Reason) -> None:
    desk.records.record([RefusalRecord(NOW_MS, build_terms(), reason)])
    assert [row[6:9] for row in desk.rows(PAYMENTS)] == [["refused", reason.name.lower().replace("_", " "), ""]]


def test_an_outcome_whose_line_was_moved_away_is_a_line_of_its_own(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    (desk.directory / PAYMENTS).rename(desk.directory / "old.txt")
    desk.records.poll(NOW)
    assert "moved away" in desk.log[0]
    desk.records.record(desk.settle())
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["paid"]


def test_effects_that_are_no_records_write_nothing(desk: Desk) -> None:
    before = {name: desk.text(name) for name in (TOKENS, PAYMENTS, CONNECTIONS)}
    desk.records.record([LogLine("hello")])
    assert before == {name: desk.text(name) for name in (TOKENS, PAYMENTS, CONNECTIONS)}


# -- what is noted and written later ---------------------------------------------------------------------


def test_what_changes_twice_before_it_is_written_is_written_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.add(LINE)
    before = desk.text(TOKENS), desk.text(PAYMENTS)
    assert not desk.records.note([LogLine("hello")])
    assert desk.records.note(desk.begin())
    assert desk.records.note(desk.settle())
    assert (desk.text(TOKENS), desk.text(PAYMENTS)) == before
    writes: list[int] = []
    real_write, real_pwrite = os.write, os.pwrite

    def write(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return real_write(fd, data)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        writes.append(len(data))
        return real_pwrite(fd, data, offset)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "pwrite", pwrite)
    desk.records.write()
    assert len(writes) == 2  # the payment's line with its outcome, and the token's in place
    assert not desk.records.note([])
    desk.records.write()
    assert len(writes) == 2
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["paid"]
    assert desk.states() == {TRANSACTION_ID: "paid"}


def test_what_stands_in_the_files_alone_is_written_at_once(desk: Desk) -> None:
    assert not desk.records.note([connected(1), RefusalRecord(NOW_MS, build_terms(), Reason.SESSION)])
    assert [row[1] for row in desk.rows(CONNECTIONS)] == ["connected"]
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["refused"]


def test_what_is_noted_is_written_before_the_files_are_closed(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.note(desk.begin())
    desk.close()
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["in-flight"]
    desk._open()


def test_a_file_that_is_built_anew_meanwhile_says_the_same_in_the_end(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.note(desk.begin())
    desk.edit(desk.text(TOKENS).replace("1250.00", "9999.00"))
    desk.records.note(desk.settle())
    (desk.directory / TOKENS).unlink()
    for _ in range(3):
        desk.records.poll(NOW)
    desk.records.write()
    assert desk.states() == {TRANSACTION_ID: "paid"}
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["paid"]


# -- connections (R15, T22) ------------------------------------------------------------------------------


def connected(link_id: int, event: str = "connected", reason: str = "") -> ConnectionRecord:
    return ConnectionRecord(NOW_MS, event, link_id, ADDRESS, reason)


def test_connections_are_lines(desk: Desk) -> None:
    desk.records.record([connected(1), connected(0, "refused", "too many"), connected(1, "disconnected", "bye")])
    when, (host, port) = "2026-01-02T00:00:00.000Z", (ADDRESS[0], str(ADDRESS[1]))
    assert desk.rows(CONNECTIONS) == [
        [when, "connected", "1", host, port, ""],
        [when, "refused", "", host, port, "too many"],
        [when, "disconnected", "1", host, port, "bye"],
    ]


def test_what_a_crash_left_open_is_closed_at_the_next_start(desk: Desk) -> None:
    desk.records.record([connected(1), connected(2), connected(1, "disconnected", "bye"), connected(3)])
    desk.restart()
    rows = desk.rows(CONNECTIONS)[4:]
    assert [row[1:3] for row in rows] == [["disconnected", "2"], ["disconnected", "3"]]
    assert {row[5] for row in rows} == {"the gateway ended without closing it"}
    # The next run counts from 1 again, and its links are not taken for those of the last one.
    desk.records.record([connected(2)])
    desk.restart()
    events = [row[1] for row in desk.rows(CONNECTIONS)]
    assert events.count("connected") == events.count("disconnected") == 4
    desk.restart()
    assert len(desk.rows(CONNECTIONS)) == 8


# -- healing ---------------------------------------------------------------------------------------------


def test_a_store_that_is_ahead_of_its_files_brings_them_up(desk: Desk) -> None:
    desk.add(LINE)
    desk.begin()  # committed; then the process was killed before it wrote a record
    desk.restart()
    assert (desk.states(), [row[6] for row in desk.rows(PAYMENTS)]) == ({TRANSACTION_ID: "in-flight"}, ["in-flight"])
    desk.settle()
    desk.restart()
    assert (desk.states(), [row[6] for row in desk.rows(PAYMENTS)]) == ({TRANSACTION_ID: "paid"}, ["paid"])
    assert desk.rows(TOKENS)[0][6] == UTR
    assert desk.log == []


def test_a_payment_that_a_restart_found_in_flight_still_gets_its_outcome_in_place(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    desk.restart()
    desk.records.record(desk.settle())
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["paid"]


@pytest.mark.parametrize("name", [TOKENS, PAYMENTS, CONNECTIONS])
def test_a_file_that_is_gone_is_made_again(desk: Desk, name: str) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    desk.records.record(desk.settle())
    (desk.directory / name).unlink()
    desk.restart()
    assert (desk.states(), [row[6] for row in desk.rows(PAYMENTS)]) == ({TRANSACTION_ID: "paid"}, ["paid"])
    assert desk.text(name).startswith("# ")


def test_refusals_of_every_reason_outlive_a_restart(desk: Desk) -> None:
    # R14: they are in the file only, also those that speak of a payment which the store has.
    desk.add(LINE)
    desk.records.record(desk.begin())
    refusals = [r for r in Reason if r >= Reason.DRAINING]
    desk.records.record([RefusalRecord(NOW_MS, FIRST.terms, reason) for reason in refusals])
    before = desk.rows(PAYMENTS)
    desk.restart()
    assert desk.rows(PAYMENTS) == before
    assert len(before) == 1 + len(refusals)


def test_what_a_power_cut_made_of_lines_keeps_no_gateway_from_starting(desk: Desk) -> None:
    """Lines are not synced: where some were lost there are zeros, of which each would be written as four letters."""
    desk.add(LINE)
    desk.records.record([*desk.begin(), RefusalRecord(NOW_MS, FIRST.terms, Reason.SESSION), connected(1)])
    desk.close()
    *_, refusal, payment = (desk.directory / PAYMENTS).read_bytes().splitlines(keepends=True)
    *_, connection = (desk.directory / CONNECTIONS).read_bytes().splitlines(keepends=True)
    zeros = b"\0" * 1_500 + b"|"
    torn = [payment, payment.replace(b"|", b"\0|", 1), refusal, refusal.replace(b"|", zeros, 1)]
    (desk.directory / PAYMENTS).write_bytes(b"".join(torn))
    (desk.directory / CONNECTIONS).write_bytes(connection.replace(b"|", zeros, 1))
    desk.log.clear()
    desk._open()
    assert sorted(row[6] for row in desk.rows(PAYMENTS)) == ["in-flight", "refused"]
    assert sum("got zero bytes, as a power cut leaves them" in line for line in desk.log) == 2


def test_refusals_stay_where_they_are_among_the_payments(desk: Desk) -> None:
    others = [BeginPayment(build_terms(payment_id=payment_id(n), transaction_id=n), hash_of()) for n in ("A", "B")]
    desk.add(*(LINE.replace(TRANSACTION_ID, name) for name in "AB"))
    refusal = RefusalRecord(NOW_MS, FIRST.terms, Reason.SESSION)
    for begin in others:
        for effects in ([refusal], desk.begin(begin), [refusal]):
            desk.records.record(effects)
    before = desk.rows(PAYMENTS)
    desk.restart()
    assert desk.rows(PAYMENTS) == before
    assert [row[6] for row in before] == ["refused", "in-flight", "refused"] * 2
    # A payment of which another database knew is left out, the refusals behind it are kept.
    stranger = desk.text(PAYMENTS).replace(payment_id("A").hex(), payment_id("C").hex())
    (desk.directory / PAYMENTS).write_text(stranger)
    desk.restart()
    assert sorted(desk.rows(PAYMENTS)) == sorted(before)


def test_payments_that_an_older_store_does_not_know_are_told_and_kept_until_it_does(desk: Desk) -> None:
    desk.add(LINE)
    desk.close()
    older = (desk.directory / "tokens.sqlite").read_bytes()
    desk._open()
    desk.records.record([*desk.begin(), RefusalRecord(NOW_MS, FIRST.terms, Reason.SESSION)])
    desk.records.record(desk.settle())
    before = desk.rows(PAYMENTS)
    desk.close()
    newer = {path: path.read_bytes() for path in desk.directory.glob("tokens.sqlite*")}
    for path in newer:
        path.unlink()
    (desk.directory / "tokens.sqlite").write_bytes(older)
    (desk.directory / "tokens.sqlite").chmod(0o600)
    desk._open()
    edited = desk.text(PAYMENTS).splitlines()[-1].replace(FIRST.terms.payment_id.hex(), "somebody's")
    with (desk.directory / PAYMENTS).open("a", encoding="utf-8") as file:
        file.write(f"{edited}\n")
    desk.restart()
    for _ in range(2):
        assert sorted(desk.rows(PAYMENTS)) == sorted(before)
        told = f"has 1 payments that the store does not know, the last {FIRST.terms.payment_id.hex()}"
        assert any(told in line for line in desk.log)
        desk.restart()
    desk.records.record(desk.begin())  # as the bank's export brings it back
    desk.records.record(desk.settle())
    desk.restart()
    assert sorted(desk.rows(PAYMENTS)) == sorted(before)
    assert not any("does not know" in line for line in desk.log)


def test_a_row_that_a_crash_cut_short_is_left_out(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    path = desk.directory / PAYMENTS
    path.write_bytes(path.read_bytes()[:-40])
    desk.restart()
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["in-flight"]
    assert "the line is left out" in desk.log[0]


def test_a_paid_line_of_a_lost_database_is_not_payable_again(desk: Desk) -> None:
    desk.add(LINE, LINE.replace(TRANSACTION_ID, "TX-2"))
    desk.records.record(desk.begin())
    desk.records.record(desk.settle())
    desk.close()
    for path in desk.directory.glob("tokens.sqlite*"):
        path.unlink()
    desk._open()
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.PAID  # R9
    assert desk.apply(CheckToken("TX-2", PASSCODE)).status is TokenStatus.VALID


def test_the_store_wins_over_an_edited_line(desk: Desk) -> None:
    desk.add(LINE)
    desk.records.record(desk.begin())
    desk.records.record(desk.settle())
    desk.records.poll(NOW)
    edited = desk.text(TOKENS).replace("| paid  ", "| unpaid").replace(UTR, " " * len(UTR))
    desk.edit(edited)
    assert desk.rows(TOKENS)[0][2] == "paid"
    assert desk.apply(CheckToken(TRANSACTION_ID, PASSCODE)).status is TokenStatus.PAID


# -- a disk that has no room for the files (T30) ---------------------------------------------------------


def test_records_that_find_no_room_are_written_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.add(LINE)

    def no_room(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("paygate.files.append_file.write_all", no_room)
        desk.records.record([connected(1), *desk.begin()])
        desk.records.record([connected(1, "disconnected", "bye"), *desk.settle()])
        desk.records.poll(NOW)
        desk.records.record([])  # which needs no room
        desk.records.record([RefusalRecord(NOW_MS, build_terms(), Reason.STORE_UNAVAILABLE)])
        assert len(desk.log) == 1  # once, not at every tick
        assert "No space left on device" in desk.log[0]
    desk.records.poll(NOW)
    assert desk.log[1:] == ["the text records are read and written again"]
    assert [row[1] for row in desk.rows(CONNECTIONS)] == ["connected", "disconnected"]
    assert [row[6] for row in desk.rows(PAYMENTS)] == ["paid", "refused"]
    assert desk.states() == {TRANSACTION_ID: "paid"}


# -- log injection (T21) ---------------------------------------------------------------------------------


def test_nothing_can_make_two_lines_of_one(desk: Desk) -> None:
    evil = "M\nTX-666 | 1 | paid | 1.00 | M-1 | INR\r\u2028\u202e|#"
    terms = build_terms(transaction_id="TX-2", payment_id=payment_id("first"))
    desk.store.apply([IssueToken(build_token(transaction_id="TX-2", merchant_name=evil))], NOW)
    reason = f"protocol: \n{evil}"
    desk.records.record(
        [connected(1), connected(1, "disconnected", reason), RefusalRecord(NOW_MS, terms, Reason.SESSION)]
    )
    desk.restart()
    assert [len(desk.rows(name)) for name in (TOKENS, PAYMENTS, CONNECTIONS)] == [1, 1, 2]
    assert parse_row(desk.text(TOKENS).splitlines()[-1])[8] == evil
    assert all(line.isprintable() for name in (TOKENS, CONNECTIONS) for line in desk.text(name).splitlines())


def parse_row(line: str) -> tuple[str, ...]:
    return TOKENS_LAYOUT.parse(line.encode())


def test_a_bad_line_can_not_forge_a_line_of_the_log(desk: Desk) -> None:
    desk.add("TX-1\\x0a2026 forged | 1 | unpaid | 1.00 | M-1 | INR", "TX-2 | 1 | un\x1b[31mpaid | 1.00 | M-1 | INR")
    assert len(desk.log) == 2
    assert all(line.isprintable() for line in desk.log)


def test_a_token_keeps_its_place_in_the_file(desk: Desk) -> None:
    desk.add(*(LINE.replace(TRANSACTION_ID, f"TX-{number}") for number in range(5)))
    desk.records.record([replace(t, state=TokenState.EXPIRED) for t in list(desk.store.tokens())[1:2]])
    assert list(desk.states().items())[1] == ("TX-1", "expired")
