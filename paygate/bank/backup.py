"""A bank's backup, and what is made of it: a bank that gives out no UTR again and takes nothing twice (T1, T6, T7).

    ledger.sqlite                     accounts with balances and verifiers, payments, postings
    bank.json root.pub keys.signed    which bank it is, and its public keys
    root.key receipt.key decoder/ gateways/    only with keys: whoever has these is the bank

The text records are not in it: they are made anew from the ledger. A restored bank does not know what came after the
backup, so three things keep it from harm: its UTRs go on far beyond all that can have been given out; what was
authorised before the restore and is not in the ledger is LATE for ever; and its key list has a serial that is above all
that clients have seen (T10). What is missing, a gateway's receipts bring back (`reconcile.py`).
"""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from paygate.audit.findings import all_findings
from paygate.bank.audit import LEDGER_NAME, audit_ledger
from paygate.bank.keys import (
    KEY_LIST_NAME,
    are_keys_of,
    gateway_ids,
    has_root_key,
    key_file_names,
    load_identity,
    load_key_list,
    load_receipt_key,
    public_file_names,
    renew_key_list,
    root_key_line,
)
from paygate.bank.ledger import UTR_AHEAD_MAX, UTR_SEQUENCE_MODULUS, BankIdentity, utr_steps_ahead
from paygate.bank.ledger_tables import MADE_AS
from paygate.bank.reconcile import payers_of
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.clock import Now, utc_text
from paygate.codec.seal import key_id_of
from paygate.codec.sealed import KeyList
from paygate.files.backup_folder import check_backup, copy_files, copy_private, empty_state, make_backup
from paygate.files.database_copy import BackupFailed, copy_store
from paygate.files.file_errors import unusable
from paygate.files.sqlite import open_to_read
from paygate.files.state_dir import StateError

KIND: Final = "paygate-bank 1"
RESTORED_NAME: Final = "restored.json"
"""When this bank was restored; not there in one that never was."""
UTR_JUMP: Final = UTR_SEQUENCE_MODULUS // 2
"""UTRs that are passed over at a restore: half of those that a day can have. So many may have been given out since the
backup; and as many may be given out from then on before one of that day could come again."""


def back_up(directory: Path, target: Path, now: Now, *, with_keys: bool) -> None:
    """Make a backup of a bank, running or not. Raises BackupFailed, StateError, StoreError."""
    identity = load_identity(directory)
    manifest = {"backup": KIND, "bank_id": identity.bank_id, "made": utc_text(now.wall_ms), "has_keys": with_keys}

    def fill(folder: Path) -> None:
        copy_store(directory, LEDGER_NAME, folder / LEDGER_NAME, **MADE_AS)
        # Behind the ledger: the key that signed a receipt in it is in the list then.
        names = [*public_file_names(), *(key_file_names(directory) if with_keys else ())]
        copy_files(directory, folder, names)
        if problem := _ledger_problem(folder, identity, load_key_list(folder)):
            raise BackupFailed(f"the ledger does not hold, so there is no backup of it: {problem}")

    make_backup(target, manifest, fill)


def _ledger_problem(folder: Path, identity: BankIdentity, key_list: KeyList) -> str:
    """What an audit finds first; nothing is changed."""
    connection = open_to_read(folder / LEDGER_NAME, **MADE_AS)
    try:
        findings = all_findings(audit_ledger(connection, identity, key_list))
    finally:
        connection.close()
    return str(findings[0]) if findings else ""


def restore(
    backup: Path, directory: Path, now: Now, *, keys: Path | None = None, transactions: Path | None = None
) -> list[str]:
    """Make a bank of a backup in a new or empty directory; gives what an operator should know.

    `keys`: where its keys are, a backup with keys or what is left of the old state directory; by default in the backup
    itself. `transactions`: the old bank's TransactionID.txt, if it is left. Raises StateError, StoreError.
    """
    manifest = check_backup(backup, KIND)
    keys = keys or backup
    key_names = key_file_names(keys)
    if not key_names:
        where = "a backup that was made --with-keys, or what is left of the old state directory"
        raise StateError(f"{keys} has no keys of a bank; give --keys DIR: {where}")
    identity = load_identity(backup)
    if not are_keys_of(keys, root_key_line(backup)):
        # A bank with these would be one that clients don't trust, and every password would be wrong.
        raise StateError(f"the keys in {keys} are another bank's, not those of {identity.bank_id} in {backup}")
    told_utrs = payers_of(transactions, identity.bank_code) if transactions is not None else {}
    state = empty_state(directory)
    try:
        # The list of the place where the keys are: it may be newer than the backup, and names just these keys.
        list_source = keys if (keys / KEY_LIST_NAME).exists() else backup
        copy_files(list_source, directory, [KEY_LIST_NAME])
        copy_files(backup, directory, [n for n in public_file_names() if not (directory / n).exists()][:-1])
        copy_files(keys, directory, key_names)
        if transactions is not None:
            copy_private(transactions, directory / TRANSACTIONS_LAYOUT.file_name)
        copy_private(backup / LEDGER_NAME, directory / LEDGER_NAME)
        state.write_atomic(RESTORED_NAME, json.dumps({"restored_ms": now.wall_ms}).encode() + b"\n")
        told = _prepare(directory, identity, now, told_utrs)
        # Last, since it says that there is a bank: what a crash leaves before is refused as none.
        copy_files(backup, directory, public_file_names()[-1:])
    except OSError as error:
        raise unusable(error, directory) from None
    finally:
        state.close()
    return [f"restored bank {identity.bank_id} as it was at {manifest['made']}", *told]


def _prepare(directory: Path, identity: BankIdentity, now: Now, told_utrs: Iterable[str]) -> list[str]:
    """Check what was restored, and bring UTRs and key list beyond all that was given out, as far as anybody tells."""
    if has_root_key(directory):
        serial = renew_key_list(directory, now.wall_ms).serial
        told = [f"its key list has serial {serial} now, so that clients take it"]
    else:
        told = ["its root key is not here, so its key list is the old one; sign a new one with rotate-keys"]
    key_list, receipt_key = load_key_list(directory), load_receipt_key(directory)
    key_id = key_id_of(receipt_key.public_key().public_bytes_raw())
    if key_id not in {key.receipt_key_id for key in key_list.receipt_keys}:
        raise StateError("the key that signs receipts is not in the key list; give --keys with keys that belong to it")
    ledger = SqliteLedger(directory / LEDGER_NAME, identity, receipt_key)  # takes over one of an older version
    try:
        if findings := all_findings(ledger.audit(key_list)):
            raise StateError(f"the backup's ledger does not hold: {findings[0]}; take another backup")
        ledger.skip_utrs(ledger.utr_sequence + UTR_JUMP)
        # A bank that is restored once more from the same backup gave these out since the first time.
        steps = (utr_steps_ahead(utr, ledger.utr_sequence, ledger.bank_time_ms) for utr in told_utrs)
        ledger.skip_utrs(ledger.utr_sequence + max(steps, default=0))
        told.append(f"its next UTR ends in {(ledger.utr_sequence + 1) % UTR_SEQUENCE_MODULUS:08d}")
    finally:
        ledger.close()
    names = ", ".join(gateway_ids(directory)) or "none is known here"
    told.append(f"payments made since the backup are missing; 'reconcile' with an export of each gateway: {names}")
    return told


def load_restored_ms(directory: Path) -> int:
    """When this bank was restored, wall time; 0 if it never was. Raises StateError."""
    path = directory / RESTORED_NAME
    try:
        value = json.loads(path.read_bytes())["restored_ms"]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, int) or value < 0:
        raise StateError(f'{path}: expected {{"restored_ms": ...}}, a time in ms; restore the bank again')
    return value


def check_restored(directory: Path, ledger: SqliteLedger) -> None:
    """Raises StateError if RESTORED_NAME does not belong to a state directory's ledger (T6).

    The UTRs that a restore passes over show in the ledger. So a file that was deleted is missed, and a ledger of before
    the restore that was put in the place of the restored one is noticed.
    """
    path = directory / RESTORED_NAME
    was_restored = ledger.skipped_utr_count > UTR_AHEAD_MAX
    is_said = load_restored_ms(directory) > 0
    if was_restored and not is_said:
        raise StateError(
            f"{path} is gone, and the ledger was restored from a backup: without the time of that, payments from "
            "before it could be posted again. Put it back, or let it say now: "
            f"echo '{{\"restored_ms\": '$(date +%s000)'}}' > {shlex.quote(str(path))}"
        )
    if is_said and not was_restored:
        raise StateError(
            f"{directory / LEDGER_NAME} is older than the restore that {path.name} tells of, so it would post payments "
            "again. Put the restored one back; if it is lost, restore the backup again, into a new directory"
        )
