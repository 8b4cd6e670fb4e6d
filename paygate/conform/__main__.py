"""`paygate-conform`: does an implementation of paygate do what spec/protocol.md says?"""

import argparse
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Final

from paygate.arguments import address, refuse_remote
from paygate.cli import ExitCode, PaygateExit, run
from paygate.conform.bank_keys import PlayedBankKeys
from paygate.conform.cases import UnknownSelector
from paygate.conform.programs import BadCommand, startable_words
from paygate.conform.report import json_report, junit_report, result_lines, summary_line
from paygate.conform.roles import ROLES, RoleUnderTest
from paygate.conform.runner import Outcome, Result, Run, turn_until
from paygate.conform.trial import Settings
from paygate.conform.world import WORLD_NAME, KeyFiles, default_world, read_world, write_world
from paygate.net.addresses import format_host_port
from paygate.net.listen import raise_descriptor_limit
from paygate.net.loop import Loop
from paygate.net.signals import Wakeup

PROGRAM: Final = "paygate-conform"
FAILED: Final = 1
"""Exit code: some case failed, or found the world used up. The others are of `ExitCode`: see the end of the help."""
_COMMANDS: Final = ("drain_command", "restart_command")
"""Options of roles that hold a command of the tester's."""
_WORD_OF_USED_UP: Final = "cases were skipped because the world is used up; make a new one, or this run proves less"
PATIENCE_MS: Final = 5_000
"""How long an answer may take unless told otherwise; every implementation under test has its own machine."""
_DESCRIPTOR_COUNT: Final = 4_096

_SET_UP: Final = """\
to test this project's own bank:
  paygate-conform world conform
  paygate-bank init --state conform/bank --bank-id CONFORMBANK --bank-code CONF --from conform
  paygate-bank add-gateway --state conform/bank conform-gateway --key-out conform/gateway.key
  paygate-bank add-gateway --state conform/bank conform-gateway-2 --key-out conform/gateway-2.key
  paygate-bank serve --state conform/bank &
  paygate-conform bank 127.0.0.1:15001 --world conform/world.json

to test this project's own gateway, behind which the kit plays the bank:
  paygate-conform world conform --played-bank
  paygate-gateway init --state conform/gateway --gateway-id conform-gateway --bank-id CONFORMBANK \\
    --link-key conform/gateway.key --from conform
  paygate-conform gateway 127.0.0.1:15000 --world conform/world.json --bank-listen 127.0.0.1:15001 &
  paygate-gateway serve --state conform/gateway

to test this project's own client, which the kit starts for each case:
  paygate-conform world conform --played-bank
  paygate-conform client 127.0.0.1:0 --world conform/world.json \\
    --run 'paygate-client pay --gateway {address} --bank-root {bank_root_file} --state {state_dir}
           --transaction {transaction} --passcode-file {passcode_file}
           --user {user} --password-file {password_file} --yes' \\
    --status-run 'paygate-client status {payment_id} --gateway {address} --state {state_dir}'

another implementation is set up with what conform/world.json says, in its own way; the root public key and the link
keys that it makes are put where that file looks for them, or named with --bank-root, --link-key and --second-link-key.

exit codes: 0 all that ran passed, 1 some case failed or found the world used up, 2 usage, 5 no connection,
8 cancelled by SIGINT, SIGTERM or SIGHUP (what had not ended is told as skipped), 70 internal, or the output could not
be written
"""


def main() -> int:
    """Entry point of the console script."""
    return run(PROGRAM, _main)


def _main() -> int:
    parser = _parser()
    options, left = parser.parse_known_args()
    # argparse takes a role's sections only where its other positional argument stands; they may stand anywhere.
    if not hasattr(options, "sections") or any(word.startswith("-") for word in left):
        if left:
            options.parser.error(f"unrecognized arguments: {' '.join(left)}")
    else:
        options.sections += left
    command: int = options.command(options)
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Plays the other side against any implementation of paygate, case by case of spec/protocol.md.",
        epilog=_SET_UP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="ROLE|COMMAND")
    for name, role in ROLES.items():
        _add_role(commands.add_parser(name, help=role.about, description=role.about, allow_abbrev=False), name, role)

    listing = commands.add_parser("list", help="List a role's cases.", allow_abbrev=False)
    listing.set_defaults(command=_list, parser=listing)
    listing.add_argument("role", choices=[*ROLES], metavar="ROLE", help=", ".join(ROLES))
    listing.add_argument("sections", nargs="*", default=[], metavar="SECTION", help="which cases; see the role's help")

    text = "Make a world to test in: its JSON, and the records that this project's own servers are set up from."
    world = commands.add_parser("world", help=text, description=text, allow_abbrev=False)
    world.set_defaults(command=_world, parser=world)
    world.add_argument("directory", type=Path, metavar="DIR", help="where to write it")
    world.add_argument(
        "--played-bank",
        action="store_true",
        help="also make the keys of the bank that the kit plays, to test a gateway or a client without a bank",
    )
    return parser


def _add_role(parser: argparse.ArgumentParser, name: str, role: RoleUnderTest) -> None:
    parser.set_defaults(command=_conform, role=name, parser=parser)
    parser.add_argument("address", type=address, metavar="HOST:PORT", help=role.address_means)
    parser.add_argument(
        "sections",
        nargs="*",
        default=[],
        metavar="SECTION",
        help="only these cases: a section of the spec (5.3), a requirement (PG-...), or a case's ID or its beginning",
    )
    parser.add_argument("--world", type=Path, required=True, metavar="FILE", help="the world under test, as JSON")
    parser.add_argument("--bank-root", type=Path, metavar="FILE", help="holds the bank's root public key")
    parser.add_argument("--link-key", type=Path, metavar="FILE", help="holds the gateway's link key")
    parser.add_argument("--second-link-key", type=Path, metavar="FILE", help="holds the second gateway's link key")
    parser.add_argument("--no-slow", action="store_true", help="skip cases that must wait for more than 15 seconds")
    parser.add_argument(
        "--patience",
        type=_positive,
        default=PATIENCE_MS,
        metavar="MS",
        help=f"how long an answer may take ({PATIENCE_MS})",
    )
    parser.add_argument("--jobs", type=_positive, metavar="N", help="cases at once; 1: each alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--junit", type=_file, metavar="FILE", help="also write JUnit XML")
    if role.add_options is not None:
        role.add_options(parser)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 1000000")
    return int(text)


def _file(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file")
    return Path(text)


# -- commands --------------------------------------------------------------------------------------------


def _conform(options: argparse.Namespace) -> int:
    role = ROLES[options.role]
    refuse_remote(options.address[0], "test at")
    if getattr(options, "bank_listen", None):  # the gateway role's own option
        refuse_remote(options.bank_listen[0], "listen on")
    _check_commands(options)
    keys = KeyFiles(options.bank_root, options.link_key, options.second_link_key)
    jobs, allowance_ms = role.jobs_of(options), role.allowance_ms_of(options)
    settings = Settings(
        options.address, read_world(options.world, keys, options.role), options.patience, vars(options), allowance_ms
    )
    try:
        chosen = role.catalogue.select(options.sections)
    except UnknownSelector as error:
        raise PaygateExit(str(error), ExitCode.USAGE) from None
    if options.junit is not None:
        _write(options.junit, b"", ExitCode.USAGE)  # before the run, which may be long
    raise_descriptor_limit(_DESCRIPTOR_COUNT)
    results: list[Result] = []
    unwritten: list[PaygateExit] = []

    def told(result: Result) -> None:
        results.append(result)
        if options.json or unwritten:
            return
        try:
            _say(result_lines(result))
        except PaygateExit as error:
            unwritten.append(error)  # raised at the end: what the run has started ends first

    loop = Loop()
    began_ms = loop.now_ms()
    for case in chosen:
        if options.no_slow and case.is_slow:
            told(
                Result(case, Outcome.SKIPPED, 0, reason=f"it waits {case.waits_ms // 1000} s, and --no-slow was given")
            )
    left_out = {result.case for result in results}
    one_run = Run(loop, role.catalogue.prepare, [c for c in chosen if c not in left_out], settings, told, jobs=jobs)
    is_cancelled = _turn(loop, one_run, unwritten)
    duration_ms = loop.now_ms() - began_ms
    loop.close()
    if one_run.trouble is not None:
        raise PaygateExit(str(one_run.trouble), ExitCode.NO_CONNECTION)
    if options.junit is not None:
        _write(options.junit, junit_report(options.role, results, duration_ms), ExitCode.INTERNAL)
    if unwritten:
        raise unwritten[0]
    used_up_count = sum(result.is_used_up for result in results)
    if options.json:
        where = format_host_port(*options.address)
        _say([json.dumps(json_report(options.role, where, results, duration_ms))])
    else:
        _say([summary_line(results, duration_ms)])
        if used_up_count:
            _say([f"{used_up_count} {_WORD_OF_USED_UP}"])
    if is_cancelled:
        return ExitCode.CANCELLED
    return FAILED if used_up_count or any(result.outcome is Outcome.FAILED for result in results) else ExitCode.OK


def _turn(loop: Loop, one_run: Run, unwritten: list[PaygateExit]) -> bool:
    """Turn the loop until the run is over. True if a signal broke it off; output that nobody takes does so too."""
    caught: list[int] = []

    def cancel(numbers: bytes) -> None:
        caught.extend(numbers)
        one_run.cancel()

    def is_over() -> bool:
        if unwritten:
            one_run.cancel()
        return one_run.is_over

    wakeup = Wakeup(loop, cancel)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        wakeup.catch(number)
    try:
        turn_until(loop, is_over)
    finally:
        wakeup.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return bool(caught)


def _check_commands(options: argparse.Namespace) -> None:
    for name in _COMMANDS:
        text = getattr(options, name, None)
        try:
            if text is not None:
                startable_words(text, None)
        except BadCommand as error:
            options.parser.error(f"argument --{name.replace('_', '-')}: {error}")


def _list(options: argparse.Namespace) -> int:
    try:
        chosen = ROLES[options.role].catalogue.select(options.sections)
    except UnknownSelector as error:
        raise PaygateExit(str(error), ExitCode.USAGE) from None
    for case in chosen:
        marks = [f"waits {case.waits_ms // 1000} s"] * case.is_slow + ["alone"] * case.is_exclusive
        told = ", ".join([*case.sections, *case.requirements, *marks])
        _say([f"{case.case_id}  [{told}]", f"    {case.expects}"])
    return ExitCode.OK


def _world(options: argparse.Namespace) -> int:
    directory: Path = options.directory
    made = default_world(secrets.token_bytes(8))
    paths = write_world(directory, made, PlayedBankKeys.key_files(made) if options.played_bank else None)
    world = directory / WORLD_NAME
    _say([f"made {', '.join(str(path) for path in paths)}"])
    _say([f"{world} says what the implementation under test must know, and where it looks for its keys"])
    _say([f"{PROGRAM} --help says how this project's own servers are set up"])
    return ExitCode.OK


def _write(path: Path, data: bytes, code: ExitCode) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise PaygateExit(f"could not write {path}: {(error.strerror or str(error)).lower()}", code) from None


def _say(lines: list[str]) -> None:
    """Write to stdout unbuffered, so that what can't be written is told once. Raises PaygateExit."""
    data = memoryview("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    if sys.stdout is None:
        raise PaygateExit("stdout is closed, so the output is lost", ExitCode.INTERNAL)
    try:
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PaygateExit(
            f"could not write to stdout, so the output is incomplete: {reason}", ExitCode.INTERNAL
        ) from None


if __name__ == "__main__":
    sys.exit(main())
