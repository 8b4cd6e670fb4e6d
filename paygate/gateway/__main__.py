"""`paygate-gateway`: make a gateway, run it, and issue, list and cancel payment tokens."""

import argparse
import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from paygate.arguments import Command, add_capture, address, identifier, port, server_parser
from paygate.cli import ExitCode, PaygateExit, run
from paygate.clock import system_now, utc_text
from paygate.codec import limits
from paygate.codec.money import format_amount
from paygate.files.added_line import add_line, read_rows
from paygate.files.state_dir import StateDir, StateError
from paygate.files.text_records import FieldProblem
from paygate.gateway.audit_commands import add_audit_commands
from paygate.gateway.backup_commands import add_backup_commands
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.record_lines import TOKENS_LAYOUT, parse_token, token_row
from paygate.gateway.server import PROGRAM, GatewayOptions, serve, take_in_now
from paygate.gateway.settings import read_link_key, refuse_second, write_identity
from paygate.gateway.tokens import Token, TokenState

DEFAULT_STATE: Final = "var/gateway"
_PASSCODE_DIGIT_COUNT: Final = 8
_FLAGS: Final = {
    "transaction ID": "--transaction",
    "passcode": "--passcode",
    "amount": "--amount",
    "merchant": "--merchant",
    "currency": "--currency",
    "expiry": "--expires",
    "merchant name": "--merchant-name",
}
"""Where each column of a token comes from in `issue`."""


def main() -> int:
    """Entry point of the console script."""
    return run(PROGRAM, _main)


def _main() -> int:
    arguments = _parser().parse_args()
    command: Command = arguments.command
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    codes = [ExitCode.OK, ExitCode.USAGE, ExitCode.TOKEN_REFUSED, ExitCode.PORT_IN_USE, ExitCode.STATE_IN_USE]
    codes += [ExitCode.BAD_STATE, ExitCode.NO_BANK, ExitCode.STORE_FAILED, ExitCode.FINDINGS, ExitCode.INTERNAL]
    parser, add = server_parser(
        PROGRAM, "A payment gateway that forwards bank credentials which it cannot read.", codes, DEFAULT_STATE
    )

    init = add("init", _init, "Make a new gateway's state directory.")
    init.add_argument(
        "--gateway-id", required=True, type=identifier, metavar="ID", help="this gateway's ID, as the bank knows it"
    )
    init.add_argument("--bank-id", required=True, type=identifier, metavar="ID", help="the bank that it pays through")
    init.add_argument(
        "--link-key", required=True, type=Path, metavar="FILE", help="file that 'paygate-bank add-gateway' wrote"
    )
    init.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help=f"folder whose {TOKENS_LAYOUT.file_name} to copy"
    )

    server = add("serve", _serve, "Run the gateway until SIGTERM drains it.")
    server.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (127.0.0.1)")
    server.add_argument("--port", type=port, default=15000, help="port to listen on; 0 for any free one (15000)")
    server.add_argument(
        "--bank",
        type=address,
        default=("127.0.0.1", 15001),
        metavar="HOST:PORT",
        help="where the bank listens (127.0.0.1:15001)",
    )
    server.add_argument(
        "--bank-wait",
        type=_bank_wait,
        default=10_000,
        metavar="SECONDS",
        help="how long to wait at start for a first link to the bank, or 'forever' (10)",
    )
    server.add_argument(
        "--session-seconds",
        type=_session_seconds,
        default=limits.SESSION_MS,
        metavar="SECONDS",
        help="length of a client's session, 3 to 30 (30)",
    )
    server.add_argument("--ignore-sigterm", action="store_true", help="ignore SIGTERM too; only SIGKILL ends it")
    add_capture(server)

    issue = add("issue", _issue, "Issue a payment token, as a merchant would by adding a line to the file.")
    issue.add_argument("--transaction", required=True, metavar="ID", help="transaction ID: the merchant's order")
    issue.add_argument("--amount", required=True, help="decimal amount, such as 1250.00")
    issue.add_argument("--merchant", required=True, metavar="ID", help="merchant ID at the bank")
    issue.add_argument("--merchant-name", default="", metavar="NAME", help="shown to the shopper")
    issue.add_argument("--currency", default="INR", help="ISO 4217 code (INR)")
    issue.add_argument("--expires", default="", metavar="TIME", help="UTC, such as 2026-12-31T23:59:59Z (never)")
    issue.add_argument(
        "--passcode", help="what the shopper types; seen by other users of this machine (default: made up and printed)"
    )

    tokens = add("list", _list, "List payment tokens from the record file.")
    tokens.add_argument("--json", action="store_true", help="one JSON object a line")
    tokens.add_argument("--show-passcodes", action="store_true", help="show passcodes, which are hidden otherwise")

    cancel = add("cancel", _cancel, "Withdraw an unpaid token.")
    cancel.add_argument("transaction", metavar="ID", help="transaction ID")
    add_audit_commands(add)
    add_backup_commands(add)
    return parser


# -- commands --------------------------------------------------------------------------------------------


def _init(arguments: argparse.Namespace) -> int:
    # All that is read is read first, so that a mistake leaves no half-made state.
    link_key = read_link_key(arguments.link_key)
    tokens = TOKENS_LAYOUT.header
    if arguments.source is not None:
        source = arguments.source / TOKENS_LAYOUT.file_name
        try:
            tokens = source.read_bytes()
        except OSError as error:
            raise StateError(f"could not read {source}: {error.strerror}") from None
    state = StateDir(arguments.state)
    state.create()
    state.open()
    refuse_second(state)
    # The identity last, since it says that there is a gateway: after a kill before it `init` can be run again.
    state.write_atomic(TOKENS_LAYOUT.file_name, tokens)
    write_identity(state, GatewayIdentity(arguments.gateway_id, arguments.bank_id, link_key))
    state.close()
    _say(f"{PROGRAM}: made {arguments.state}")
    return ExitCode.OK


def _serve(arguments: argparse.Namespace) -> int:
    return serve(
        GatewayOptions(
            state_dir=arguments.state,
            host=arguments.host,
            port=arguments.port,
            bank=arguments.bank,
            ignore_sigterm=arguments.ignore_sigterm,
            session_ms=arguments.session_seconds,
            bank_wait_ms=arguments.bank_wait,
            capture_path=arguments.capture,
        )
    )


def _issue(arguments: argparse.Namespace) -> int:
    passcode = arguments.passcode
    if passcode is None:
        passcode = "".join(secrets.choice("0123456789") for _ in range(_PASSCODE_DIGIT_COUNT))
    fields = (arguments.transaction, passcode, TokenState.UNPAID.value, arguments.amount, arguments.merchant)
    try:
        token = parse_token((*fields, arguments.currency, "", arguments.expires, arguments.merchant_name))
    except FieldProblem as bad:
        problem = TOKENS_LAYOUT.problem(0, bad)
        flag = _FLAGS[problem.column]
        raise PaygateExit(f"{flag}: expected {problem.expected}, got {problem.got}", ExitCode.USAGE) from None
    if token.expires_ms is not None and token.expires_ms <= system_now().wall_ms:
        raise PaygateExit(f"--expires: {utc_text(token.expires_ms)} is over; nobody could pay", ExitCode.USAGE)
    if any(t.transaction_id == token.transaction_id for t in _tokens(arguments.state)):
        raise PaygateExit(f"there is a token for transaction {token.transaction_id} already", ExitCode.USAGE)
    _add_line(arguments.state, token)
    _say(f"issued transaction {token.transaction_id}, passcode {passcode}")
    return ExitCode.OK


def _list(arguments: argparse.Namespace) -> int:
    for token in _tokens(arguments.state):
        passcode = token.passcode if arguments.show_passcodes else "(hidden)"
        amount = format_amount(token.amount_minor, token.currency)
        expires = None if token.expires_ms is None else utc_text(token.expires_ms)
        if arguments.json:
            _say(
                json.dumps(
                    {
                        "transaction_id": token.transaction_id,
                        "passcode": token.passcode if arguments.show_passcodes else None,
                        "state": token.state.value,
                        "amount": amount,
                        "currency": token.currency,
                        "merchant_id": token.merchant_id,
                        "merchant_name": token.merchant_name,
                        "utr": token.utr or None,
                        "expires": expires,
                    }
                )
            )
        else:
            row = (token.transaction_id, passcode, token.state.value, amount, token.currency, token.merchant_id)
            _say("  ".join((*row, token.utr, f"expires {expires}" if expires else "")).rstrip())
    return ExitCode.OK


def _cancel(arguments: argparse.Namespace) -> int:
    found = [t for t in _tokens(arguments.state) if t.transaction_id == arguments.transaction]
    if not found:
        raise PaygateExit(f"there is no token for transaction {arguments.transaction}", ExitCode.USAGE)
    token = found[0]
    if token.state is not TokenState.UNPAID:
        raise PaygateExit(
            f"transaction {arguments.transaction} is {token.state.value}; only unpaid tokens can be cancelled",
            ExitCode.TOKEN_REFUSED,
        )
    _add_line(arguments.state, replace(token, state=TokenState.CANCELLED))
    _say(f"cancelled transaction {arguments.transaction}")
    return ExitCode.OK


# -- the shared file -------------------------------------------------------------------------------------


def _tokens(state_path: Path) -> Iterator[Token]:
    """The tokens of the record file; lines that are none are left to the server to report."""
    for fields in read_rows(state_path, TOKENS_LAYOUT):
        try:
            yield parse_token(fields)
        except FieldProblem:
            continue


def _add_line(state_path: Path, token: Token) -> None:
    """Add a token's line as merchants do, and see to it that a gateway, running or not, takes it in."""
    add_line(state_path, TOKENS_LAYOUT, token_row(token), lambda: take_in_now(state_path))


# -- arguments -------------------------------------------------------------------------------------------


def _bank_wait(text: str) -> int | None:
    if text == "forever":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected whole seconds or 'forever'")
    return int(text) * 1_000


def _session_seconds(text: str) -> int:
    if not text.isdecimal() or not 3 <= int(text) <= limits.SESSION_MS // 1_000:
        raise argparse.ArgumentTypeError("expected whole seconds from 3 to 30")
    return int(text) * 1_000


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
