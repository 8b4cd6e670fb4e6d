"""The command line of `paygate-client`. There is no option that takes a password: argv is public (R4)."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from paygate.arguments import add_capture, address
from paygate.cli import ExitCode
from paygate.client.client import GATEWAY_DEFAULT, STATE_DIR_DEFAULT
from paygate.codec import limits
from paygate.codec.codes import KemId

PASSWORD_FILE_VARIABLE: Final = "PAYGATE_PASSWORD_FILE"  # noqa: S105  # its name, not a password

_BUG: Final = {ExitCode.INTERNAL: "a bug in paygate"}
_BAD_STATE_TEXT: Final = "the state directory or a record in it is missing or can't be used"
_PAY_CODES: Final = {
    ExitCode.OK: "paid, with the bank's receipt",
    ExitCode.DECLINED: "the bank declined, with its receipt; no money moved",
    ExitCode.USAGE: "wrong command line, or something needed was not given",
    ExitCode.SESSION_TIMED_OUT: "the session ended before anything was sent; no money moved",
    ExitCode.OUTCOME_UNKNOWN: "sent, and no final answer yet; money may have moved, ask with `status`",
    ExitCode.NO_CONNECTION: "the gateway could not be reached; no money moved",
    ExitCode.TOKEN_REFUSED: "the token is invalid, expired, locked, or being paid right now",
    ExitCode.ALREADY_PAID: "the token is paid already",
    ExitCode.CANCELLED: "cancelled before anything was sent",
    ExitCode.UNTRUSTED: "a key, signature or receipt does not hold; believe nothing that was shown",
    ExitCode.REFUSED: "the gateway says it did not forward the payment; unproven if it was sent, ask with `status`",
    ExitCode.BAD_STATE: "the state directory, a record in it or a secret's file can't be used",
    **_BUG,
}
_STATUS_CODES: Final = {
    ExitCode.OK: "all that were asked for are paid, with the bank's receipts; or none waits for an outcome",
    ExitCode.DECLINED: "the bank declined, with its receipt; no money moved",
    ExitCode.USAGE: "wrong command line, or there is no such payment",
    ExitCode.OUTCOME_UNKNOWN: "no final answer yet; money may have moved, ask again",
    ExitCode.NO_CONNECTION: "the gateway could not be reached; money may have moved, ask again",
    ExitCode.CANCELLED: "interrupted; money may have moved, ask again",
    ExitCode.UNTRUSTED: "a key, signature or receipt does not hold; believe nothing that was shown",
    ExitCode.REFUSED: "not paid: it was never sent, another payment has paid its token, or the gateway says, unproven, "
    "that it did not forward it",
    ExitCode.BAD_STATE: f"{_BAD_STATE_TEXT}; `all` has asked for the others",
    **_BUG,
}
_RETRY_CODES: Final = {
    **_STATUS_CODES,
    ExitCode.OK: "paid, with the bank's receipt",
    ExitCode.OUTCOME_UNKNOWN: "no final answer yet; money may have moved, ask with `status`",
    ExitCode.BAD_STATE: _BAD_STATE_TEXT,
}
_LIST_CODES: Final = {
    ExitCode.OK: "all were shown",
    ExitCode.USAGE: "wrong command line",
    ExitCode.CANCELLED: "interrupted",
    ExitCode.BAD_STATE: f"{_BAD_STATE_TEXT}; the other records were shown",
    **_BUG,
}
_STATUS_TEXT: Final = """

A payment is written down before it is sent, so one that a crash left is here, and what `list` does not show was never
sent. Asking never moves money. While the outcome is open, paying the token again is safe as well: the bank posts a
payment once, and one payment of a token at most."""
_RETRY_TEXT: Final = """

It asks first. If the gateway does not know the payment and its session (30 seconds) still lasts, the very same bytes
are sent again, under the same payment ID: that is safe, the bank posts a payment ID once. Later no gateway takes it
any more, and this only asks. Then `pay` the token again: safe too, the bank posts one payment of a token at most."""
_VERIFY_CODES: Final = {
    ExitCode.OK: "the receipt holds",
    ExitCode.USAGE: "wrong command line, or a file can't be read",
    ExitCode.CANCELLED: "interrupted",
    ExitCode.UNTRUSTED: "the receipt proves nothing",
    **_BUG,
}


def parser() -> argparse.ArgumentParser:
    """The whole command line; each command sets `command`."""
    top = argparse.ArgumentParser(
        prog="paygate-client",
        description="Pay a merchant's payment token.",
        epilog="`COMMAND --help` tells a command's options and exit codes.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_pay(commands)
    _add_status(commands)
    _add_retry(commands)
    _add_common(_command(commands, "list", "show the payments that this client has sent", _LIST_CODES))
    words = "show the payments that the bank has settled, paid or declined, and the files of their receipts"
    _add_common(_command(commands, "receipts", words, _LIST_CODES))
    verify = _command(commands, "verify", "check a receipt file offline", _VERIFY_CODES)
    verify.add_argument("file", type=Path, metavar="FILE", help="a receipt file, as `pay` writes them")
    _add_root(verify)
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def _add_pay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pay = _command(commands, "pay", "pay a token; asks for whatever is not given, on a terminal", _PAY_CODES)
    pay.add_argument(
        "--gateway",
        type=_gateway,
        default=GATEWAY_DEFAULT,
        metavar="HOST:PORT",
        help="the gateway (default: %(default)s)",
    )
    _add_root(pay)
    _add_common(pay)
    pay.add_argument("--transaction", metavar="ID", help="the token's transaction ID")
    passcode = pay.add_mutually_exclusive_group()
    passcode.add_argument("--passcode-fd", type=_fd, metavar="N", help="read the token's passcode, one line, from here")
    passcode.add_argument("--passcode-file", type=Path, metavar="FILE", help="the passcode is in this private file")
    pay.add_argument("--user", metavar="ID", help="the net-banking user ID")
    password = pay.add_mutually_exclusive_group()
    password.add_argument("--password-fd", type=_fd, metavar="N", help="read the password, one line, from here")
    variable = os.environ.get(PASSWORD_FILE_VARIABLE)
    password.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help=f"the password is in this private file (default: ${PASSWORD_FILE_VARIABLE})",
    )
    pay.set_defaults(password_file_default=Path(variable) if variable else None)
    pay.add_argument("--yes", action="store_true", help="don't ask whether to pay when all is given")
    pay.add_argument("--receipt", type=Path, metavar="FILE", help="write the receipt here (default: in the state)")
    pay.add_argument("--kem", choices=list(KemId.__members__), help="seal for this suite (default: the best one)")
    add_capture(pay)


def _add_status(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "ask what became of payments; never moves money"
    status = _command(commands, "status", words, _STATUS_CODES, _STATUS_TEXT)
    status.add_argument(
        "payment",
        nargs="?",
        default="all",
        type=_payment_id,
        metavar="PAYMENT_ID|all",
        help="which payment; `all` (default): every one that was sent and has no receipt from the bank, a "
        "refused one for a day; the exit code is the gravest",
    )
    _add_asked(status)


def _add_retry(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "go on with a payment that a crash or a lost link cut off"
    retry = _command(commands, "retry", words, _RETRY_CODES, _RETRY_TEXT)
    retry.add_argument("payment", type=_one_payment_id, metavar="PAYMENT_ID", help="which payment")
    _add_asked(retry)


def _add_asked(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gateway", type=_gateway, metavar="HOST:PORT", help="ask here (default: where the payment was sent)"
    )
    command.add_argument(
        "--bank-root", type=Path, metavar="FILE", help="refuse payments made with another root key than this one"
    )
    _add_common(command)
    add_capture(command)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bank-root",
        type=Path,
        required=True,
        metavar="FILE",
        help="the bank's root key, got from the bank itself: one line `BANKID HEX64`",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(STATE_DIR_DEFAULT),
        metavar="DIR",
        help="where payments are kept (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, nothing secret in it")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    words: str,
    exit_codes: Mapping[ExitCode, str],
    text: str = "",
) -> argparse.ArgumentParser:
    # Abbreviations would make today's `--pass` mean something else when an option is added.
    return commands.add_parser(
        name,
        help=words,
        description=f"{words[:1].upper()}{words[1:]}.{text}",
        epilog="exit codes:\n" + "\n".join(f"  {int(code):>2}  {text}" for code, text in exit_codes.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _gateway(text: str) -> str:
    address(text)
    return text


def _payment_id(text: str) -> bytes | str:
    return text if text == "all" else _one_payment_id(text)


def _one_payment_id(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != limits.PAYMENT_ID_SIZE:
        raise argparse.ArgumentTypeError(f"expected {2 * limits.PAYMENT_ID_SIZE} hexadecimal digits")
    return data


def _fd(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError("expected the number of an open descriptor")
    return int(text)
