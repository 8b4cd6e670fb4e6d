"""The command line of `paygate-dump`."""

import argparse
from pathlib import Path
from typing import Final

from paygate.dump import filters

PROGRAM: Final = "paygate-dump"

_EXAMPLES: Final = """\
commands (a file of such a name is ./NAME):
  describe KIND|all   a message, record or registry: its fields, sizes, limits, codes
  encode [FILE]       JSON of --json --show-secrets back into frames
  schema              the JSON Schema of what --json prints

examples:
  paygate-dump payment.pcap
  tcpdump -i lo -U -w - 'tcp portrange 15000-15001' | paygate-dump -
  paygate-dump --ladder --follow TX-1001 gateway.pcapng
  paygate-dump --kind TransferResult --outcome declined -v gateway.pcapng
  paygate-dump --stats --json night.pcap.gz

exit codes: 0 the input was read to its end, 2 usage, or the input is none that this program knows, 22 a key file can't
be used, 70 a bug, or the output could not be written. What is wrong within the input is a finding, not an error.
"""


def parser() -> argparse.ArgumentParser:
    """The main command: decode an input."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [OPTION ...] [FILE]\n       {PROGRAM} describe KIND|all\n"
        f"       {PROGRAM} encode [--link-key FILE] [--hex] [FILE]\n       {PROGRAM} schema",
        description="Decode captured paygate traffic: pcap, pcapng, hex text or bare frames, gzipped or not.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("file", nargs="?", metavar="FILE", help="what to read; - or nothing: standard input")
    _add_output(top.add_argument_group("output (default: one line a frame)"))
    _add_choice(top.add_argument_group("what to show (default: everything)"))
    _add_secrets(top.add_argument_group("secrets"))
    reading = top.add_argument_group("reading")
    reading.add_argument(
        "--port",
        type=_port,
        action="append",
        default=[],
        metavar="PORT",
        help="a port that carries paygate besides 15000 and 15001, where bytes that are no frame are findings; "
        "frames are found on every port",
    )
    return top


def _add_output(group: argparse._ArgumentGroup) -> None:
    form = group.add_mutually_exclusive_group()
    form.add_argument("-v", "--verbose", action="store_true", help="all fields with offsets and bytes")
    form.add_argument("--ladder", action="store_true", help="a sequence diagram for the terminal")
    form.add_argument("--mermaid", action="store_true", help="a Mermaid sequence diagram")
    form.add_argument("--svg", action="store_true", help="a sequence diagram as SVG")
    form.add_argument("--stats", action="store_true", help="counts, latencies, outcomes, at the end")
    group.add_argument("--json", action="store_true", help="one JSON object a line; with --stats one object")
    group.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal, unless NO_COLOR"
    )
    group.add_argument("--width", type=_width, metavar="COLUMNS", help="of a ladder (default: the terminal's, or 100)")


def _add_choice(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--follow",
        metavar="PAYMENT",
        help="the story of one payment over all links: its ID or the beginning of it, its transaction ID or its UTR",
    )
    group.add_argument(
        "--kind",
        type=filters.kind,
        action="append",
        default=[],
        metavar="KIND",
        help="frames of this kind; may be repeated",
    )
    group.add_argument(
        "--flow",
        type=filters.flow,
        action="append",
        default=[],
        metavar="N",
        help="this flow, by its number; may be repeated",
    )
    group.add_argument(
        "--payment", type=filters.payment, metavar="HEX", help="this payment, or the beginning of its ID"
    )
    group.add_argument("--transaction", default="", metavar="ID", help="this transaction")
    group.add_argument("--since", type=filters.time, metavar="TIME", help=f"from then on: {filters.TIME_FORMS}")
    group.add_argument("--until", type=filters.time, metavar="TIME", help="up to then")
    group.add_argument(
        "--outcome",
        type=filters.outcome,
        action="append",
        default=[],
        metavar="NAME",
        help="frames that carry this status, outcome, reason or error code, such as PAID, FUNDS, BAD_MAC",
    )
    group.add_argument("--findings", action="store_true", help="only what is wrong")


def _add_secrets(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--show-secrets", action="store_true", help="show passcodes and whole envelopes")
    group.add_argument(
        "--link-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="check MACs under this key, as `paygate-bank add-gateway` made it; may be repeated",
    )
    group.add_argument(
        "--decode-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="open envelopes with a private key of your own test bank: decoder/KEYID.SUITE.key of its state directory, "
        "where KEYID is the frame's key; may be repeated",
    )


def encode_parser() -> argparse.ArgumentParser:
    """`encode`."""
    encode = argparse.ArgumentParser(
        prog=f"{PROGRAM} encode",
        description="Make frames of JSON objects, one a line: what --json --show-secrets printed, or by hand "
        '{"kind": "TokenQuery", "correlation_id": "1", "message": {...}}.',
        allow_abbrev=False,
    )
    encode.add_argument("file", nargs="?", default="-", metavar="FILE", help="the JSON; - or nothing: standard input")
    encode.add_argument(
        "--link-key", type=Path, metavar="FILE", help="make a MAC under this key where an object has none"
    )
    encode.add_argument("--hex", action="store_true", help="print hexadecimal, one frame a line")
    return encode


def describe_parser() -> argparse.ArgumentParser:
    """`describe`."""
    describe = argparse.ArgumentParser(
        prog=f"{PROGRAM} describe",
        description="What a message, record or registry of the protocol is, by its declaration.",
        allow_abbrev=False,
    )
    describe.add_argument("name", metavar="KIND", help="such as TokenQuery, 0x10, Terms, Reason; or all")
    return describe


def schema_parser() -> argparse.ArgumentParser:
    """`schema`."""
    return argparse.ArgumentParser(
        prog=f"{PROGRAM} schema", description="Print the JSON Schema of what --json prints.", allow_abbrev=False
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError("expected a port number from 1 to 65535")
    return int(text)


def _width(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 40 <= int(text) <= 1_000):
        raise argparse.ArgumentTypeError("expected a number of columns from 40 to 1000")
    return int(text)
