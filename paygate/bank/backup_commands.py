"""`paygate-bank backup`, `restore` and `reconcile`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from paygate.audit.exports import read_export
from paygate.bank.backup import back_up, restore
from paygate.bank.keys import load_identity, load_key_list
from paygate.bank.reconcile import Reconciler, payers_of
from paygate.bank.record_lines import TRANSACTIONS_LAYOUT
from paygate.bank.server import open_ledger, take_in_now
from paygate.cli import ExitCode, PaygateExit
from paygate.clock import system_now
from paygate.files.file_errors import unusable
from paygate.files.state_dir import StateDir


def add_backup_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Make them known to the command line."""
    backup = add("backup", _backup, "Copy the ledger into a new folder, while the bank runs or not; check the copy.")
    backup.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that is not there yet (mode 0700)")
    backup.add_argument(
        "--with-keys",
        action="store_true",
        help="with all keys: whoever has that folder is the bank, and can read and sign everything",
    )
    again = add("restore", _restore, "Make a bank of a backup in a new state directory.")
    again.add_argument("folder", type=Path, metavar="FOLDER", help="a backup")
    again.add_argument(
        "--keys", type=Path, metavar="DIR", help="where the keys are: a backup with keys, or an old state directory"
    )
    again.add_argument(
        "--transactions",
        type=Path,
        metavar="FILE",
        help=f"the old bank's {TRANSACTIONS_LAYOUT.file_name}, if it is left: says who paid since the backup",
    )
    reconcile = add("reconcile", _reconcile, "Enter payments again that a restored bank lost and a gateway can prove.")
    reconcile.add_argument("export", type=Path, metavar="FILE", help="what 'paygate-gateway export-payments' wrote")
    reconcile.add_argument(
        "--transactions",
        type=Path,
        metavar="FILE",
        help=f"a {TRANSACTIONS_LAYOUT.file_name} that says who paid (default: the state directory's)",
    )


def _backup(options: argparse.Namespace) -> int:
    back_up(options.state, options.folder, system_now(), with_keys=options.with_keys)
    secret = (
        "the bank's keys and all records: it is as secret as the bank itself"
        if options.with_keys
        else ("all records, passwords as verifiers, and no key: keep the keys elsewhere")
    )
    _say(f"made {options.folder}; it holds {secret}")
    return ExitCode.OK


def _restore(options: argparse.Namespace) -> int:
    told = restore(options.folder, options.state, system_now(), keys=options.keys, transactions=options.transactions)
    state = StateDir(options.state)
    state.open()
    take_in_now(options.state)  # the text records, made anew
    state.close()
    for line in told:
        _say(line)
    return ExitCode.OK


def _reconcile(options: argparse.Namespace) -> int:
    identity, key_list = load_identity(options.state), load_key_list(options.state)
    header, payments = read_export(options.export, "gateway")
    if header.bank_id != identity.bank_id:
        raise PaygateExit(f"{options.export} is about bank {header.bank_id}, not {identity.bank_id}", ExitCode.USAGE)
    transactions = options.transactions or options.state / TRANSACTIONS_LAYOUT.file_name
    state = StateDir(options.state)
    state.open()
    try:
        take_in_now(options.state)  # which refuses an older copy of the ledger: that has to be restored first
        payers = payers_of(transactions, identity.bank_code)
        ledger = open_ledger(options.state)
        try:
            work = Reconciler(ledger, key_list, header.gateway_id, payers)
            for line in work.lines(payments, system_now()):
                _say(line)
        finally:
            ledger.close()
        take_in_now(options.state)  # the text records say it too
    except OSError as error:
        raise unusable(error, options.state) from None
    finally:
        state.close()
    _say(f"{work.known_count} known, {work.entered_count} entered again, {work.left_count} left to people")
    return ExitCode.FINDINGS if work.left_count else ExitCode.OK


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
