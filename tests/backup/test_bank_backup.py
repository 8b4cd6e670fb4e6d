"""A bank's backup and what is restored of it, with the ledger itself: UTRs, late authorisations, lost payments."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from backup.bank import LATER, BankFolder

from paygate.audit.exports import ExportHeader, write_export
from paygate.audit.findings import all_findings
from paygate.bank.backup import UTR_JUMP, back_up, load_restored_ms, restore
from paygate.bank.ledger import UTR_SEQUENCE_MODULUS
from paygate.bank.ledger_tables import MADE_AS, SCHEMA
from paygate.bank.reconcile import Reconciler, payers_of
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.server import take_in_now
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.cli import ExitCode
from paygate.clock import system_now
from paygate.codec.codes import TransferOutcome
from paygate.files.database_copy import STEP_PAGE_COUNT, BackupFailed, DatabaseCopy
from paygate.files.sqlite import StoreCorrupt, StoreError
from paygate.files.state_dir import StateError


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BankFolder]:
    bank = BankFolder(tmp_path / "bank")
    yield bank
    bank.close()


def files_of(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its mode."""
    return {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in folder.rglob("*") if p.is_file()}


def restored(bank: BankFolder, folder: Path, **options: Path) -> BankFolder:
    """A bank made of a backup, and taken into use."""
    directory = bank.directory.with_name("restored")
    restore(folder, directory, LATER, **options)
    return BankFolder(directory)


def seven_digits(utr: str) -> int:
    return int(utr[-8:])


# -- making one --------------------------------------------------------------------------------------------


def test_a_backup_is_private_whole_and_without_keys_unless_asked(bank: BankFolder, tmp_path: Path) -> None:
    bank.pay(1)
    bank.close()
    back_up(bank.directory, tmp_path / "plain", LATER, with_keys=False)
    back_up(bank.directory, tmp_path / "keys", LATER, with_keys=True)
    plain, keys = files_of(tmp_path / "plain"), files_of(tmp_path / "keys")
    assert set(plain) == {"bank.json", "keys.signed", "ledger.sqlite", "manifest.json", "root.pub"}
    assert {"root.key", "receipt.key", "decoder/pepper.key", "gateways/GW1.key"} < set(keys)
    assert {*plain.values(), *keys.values()} == {0o600}
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o700
    secrets = [(bank.directory / n).read_bytes().strip() for n in keys if n.endswith(".key")]
    for path in (tmp_path / "plain").iterdir():
        assert not [s for s in secrets if s in path.read_bytes() or bytes.fromhex(s.decode()) in path.read_bytes()]


def test_a_backup_never_overwrites_and_a_failed_one_leaves_nothing(bank: BankFolder, tmp_path: Path) -> None:
    bank.close()
    (tmp_path / "there").mkdir()
    with pytest.raises(BackupFailed, match="exists; a backup never overwrites anything"):
        back_up(bank.directory, tmp_path / "there", LATER, with_keys=False)
    (bank.directory / "root.pub").unlink()
    with pytest.raises(BackupFailed, match="could not write the backup"):
        back_up(bank.directory, tmp_path / "new", LATER, with_keys=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank", "bank-link.key", "there"]


def test_a_ledger_that_does_not_hold_is_not_backed_up(bank: BankFolder, tmp_path: Path) -> None:
    bank.pay(1)
    bank.close()
    connection = apsw.Connection(str(bank.directory / "ledger.sqlite"))
    connection.execute("UPDATE account SET balance_minor = balance_minor + 1 WHERE account_id = 2")
    connection.close()
    with pytest.raises(BackupFailed, match=r"the ledger does not hold, so there is no backup of it: .*account 2"):
        back_up(bank.directory, tmp_path / "new", LATER, with_keys=False)
    assert not (tmp_path / "new").exists()


def test_a_copy_takes_over_what_is_committed_between_its_steps(bank: BankFolder, tmp_path: Path) -> None:
    for number in range(40):
        bank.pay(number)
    target = tmp_path / "copy.sqlite"
    copy: DatabaseCopy = bank.ledger.copy_to(target)
    step_count = 1
    while not copy.step(3):
        bank.pay(100 + step_count)
        step_count += 1
    copy.close()
    assert step_count > 5
    ours = bank.ledger.utr_sequence
    bank.close()
    connection = apsw.Connection(str(target))
    assert connection.execute("SELECT utr_sequence FROM bank").get == ours == 40 + step_count - 1
    assert connection.pragma("integrity_check") == "ok"
    connection.close()
    assert STEP_PAGE_COUNT > 3


def test_a_copy_that_finds_no_room_says_so_and_the_ledger_goes_on(bank: BankFolder, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match=r"could not make .*nowhere"):
        bank.ledger.copy_to(tmp_path / "nowhere" / "x.sqlite")
    copy = bank.ledger.copy_to(tmp_path / "copy.sqlite")
    copy._copy.pragma("max_page_count", 3)  # as a full disk would
    with pytest.raises(BackupFailed, match=r"no room on the disk for .*copy\.sqlite"):
        copy.step()
    with pytest.raises(BackupFailed, match="no room on the disk"):
        copy.close()
    assert bank.pay(1).outcome is TransferOutcome.POSTED


# -- restoring one -----------------------------------------------------------------------------------------


def test_a_restored_bank_is_the_one_that_was_and_gives_out_no_utr_again(bank: BankFolder, tmp_path: Path) -> None:
    before = [bank.pay(number) for number in range(3)]
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    bank.open()
    lost = [bank.pay(number) for number in range(3, 30)]
    after = restored(bank, tmp_path / "backup")
    assert after.balance() == bank.balance() + 27 * bank.amount_minor
    again = [after.pay(number) for number in range(100, 130)]
    utrs = [outcome.utr for outcome in (*before, *lost, *again)]
    assert len(set(utrs)) == len(utrs) == 60
    assert seven_digits(again[0].utr) == 3 + UTR_JUMP + 1
    assert not all_findings(after.audit())
    after.close()


def test_a_restore_with_the_old_transactions_keeps_them_and_the_key_list_goes_up(
    bank: BankFolder, tmp_path: Path
) -> None:
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    serial = bank.key_list().serial
    bank.write_transactions([bank.opened().pay(1).utr])
    after = restored(bank, tmp_path / "backup", transactions=bank.directory / "TransactionID.txt")
    assert after.key_list().serial == serial + 1_000
    assert list(payers_of(after.directory / "TransactionID.txt", "PGBK").values()) == ["C-1"]
    assert load_restored_ms(after.directory) == LATER.wall_ms
    assert load_restored_ms(bank.directory) == 0
    after.close()


def test_keys_may_come_from_elsewhere_and_must_belong_to_the_bank(bank: BankFolder, tmp_path: Path) -> None:
    bank.close()
    back_up(bank.directory, tmp_path / "plain", LATER, with_keys=False)
    with pytest.raises(StateError, match="has no keys of a bank; give --keys DIR"):
        restore(tmp_path / "plain", tmp_path / "restored", LATER)
    restore(tmp_path / "plain", tmp_path / "restored", LATER, keys=bank.directory)
    stranger = BankFolder(tmp_path / "stranger")
    stranger.close()
    with pytest.raises(StateError, match=r"the keys in .*stranger are another bank's, not those of BANK1"):
        restore(tmp_path / "plain", tmp_path / "other", LATER, keys=stranger.directory)
    (stranger.directory / "root.key").unlink()
    with pytest.raises(StateError, match="are another bank's"):
        restore(tmp_path / "plain", tmp_path / "other", LATER, keys=stranger.directory)
    assert not (tmp_path / "other").exists()
    (stranger.directory / "keys.signed").unlink()
    with pytest.raises(StateError, match="the key that signs receipts is not in the key list"):
        restore(tmp_path / "plain", tmp_path / "other", LATER, keys=stranger.directory)
    assert not (tmp_path / "other" / "bank.json").exists()  # so nothing serves it


def test_without_the_root_key_the_key_list_stays_and_that_is_told(bank: BankFolder, tmp_path: Path) -> None:
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    (bank.directory / "root.key").unlink()  # kept elsewhere, as it may be
    told = restore(tmp_path / "backup", tmp_path / "restored", LATER, keys=bank.directory)
    assert "its root key is not here, so its key list is the old one; sign a new one with rotate-keys" in told
    after = BankFolder(tmp_path / "restored")
    assert after.key_list() == bank.key_list()
    after.close()


def test_a_backup_of_before_an_update_is_restored_by_it(
    bank: BankFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.pay(1)
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    newer = len(SCHEMA) + 1
    monkeypatch.setattr("paygate.bank.sqlite_ledger.SCHEMA", (*SCHEMA, "SELECT 1"))
    monkeypatch.setattr("paygate.bank.backup.MADE_AS", {**MADE_AS, "version": newer})
    after = restored(bank, tmp_path / "backup")
    assert after.balance() == 5_000_000 - bank.amount_minor
    after.close()
    back_up(after.directory, tmp_path / "of newer", LATER, with_keys=False)
    with pytest.raises(
        StoreError, match=f"has version {newer - 1} .* taken over by a start of its server, or a restore"
    ):
        back_up(bank.directory, tmp_path / "of older", LATER, with_keys=False)


def test_a_restore_that_was_cut_off_is_no_bank_and_is_not_taken_up(
    bank: BankFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)

    def die(_ledger: SqliteLedger, _sequence: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SqliteLedger, "skip_utrs", die)
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "backup", tmp_path / "restored", LATER)
    monkeypatch.undo()
    with pytest.raises(StateError, match="there is no bank in"):
        BankFolder(tmp_path / "restored")
    with pytest.raises(StateError, match="is not empty"):
        restore(tmp_path / "backup", tmp_path / "restored", LATER)


def test_a_restore_refuses_what_is_not_empty_and_a_backup_that_was_changed(bank: BankFolder, tmp_path: Path) -> None:
    bank.close()
    folder = tmp_path / "backup"
    back_up(bank.directory, folder, LATER, with_keys=True)
    with pytest.raises(StateError, match="is not empty; a restore never overwrites anything"):
        restore(folder, bank.directory, LATER)
    with pytest.raises(StateError, match=r"could not read .*nowhere: No such file or directory$"):
        restore(folder, tmp_path / "restored", LATER, transactions=tmp_path / "nowhere")
    data = bytearray((folder / "ledger.sqlite").read_bytes())
    data[-1] ^= 1
    (folder / "ledger.sqlite").write_bytes(data)
    with pytest.raises(StateError, match=r"ledger\.sqlite is not what was backed up"):
        restore(folder, tmp_path / "restored", LATER)
    (folder / "ledger.sqlite").unlink()
    with pytest.raises(StateError, match="is no whole backup"):
        restore(folder, tmp_path / "restored", LATER)
    (folder / "manifest.json").write_text(json.dumps({"backup": "paygate-gateway 1", "sha256": {}}), encoding="ascii")
    with pytest.raises(StateError, match="is a backup of another kind"):
        restore(folder, tmp_path / "restored", LATER)
    assert StateError.code is ExitCode.BAD_STATE
    assert not (tmp_path / "restored").exists()


# -- an older ledger that is put in by hand -----------------------------------------------------------------


def put_back(bank: BankFolder, older: bytes) -> None:
    """An operator copies an older ledger over the bank's."""
    bank.close()
    (bank.directory / "ledger.sqlite").write_bytes(older)


@pytest.mark.pg("PG-TRF-6")
def test_an_older_ledger_put_in_by_hand_is_refused_and_what_is_said_makes_a_bank_of_it(
    bank: BankFolder, tmp_path: Path
) -> None:
    bank.pay(0)
    bank.close()
    older = (bank.directory / "ledger.sqlite").read_bytes()
    bank.open()
    lost = [bank.pay(1).utr, bank.pay(2).utr]
    payments = bank.ledger.exported_payments("GW1")
    bank.close()
    take_in_now(bank.directory)  # the text records, as a server leaves them
    put_back(bank, older)
    record = (bank.directory / "TransactionID.txt").read_bytes()
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=f"tells of 2 later payments, from UTR {lost[0]} on, .*'restore'"):
            take_in_now(bank.directory)
    assert (bank.directory / "TransactionID.txt").read_bytes() == record
    # Nor may what is proven be entered here: fences would still be missing.
    export = tmp_path / "gateway.jsonl"
    write_export(export, ExportHeader("gateway", "BANK1", "GW1"), payments)
    for command in (["serve", "--port", "0"], ["reconcile", str(export)]):
        argv = [sys.executable, "-m", "paygate.bank", *command, "--state", str(bank.directory)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (ExitCode.BAD_STATE, ""), done.stderr
        assert "the ledger is older than TransactionID.txt" in done.stderr
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=False)
    old = bank.directory
    after = restored(bank, tmp_path / "backup", keys=old, transactions=old / "TransactionID.txt")
    assert load_restored_ms(after.directory) == LATER.wall_ms
    work = reconciler(after, payers_of(after.directory / "TransactionID.txt", "PGBK"))
    list(work.lines(payments, LATER))
    assert (work.known_count, work.entered_count, work.left_count) == (1, 2, 0)
    after.close()
    take_in_now(after.directory)


def test_a_ledger_that_lost_its_last_commit_is_refused_where_the_record_tells_of_it(
    bank: BankFolder, tmp_path: Path
) -> None:
    utrs = [bank.pay(number).utr for number in (1, 2)]
    bank.write_transactions(utrs)
    shutil.copytree(bank.directory, tmp_path / "killed")
    log = tmp_path / "killed" / "ledger.sqlite-wal"
    data = bytearray(log.read_bytes())
    data[-1] ^= 1  # in the log alone this looks as a power cut does
    log.write_bytes(data)
    with pytest.raises(StoreCorrupt, match=f"tells of 1 later payments, from UTR {utrs[1]} on"):
        take_in_now(tmp_path / "killed")


def test_a_restored_bank_notices_an_older_ledger_of_itself_and_of_before(bank: BankFolder, tmp_path: Path) -> None:
    before = lost_after_a_backup(bank, tmp_path, 2)
    before.close()
    unrestored = (tmp_path / "backup" / "ledger.sqlite").read_bytes()
    older = (before.directory / "ledger.sqlite").read_bytes()
    after = before.opened()
    new = after.pay(50).utr
    after.close()
    take_in_now(after.directory)
    put_back(after, unrestored)
    with pytest.raises(StateError, match=r"ledger\.sqlite is older than the restore that restored\.json tells of"):
        after.open()
    put_back(after, older)
    with pytest.raises(StoreCorrupt, match=f"tells of 1 later payments, from UTR {new} on"):
        take_in_now(after.directory)


def test_a_bank_that_does_not_know_any_more_that_it_was_restored_is_refused(bank: BankFolder, tmp_path: Path) -> None:
    after = lost_after_a_backup(bank, tmp_path, 3)
    payments = bank.ledger.exported_payments("GW1")
    list(reconciler(after, {payment.utr: "C-1" for payment in payments}).lines(payments, LATER))
    after.pay(100)
    after.close()
    path = after.directory / "restored.json"
    path.unlink()
    with pytest.raises(
        StateError, match=r"restored\.json is gone, and the ledger was restored.* let it say now"
    ) as told:
        after.open()
    subprocess.run(["sh", "-c", str(told.value).partition("say now: ")[2]], check=True)
    assert abs(load_restored_ms(after.directory) - system_now().wall_ms) < 60_000
    after.open()


def test_a_bank_restored_again_from_one_backup_passes_over_what_it_gave_out_since(
    bank: BankFolder, tmp_path: Path
) -> None:
    first = lost_after_a_backup(bank, tmp_path, 2)
    given = [first.pay(number).utr for number in (50, 51)]
    first.close()
    take_in_now(first.directory)
    left = first.directory.rename(tmp_path / "lost")
    second = restored(bank, tmp_path / "backup", transactions=left / "TransactionID.txt")
    assert second.pay(60).utr not in given
    second.close()
    take_in_now(second.directory)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it has no line that is 7 columns"),
        (b"\x7fELF\0\xff\n\n", "line 1 is not 7 columns"),
        (b"# customers\n\nC-1 | asha | secret | 1.00\n", "line 3 is not 7 columns"),
        (b"not-a-utr | C-1 | M-100 | 1.00 | INR | TX | 2026\n", "line 1 is not .* the first a UTR from PGBKP on"),
        (b"ELSEP12026010200000001 | C-1 | M-100 | 1.00 | INR | TX | 2026\n", "line 1 is not "),
    ],
)
def test_what_is_no_record_of_this_banks_transactions_is_not_restored(
    bank: BankFolder, tmp_path: Path, text: bytes, problem: str
) -> None:
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    wrong = tmp_path / "wrong.txt"
    wrong.write_bytes(text)
    with pytest.raises(StateError, match=rf"wrong\.txt is no TransactionID\.txt: {problem}.*give the path of") as told:
        restore(tmp_path / "backup", tmp_path / "restored", LATER, transactions=wrong)
    assert "secret" not in str(told.value)
    with pytest.raises(StateError, match=r"could not read .*bank: Is a directory"):
        restore(tmp_path / "backup", tmp_path / "restored", LATER, transactions=bank.directory)
    assert not (tmp_path / "restored").exists()


def test_a_record_without_payments_or_with_a_damaged_line_is_one(bank: BankFolder, tmp_path: Path) -> None:
    record = tmp_path / "record.txt"
    record.write_bytes(TRANSACTIONS_LAYOUT.header)
    assert payers_of(record, "PGBK") == {}
    row = b"PGBKP12026010200000001 | C-1 | M-100 | 1.00 | INR | TX | 2026\n"
    record.write_bytes(b"\0" * 512 + b"\n" + row)
    assert payers_of(record, "PGBK") == {"PGBKP12026010200000001": "C-1"}


# -- bringing back what is missing -------------------------------------------------------------------------


def lost_after_a_backup(bank: BankFolder, tmp_path: Path, count: int) -> BankFolder:
    """A restored bank that does not know the last payments, whose receipts a gateway has."""
    bank.pay(0)
    bank.close()
    back_up(bank.directory, tmp_path / "backup", LATER, with_keys=True)
    bank.open()
    for number in range(1, count + 1):
        bank.pay(number)
    return restored(bank, tmp_path / "backup")


def reconciler(bank: BankFolder, payers: dict[str, str]) -> Reconciler:
    return Reconciler(bank.ledger, bank.key_list(), "GW1", payers)


@pytest.mark.pg("PG-TRF-6", "PG-RES-9")
@pytest.mark.parametrize("served_count", [0, 1, 5])
def test_what_is_proven_is_entered_as_it_was(bank: BankFolder, tmp_path: Path, served_count: int) -> None:
    after = lost_after_a_backup(bank, tmp_path, 4)
    for number in range(served_count):
        assert after.pay(100 + number).outcome is TransferOutcome.POSTED
    payments = bank.ledger.exported_payments("GW1")
    work = reconciler(after, {payment.utr: "C-1" for payment in payments})
    lines = list(work.lines(payments, LATER))
    assert (work.known_count, work.entered_count, work.left_count) == (1, 4, 0), lines
    assert after.balance() == bank.balance() - served_count * bank.amount_minor
    assert [p for p in after.ledger.exported_payments("GW1") if p in payments] == payments
    assert after.pay(200).outcome is TransferOutcome.POSTED
    assert not all_findings(after.audit())
    # Again changes nothing.
    again = reconciler(after, {})
    assert list(again.lines(payments, LATER)) == []
    assert (again.known_count, again.entered_count, again.left_count) == (5, 0, 0)
    after.close()


def test_what_is_not_proven_or_can_not_be_entered_is_named_for_people(bank: BankFolder, tmp_path: Path) -> None:
    after = lost_after_a_backup(bank, tmp_path, 5)
    _, unknown, nobody, twice, forged, poor = bank.ledger.exported_payments("GW1")
    after.pay(100, transaction_id=twice.transaction_id)
    after.pay(101, amount_minor=after.balance() - 1)
    payments = [unknown, nobody, twice, replace(forged, receipt=unknown.receipt), poor]
    payers = {nobody.utr: "C-NOBODY", twice.utr: "C-1", poor.utr: "C-1"}
    work = reconciler(after, payers)
    lines = "\n".join(work.lines(payments, LATER))
    assert (work.entered_count, work.left_count) == (0, 5)
    for why in (
        "proven, but who paid is not known: find the UTR in an old TransactionID.txt",
        "proven, but the ledger has no such customer or merchant (customer C-NOBODY)",
        "proven, but another payment of its token is in the ledger (customer C-1)",
        "its receipt proves nothing, so the gateway has no proof",
        "proven, but the customer's balance does not cover it any more (customer C-1)",
    ):
        assert why in lines
    assert f"UTR {poor.utr}, 1.00 INR to merchant M-100" in lines
    assert not all_findings(after.audit())
    after.close()


def test_a_utr_whose_digits_come_round_is_still_in_its_order(bank: BankFolder, tmp_path: Path) -> None:
    bank.ledger.skip_utrs(UTR_SEQUENCE_MODULUS - 2)
    bank.restored_at(1)  # or it is refused, for UTRs that only a restore passes over
    after = lost_after_a_backup(bank, tmp_path, 3)
    payments = bank.ledger.exported_payments("GW1")
    assert [seven_digits(p.utr) for p in payments] == [UTR_SEQUENCE_MODULUS - 1, 0, 1, 2]
    work = reconciler(after, {payment.utr: "C-1" for payment in payments})
    list(work.lines(payments, LATER))
    assert work.entered_count == 3
    after.pay(100)
    assert not all_findings(after.audit())
    after.close()
