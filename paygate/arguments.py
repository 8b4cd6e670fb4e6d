"""Kinds of command-line argument that more than one program takes; a bad one is a usage error that says why."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paygate.cli import ExitCode, PaygateExit, log
from paygate.codec.fields import IDENTIFIER
from paygate.net.addresses import Address, AddressError, is_loopback, parse_host_port

if TYPE_CHECKING:
    from paygate.net.capture import CaptureFile


def identifier(text: str) -> str:
    """A party, merchant or transaction ID (spec 3.4)."""
    if not IDENTIFIER.is_legal(text):
        raise argparse.ArgumentTypeError(f"expected {IDENTIFIER.expected}")
    return text


def address(text: str) -> Address:
    """HOST:PORT."""
    try:
        return parse_host_port(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port(text: str) -> int:
    """A port number; 0 means any free one."""
    return address(f"127.0.0.1:{text}")[1]


def refuse_remote(host: str, doing: str) -> None:
    """v1 has no TLS, so nothing leaves this machine. Raises PaygateExit(USAGE) for any other address."""
    if not is_loopback(host):
        raise PaygateExit(
            f"will not {doing} {host}: links are not encrypted by TLS yet, so only "
            "loopback addresses such as 127.0.0.1 are allowed",
            ExitCode.USAGE,
        )


def add_capture(parser: argparse.ArgumentParser) -> None:
    """`--capture FILE`, for a command that uses the network; `capturing` does it."""
    parser.add_argument(
        "--capture",
        type=_capture_path,
        metavar="FILE",
        help="write all that is sent and received to this new file, for paygate-dump and Wireshark (pcapng with TCP "
        "made up around it); nothing in it is masked, not even passcodes, and it grows without bound",
    )


def _capture_path(text: str) -> Path:
    if text in ("", "-"):
        raise argparse.ArgumentTypeError("expected a new file; to watch it live: tail -c +1 -f FILE | paygate-dump -")
    return Path(text)


@contextmanager
def capturing(path: Path | None, program: str) -> "Iterator[CaptureFile | None]":
    """Capture to `path`, having warned of what that holds; None for no capture. Raises PaygateExit(USAGE)."""
    if path is None:
        yield None
        return
    from paygate.net.capture import CaptureFile  # late, since most who read a command line have no sockets

    try:
        capture = CaptureFile(path, program, on_failed=lambda text: log(program, text))
    except FileExistsError:
        raise PaygateExit(f"--capture {path}: the file exists; give another name", ExitCode.USAGE) from None
    except OSError as error:
        raise PaygateExit(f"--capture {path}: could not write there: {error.strerror}", ExitCode.USAGE) from None
    with closing(capture):
        log(
            program,
            f"capturing to {path} all that is sent and received, with nothing masked, not even passcodes (credentials "
            "stay sealed); keep it secret, and delete it after use",
        )
        yield capture


Command = Callable[[argparse.Namespace], int]
AddCommand = Callable[[str, Command, str], argparse.ArgumentParser]


def server_parser(
    program: str, description: str, codes: Sequence[ExitCode], default_state: str
) -> tuple[argparse.ArgumentParser, AddCommand]:
    """The command line of a server's program, and how to add a command to it.

    Every command takes `--state` and sets `command`. Abbreviations are refused, since a later option could change
    what one means. `codes` are told at the end of the help.
    """
    told = ", ".join(f"{int(code)} {code.name.lower().replace('_', ' ')}" for code in codes)
    parser = argparse.ArgumentParser(
        prog=program, description=description, epilog=f"exit codes: {told}", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        sub.add_argument(
            "--state", type=Path, default=Path(default_state), metavar="DIR", help=f"state directory ({default_state})"
        )
        return sub

    return parser, add
