"""How the client under test is run, and what its exit codes say: the options of `paygate-conform client`."""

import argparse
import re
from enum import Enum
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.conform.programs import BadCommand, startable_words

JOBS: Final = 4
"""Runs of the client at once: each costs a program's start and an Argon2id."""
PERSON_MS: Final = 120_000
"""How much longer a case may take when a person has to start the client and type."""
PLACEHOLDERS: Final = (
    "host",
    "port",
    "address",
    "transaction",
    "passcode",
    "passcode_file",
    "user",
    "password",
    "password_file",
    "bank_id",
    "bank_root",
    "bank_root_file",
    "state_dir",
)
"""What `--run` may hold, each between braces; the same are in the environment, as `PAYGATE_CONFORM_PASSCODE`."""
STATUS_PLACEHOLDERS: Final = (*PLACEHOLDERS, "payment_id")
ENVIRONMENT_PREFIX: Final = "PAYGATE_CONFORM_"


class Said(Enum):
    """What a client tells its customer by its exit code; the value is what the words mean."""

    PAID = "paid, proven by the bank's receipt"
    DECLINED = "not paid, proven by the bank's receipt"
    TIMED_OUT = "the session ended before anything was sent"
    UNKNOWN = "sent, and no final answer: money may have moved"
    NO_CONNECTION = "no connection, or it broke before anything was sent"
    TOKEN_REFUSED = "invalid, expired, locked, or being paid right now"  # noqa: S105  # a token of payment
    ALREADY_PAID = "the token is paid already"
    CANCELLED = "the customer gave up before anything was sent"
    UNTRUSTED = "a key, signature or receipt does not hold"
    REFUSED = "not forwarded, by the gateway's word alone"

    @property
    def option(self) -> str:
        """Its name in `--exit-codes`."""
        return self.name.lower()


ExitCodes = dict[Said, int]
DEFAULT_EXIT_CODES: Final[ExitCodes] = {
    Said.PAID: ExitCode.OK,
    Said.DECLINED: ExitCode.DECLINED,
    Said.TIMED_OUT: ExitCode.SESSION_TIMED_OUT,
    Said.UNKNOWN: ExitCode.OUTCOME_UNKNOWN,
    Said.NO_CONNECTION: ExitCode.NO_CONNECTION,
    Said.TOKEN_REFUSED: ExitCode.TOKEN_REFUSED,
    Said.ALREADY_PAID: ExitCode.ALREADY_PAID,
    Said.CANCELLED: ExitCode.CANCELLED,
    Said.UNTRUSTED: ExitCode.UNTRUSTED,
    Said.REFUSED: ExitCode.REFUSED,
}
_PAIR: Final = re.compile(r"([a-z_]+)=([0-9]{1,3})")

_PLACES: Final = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The client role's own options."""
    parser.add_argument(
        "--run",
        type=_run_words,
        metavar="COMMAND",
        help="pays once: it is started for each case, split into words as a shell would, and what stands in braces "
        f"filled in: {_PLACES}; each is also in the environment, such as {ENVIRONMENT_PREFIX}PASSWORD; a good client "
        "takes a secret from a file or from there. Without it, a person is told what to type",
    )
    parser.add_argument(
        "--status-run",
        type=_status_words,
        metavar="COMMAND",
        help="asks later what became of a payment, from the same state_dir: as --run, and {payment_id}",
    )
    told = ",".join(f"{said.option}={int(code)}" for said, code in DEFAULT_EXIT_CODES.items())
    parser.add_argument(
        "--exit-codes",
        type=exit_codes,
        default=DEFAULT_EXIT_CODES,
        metavar="LIST",
        help=f"how the client's exit codes are to be read, where they differ from {told}",
    )


def jobs_of(options: argparse.Namespace) -> int:
    """How many cases may run at once. Raises PaygateExit(USAGE)."""
    has_own_ports = options.address[1] == 0
    if options.run is None and has_own_ports:
        raise PaygateExit("port 0 means a free port for each case, which only --run can be told of", ExitCode.USAGE)
    if not has_own_ports and (options.jobs or 1) > 1:
        raise PaygateExit("several cases at once need a port each: give port 0", ExitCode.USAGE)
    if not has_own_ports:
        return 1
    return options.jobs or JOBS


def allowance_ms_of(options: argparse.Namespace) -> int:
    """How much longer each case may take."""
    return 0 if options.run is not None else PERSON_MS


def exit_codes(text: str) -> ExitCodes:
    """Read `paid=0,declined=1,...`; what is not named keeps its default."""
    codes = dict(DEFAULT_EXIT_CODES)
    by_option = {said.option: said for said in Said}
    for pair in text.split(","):
        match = _PAIR.fullmatch(pair)
        if match is None or match[1] not in by_option or int(match[2]) > 255:
            raise argparse.ArgumentTypeError(f"{pair!r}: expected NAME=CODE, with a name of {', '.join(by_option)}")
        codes[by_option[match[1]]] = int(match[2])
    for said in (Said.PAID, Said.DECLINED):
        if list(codes.values()).count(codes[said]) > 1:
            raise argparse.ArgumentTypeError(f"{said.option} needs an exit code of its own")
    return codes


def _run_words(text: str) -> tuple[str, ...]:
    return _words(text, PLACEHOLDERS)


def _status_words(text: str) -> tuple[str, ...]:
    return _words(text, STATUS_PLACEHOLDERS)


def _words(text: str, placeholders: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return startable_words(text, placeholders)
    except BadCommand as error:
        raise argparse.ArgumentTypeError(str(error)) from None
