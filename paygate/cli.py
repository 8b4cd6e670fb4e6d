"""What the three programs share at their edge: exit codes, one-line errors, one-line log."""

import os
import select
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum

from paygate.clock import system_now, utc_text
from paygate.escape import escape_line

_STDERR = 2


class ExitCode(IntEnum):
    """How a program ended, for scripts. 1 to 10 are the client's, 20 to 25 the servers'."""

    OK = 0
    """Done. For a payment: paid, with a receipt that verifies."""
    DECLINED = 1
    """The bank declined the payment, and its proof verifies. No money moved."""
    USAGE = 2
    """The command line is wrong; argparse uses the same number."""
    SESSION_TIMED_OUT = 3
    """The session ended (R10) before anything was sent. No money moved."""
    OUTCOME_UNKNOWN = 4
    """The payment was sent and no final answer came. Money may have moved; `status` asks again."""
    NO_CONNECTION = 5
    """The gateway could not be reached, or the link broke before anything was sent."""
    TOKEN_REFUSED = 6
    """The token is invalid, expired, locked, or being paid right now (R2)."""
    ALREADY_PAID = 7
    """The token is paid; the message gives the UTR (R2, R9)."""
    CANCELLED = 8
    """The user gave up before anything was sent."""
    UNTRUSTED = 9
    """A root key, signature or receipt did not verify (T8, T10). Believe nothing that was shown."""
    REFUSED = 10
    """The gateway says that it did not forward the payment. Once it was sent that is a word without the bank's proof
    (T8), so money may have moved; `status` asks again."""
    PORT_IN_USE = 20
    """Another program listens on the port."""
    STATE_IN_USE = 21
    """Another server uses the state directory (T33)."""
    BAD_STATE = 22
    """The state directory, a key or a record is missing, damaged, or open to other users (T29)."""
    NO_BANK = 23
    """The gateway has no bank that it may talk to."""
    STORE_FAILED = 24
    """The disk failed; the process stopped at once (T31)."""
    FINDINGS = 25
    """An audit found something wrong; what, it says on stdout."""
    INTERNAL = 70
    """A bug in paygate (the number is EX_SOFTWARE of sysexits.h)."""


class PaygateExit(Exception):
    """Ends the program with a code and one line for the user: what, where, how to mend it.

    Subclasses that have one code of their own set `code` on the class.
    """

    code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


def log(program: str, text: str) -> None:
    """Writes one line to stderr: time in UTC, program, text with control characters escaped (T21).

    Unbuffered, never raises and never waits: a server neither dies nor stands still because nobody reads its
    stderr. A line that can't be written at once is dropped, and the next one that can says how many were.
    """
    stamp = f"{utc_text(system_now().wall_ms)} {program}"
    if not _stderr_takes_a_line():
        _dropped.count += 1
        return
    if _dropped.count:
        _write_line(f"{stamp}: {_dropped.count} lines before this one were dropped, since stderr was not read")
        _dropped.count = 0
        if not _stderr_takes_a_line():
            _dropped.count = 1
            return
    _write_line(f"{stamp}: {text}")


class _Dropped:
    """How many lines were dropped since the last one that was written."""

    count = 0


_dropped = _Dropped()


def _stderr_takes_a_line() -> bool:
    # A pipe that polls as writable has room for PIPE_BUF bytes, and no line of ours is longer.
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    return any(events & (select.POLLOUT | select.POLLERR) for _, events in poll.poll(0))


def run(program: str, main: Callable[[], int]) -> int:
    """Calls `main` and gives the exit code for `sys.exit`, turning any error into one line on stderr.

    An unexpected exception is shown without its traceback and (OSError apart) without its own text, since
    both may hold secrets; PAYGATE_DEBUG=1 in the environment shows all of it. SystemExit (argparse) passes through.
    """
    try:
        code = main()
        # A broken pipe shows up at the flush; better here than at the interpreter's end.
        sys.stdout.flush()
    except PaygateExit as error:
        _write_line(f"{program}: {error}")
        return error.code
    except KeyboardInterrupt:
        _write_line(f"{program}: cancelled")
        return ExitCode.CANCELLED
    except BrokenPipeError:
        drop_stdout()
        # Never OK: for the client that would say "paid".
        _write_line(f"{program}: the reader of the output went away, so the output is incomplete")
        return ExitCode.INTERNAL
    except OSError as error:
        if error.filename is None:
            return _end_of_bug(program, error)
        # A file that nobody foresaw the failure of; the system's own words on one are safe.
        text = f"could not use {os.fsdecode(error.filename)}: {error.strerror}"
        _write_line(f"{program}: {text}; check the disk, and that this user may use it")
        return ExitCode.BAD_STATE
    except Exception as error:
        return _end_of_bug(program, error)
    return code


def _end_of_bug(program: str, error: Exception) -> ExitCode:
    if os.environ.get("PAYGATE_DEBUG") == "1":
        traceback.print_exc()
    place = traceback.extract_tb(error.__traceback__)[-1]
    # The system's own words on an address are safe, and they are what the user needs.
    what = str(error) if isinstance(error, OSError) else f"{type(error).__name__} in {place.name}"
    _write_line(f"{program}: internal error: {what} (PAYGATE_DEBUG=1 shows where, perhaps with secrets)")
    return ExitCode.INTERNAL


def drop_stdout() -> None:
    """Points stdout to nowhere, so that the flush at the interpreter's end can't fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        return  # stdout is closed, or no file at all
    finally:
        os.close(nowhere)


def _write_line(text: str) -> None:
    data = escape_line(text).encode("utf-8", "backslashreplace")[: select.PIPE_BUF - 1] + b"\n"
    try:
        os.write(_STDERR, data)
    except OSError:
        return  # closed, full or gone: there is nowhere left to say so
