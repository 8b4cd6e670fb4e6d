"""Kinds of command-line argument that more than one program takes; a bad one is a usage error that says why."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.fields import IDENTIFIER
from paygate.net.addresses import Address, AddressError, is_loopback, parse_host_port


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
