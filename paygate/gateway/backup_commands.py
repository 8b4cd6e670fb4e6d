"""`paygate-gateway backup`, `restore` and `reconcile`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from paygate.audit.command import key_list_of
from paygate.audit.exports import read_export
from paygate.cli import ExitCode, PaygateExit
from paygate.clock import system_now
from paygate.files.state_dir import StateDir
from paygate.gateway.backup import back_up, restore
from paygate.gateway.reconcile import Reconciler
from paygate.gateway.record_lines import TOKENS_LAYOUT
from paygate.gateway.server import take_in_now
from paygate.gateway.settings import STORE_NAME, read_identity
from paygate.gateway.sqlite_tokens import SqliteTokens


def add_backup_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Make them known to the command line."""
    backup = add("backup", _backup, "Copy the store into a new folder, while the gateway runs or not; check the copy.")
    backup.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that is not there yet (mode 0700)")
    backup.add_argument(
        "--with-keys", action="store_true", help="with the link key: whoever has it speaks to the bank as this gateway"
    )
    again = add("restore", _restore, "Make a gateway of a backup in a new state directory.")
    again.add_argument("folder", type=Path, metavar="FOLDER", help="a backup")
    again.add_argument("--link-key", type=Path, metavar="FILE", help="the link key, if the backup has none")
    again.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help=f"the old gateway's {TOKENS_LAYOUT.file_name}, if it is left: has the tokens that were issued since",
    )
    reconcile = add("reconcile", _reconcile, "Enter payments that a restored gateway lost and the bank has.")
    reconcile.add_argument("export", type=Path, metavar="FILE", help="what 'paygate-bank export-payments' wrote")


def _backup(options: argparse.Namespace) -> int:
    back_up(options.state, options.folder, system_now(), with_keys=options.with_keys)
    key = "the link key" if options.with_keys else "no key"
    _say(f"made {options.folder}; it holds tokens with their passcodes, payments, and {key}: keep it private")
    return ExitCode.OK


def _restore(options: argparse.Namespace) -> int:
    told = restore(options.folder, options.state, link_key=options.link_key, tokens=options.tokens)
    state = StateDir(options.state)
    state.open()
    take_in_now(options.state)  # the text records, made anew
    state.close()
    for line in told:
        _say(line)
    return ExitCode.OK


def _reconcile(options: argparse.Namespace) -> int:
    state = StateDir(options.state)
    identity = read_identity(state)
    header, payments = read_export(options.export, "bank")
    if (header.bank_id, header.gateway_id) != (identity.bank_id, identity.gateway_id):
        raise PaygateExit(
            f"{options.export} is of bank {header.bank_id} and gateway {header.gateway_id}, not of {identity.bank_id} "
            f"and {identity.gateway_id}",
            ExitCode.USAGE,
        )
    key_list = key_list_of(options.export, header)
    state.open()
    try:
        take_in_now(options.state)  # tokens that were issued since the backup
        store = SqliteTokens(options.state / STORE_NAME)
        try:
            work = Reconciler(store, key_list, identity.gateway_id)
            for line in work.lines(payments, system_now()):
                _say(line)
        finally:
            store.close()
        take_in_now(options.state)  # the text records say it too
    finally:
        state.close()
    _say(f"{work.known_count} known, {work.entered_count} entered, {work.left_count} left to people")
    return ExitCode.FINDINGS if work.left_count else ExitCode.OK


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
