"""`paygate-bank`: make a bank, run it, add accounts and gateways, rotate keys."""

import argparse
import getpass
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from paygate.arguments import Command, add_capture, port, server_parser
from paygate.bank.audit_commands import add_audit_commands
from paygate.bank.backup_commands import add_backup_commands
from paygate.bank.decoding import make_verifiers
from paygate.bank.keys import (
    add_gateway,
    load_identity,
    load_key_list,
    load_signed_key_list,
    make_keys,
    retire_key,
    root_key_line,
    rotate_keys,
)
from paygate.bank.ledger import BankIdentity
from paygate.bank.record_lines import MERCHANTS_LAYOUT, USERS_LAYOUT, parse_customer, parse_merchant
from paygate.bank.records import export_records
from paygate.bank.server import PROGRAM, BankOptions, open_ledger, serve, take_in_now
from paygate.cli import ExitCode, PaygateExit, run
from paygate.clock import system_now, utc_text
from paygate.codec import limits
from paygate.codec.messages import MakeVerifier
from paygate.codec.sealed import KeyList
from paygate.files.added_line import add_line, read_rows
from paygate.files.state_dir import StateDir, StateError
from paygate.files.text_records import FieldProblem, Layout
from paygate.hardening import protect_process

DEFAULT_STATE: Final = "var/bank"


def main() -> int:
    """Entry point of the console script."""
    return run(PROGRAM, _main)


def _main() -> int:
    options = _parser().parse_args()
    command: Command = options.command
    # Every command may hold a key or a password.
    protect_process()
    return command(options)


def _parser() -> argparse.ArgumentParser:
    codes = [ExitCode.OK, ExitCode.USAGE, ExitCode.PORT_IN_USE, ExitCode.STATE_IN_USE]
    codes += [ExitCode.BAD_STATE, ExitCode.STORE_FAILED, ExitCode.FINDINGS, ExitCode.INTERNAL]
    parser, add = server_parser(
        PROGRAM, "A bank that opens envelopes, moves money and signs receipts.", codes, DEFAULT_STATE
    )

    init = add("init", _init, "Make a new bank: its state directory and its keys.")
    init.add_argument("--bank-id", required=True, metavar="ID", help="what gateways and clients call it")
    init.add_argument("--bank-code", required=True, metavar="ABCD", help="four letters; its UTRs begin with them")
    init.add_argument("--currency", default="INR", help="the one currency of its accounts (INR)")
    init.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help=f"folder whose {USERS_LAYOUT.file_name} and {MERCHANTS_LAYOUT.file_name} to begin with",
    )

    server = add("serve", _serve, "Run the bank until SIGTERM drains it.")
    server.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (127.0.0.1)")
    server.add_argument("--port", type=port, default=15001, help="port to listen on; 0 for any free one (15001)")
    server.add_argument("--ignore-sigterm", action="store_true", help="ignore SIGTERM too; only SIGKILL ends it")
    add_capture(server)

    account = add("add-account", _add_account, "Add a customer. The password never touches the disk.")
    account.add_argument("--customer", required=True, metavar="ID", help="customer ID")
    account.add_argument("--user", required=True, metavar="ID", help="net-banking user ID")
    account.add_argument("--amount", required=True, help="opening balance, such as 1000.00")
    account.add_argument(
        "--password-fd", type=int, metavar="N", help="read the password from this descriptor (default: ask for it)"
    )

    merchant = add("add-merchant", _add_merchant, "Add a merchant.")
    merchant.add_argument("--merchant", required=True, metavar="ID", help="merchant ID")
    merchant.add_argument("--name", default="", help="its name for people")
    merchant.add_argument("--amount", default="0", help="opening balance (0)")

    gateway = add("add-gateway", _add_gateway, "Make a link key for a gateway; a running bank knows it at once.")
    gateway.add_argument("gateway", metavar="GATEWAY_ID", help="the gateway's ID")
    gateway.add_argument(
        "--key-out", required=True, type=Path, metavar="FILE", help="where to write the gateway's copy of the key"
    )

    add("rotate-keys", _rotate_keys, "Add new sealing keys; the old ones stay valid until they are retired.")
    retire = add("retire-keys", _retire_keys, "Take sealing keys off the list and destroy them.")
    retire.add_argument("key_ids", nargs="+", metavar="KEYID", help="16 hexadecimal digits, as show-keys says")
    add("show-keys", _show_keys, "Show the key list: its validity, and each sealing key.")
    add("show-key-list", _show_key_list, "Print the signed key list in hexadecimal, for scripts/encode.")
    add("show-root-key", _show_root_key, "Print the line that clients pin: bank ID and root public key.")

    export = add("export", _export, "Write all records as text files.")
    export.add_argument("directory", type=Path, metavar="DIR", help="where to write them")
    add_audit_commands(add)
    add_backup_commands(add)
    return parser


# -- commands --------------------------------------------------------------------------------------------


def _init(options: argparse.Namespace) -> int:
    sources = []
    if options.source is not None:
        sources = [options.source / layout.file_name for layout in (USERS_LAYOUT, MERCHANTS_LAYOUT)]
        for source in sources:
            if not source.is_file():
                raise PaygateExit(f"there is no {source}", ExitCode.USAGE)
    make_keys(options.state, BankIdentity(options.bank_id, options.bank_code, options.currency), system_now().wall_ms)
    for source in sources:
        try:
            shutil.copyfile(source, options.state / source.name)
        except OSError as error:
            raise StateError(f"could not copy {source}: {error.strerror}") from None
    state = StateDir(options.state)
    state.open()
    # At once, so that no plain password waits on the disk for the first start (R16).
    take_in_now(options.state)
    state.close()
    _say(f"{PROGRAM}: made {options.state}; clients pin this: {root_key_line(options.state)}")
    return ExitCode.OK


def _serve(options: argparse.Namespace) -> int:
    return serve(BankOptions(options.state, options.host, options.port, options.ignore_sigterm, options.capture))


def _add_account(options: argparse.Namespace) -> int:
    identity = load_identity(options.state)
    password = _read_password(options.password_fd)
    try:
        line = parse_customer((options.customer, options.user, password, options.amount), identity.currency)
    except FieldProblem as bad:
        raise _usage(USERS_LAYOUT, bad) from None
    for row in read_rows(options.state, USERS_LAYOUT):
        if row[0] == line.customer_id or row[1] == line.user_id:
            which = f"customer {line.customer_id}" if row[0] == line.customer_id else "a customer with this user ID"
            raise PaygateExit(f"there is {which} already", ExitCode.USAGE)
    verifier = line.verifier
    if line.password is not None:
        parameters = load_key_list(options.state).password_key
        request = MakeVerifier(identity.bank_id, parameters, line.user_id, line.password)
        verifier = make_verifiers(options.state, [request])[0]
    fields = (line.customer_id, line.user_id, f"verifier:{verifier.hex()}", options.amount)
    add_line(options.state, USERS_LAYOUT, fields, lambda: take_in_now(options.state))
    _say(f"customer {line.customer_id} has an account")
    return ExitCode.OK


def _add_merchant(options: argparse.Namespace) -> int:
    identity = load_identity(options.state)
    fields = (options.merchant, options.name, options.amount)
    try:
        parse_merchant(fields, identity.currency)
    except FieldProblem as bad:
        raise _usage(MERCHANTS_LAYOUT, bad) from None
    if any(row[0] == options.merchant for row in read_rows(options.state, MERCHANTS_LAYOUT)):
        raise PaygateExit(f"there is merchant {options.merchant} already", ExitCode.USAGE)
    add_line(options.state, MERCHANTS_LAYOUT, fields, lambda: take_in_now(options.state))
    _say(f"merchant {options.merchant} has an account")
    return ExitCode.OK


def _add_gateway(options: argparse.Namespace) -> int:
    load_identity(options.state)
    add_gateway(options.state, options.gateway, options.key_out)
    _say(f"gateway {options.gateway} may link now; give it {options.key_out}")
    return ExitCode.OK


def _rotate_keys(options: argparse.Namespace) -> int:
    _show(rotate_keys(options.state, system_now().wall_ms))
    return ExitCode.OK


def _retire_keys(options: argparse.Namespace) -> int:
    for text in options.key_ids:
        try:
            key_id = bytes.fromhex(text)
        except ValueError:
            key_id = b""
        if len(key_id) != limits.KEY_ID_SIZE:
            raise PaygateExit(f"KEYID: expected {2 * limits.KEY_ID_SIZE} hexadecimal digits", ExitCode.USAGE)
        key_list = retire_key(options.state, key_id, system_now().wall_ms)
    _show(key_list)
    return ExitCode.OK


def _show_keys(options: argparse.Namespace) -> int:
    _show(load_key_list(options.state))
    return ExitCode.OK


def _show_key_list(options: argparse.Namespace) -> int:
    _say(load_signed_key_list(options.state).hex())
    return ExitCode.OK


def _show_root_key(options: argparse.Namespace) -> int:
    _say(root_key_line(options.state))
    return ExitCode.OK


def _export(options: argparse.Namespace) -> int:
    currency = load_identity(options.state).currency
    state = StateDir(options.state)
    if not state.try_lock():
        raise PaygateExit(
            f"a server runs, and keeps the text files in {options.state} up to date: copy those", ExitCode.STATE_IN_USE
        )
    ledger = open_ledger(options.state)
    try:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        export_records(options.directory, ledger, currency)
    except OSError as error:
        raise PaygateExit(f"could not write to {options.directory}: {error.strerror}", ExitCode.USAGE) from None
    finally:
        ledger.close()
        state.close()
    return ExitCode.OK


# -- in and out ------------------------------------------------------------------------------------------


def _read_password(fd: int | None) -> str:
    if fd is None and os.isatty(0):
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise PaygateExit("the two passwords differ", ExitCode.USAGE)
        return password
    number = 0 if fd is None else fd
    data = b""
    try:
        while b"\n" not in data and len(data) <= limits.PASSWORD_SIZE_MAX:
            chunk = os.read(number, limits.PASSWORD_SIZE_MAX + 2)
            if not chunk:
                break
            data += chunk
        return data.split(b"\n")[0].decode()
    except OSError as error:
        raise PaygateExit(
            f"could not read the password from descriptor {number}: {error.strerror}", ExitCode.USAGE
        ) from None
    except UnicodeDecodeError:
        raise PaygateExit("the password is no UTF-8 text", ExitCode.USAGE) from None


def _usage(layout: Layout, bad: FieldProblem) -> PaygateExit:
    problem = layout.problem(0, bad)
    return PaygateExit(f"{problem.column}: expected {problem.expected}, got {problem.got}", ExitCode.USAGE)


def _show(key_list: KeyList) -> None:
    _say(
        f"bank {key_list.bank_id}, key list {key_list.serial}, "
        f"valid from {utc_text(key_list.valid_from_ms)} until {utc_text(key_list.valid_until_ms)}"
    )
    for key in key_list.suite_keys:
        _say(f"{key.key_id.hex()} {key.kem_id.name}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
