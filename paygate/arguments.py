"""Kinds of command-line argument that more than one program takes; a bad one is a usage error that says why."""

import argparse
from collections.abc import Sequence

from paygate.cli import ExitCode
from paygate.codec.fields import IDENTIFIER
from paygate.net.addresses import Address, AddressError, parse_host_port


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


def exit_codes_line(codes: Sequence[ExitCode]) -> str:
    """The end of a server's help."""
    return "exit codes: " + ", ".join(f"{int(code)} {code.name.lower().replace('_', ' ')}" for code in codes)
