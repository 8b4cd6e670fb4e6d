"""The encoder for people: one JSON object a line in, one a line out (R23). `scripts/encode` runs it.

In, the form that names everything:
    {"suite_key": {...}, "password_key": {...}, "terms": {...}, "user_id": "...", "password": "..."}
or with the bank's key list, whose best suite is taken unless `kem` names one:
    {"signed_key_list": "HEX", "kem": "X25519", "terms": {...}, "user_id": "...", "password": "..."}
Out, and that is what the bank's decoder reads with `--text`:
    {"terms": {...}, "key_id": "HEX", "envelope": "HEX"}

With `--user` nothing but the password is read, and whatever of the terms isn't given has a default. The key
list's signature is not checked here: this is a workbench, and the client checks it (T10).
"""

import argparse
import getpass
import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from paygate.cli import ExitCode, PaygateExit
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.client.secret_input import read_line_from_fd
from paygate.clock import system_now
from paygate.codec import limits
from paygate.codec.codes import KemId
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.fields import fields_of
from paygate.codec.jsonform import BadJson, from_json, to_json
from paygate.codec.messages import SealCredentials
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import SealError, choose_suite_key, seal_request
from paygate.codec.sealed import KeyList, SignedKeyList, Terms
from paygate.files.durable import write_all

_STDIN, _STDOUT = 0, 1
_LINE_SIZE_MAX: Final = 131_072


def text_main(arguments: Sequence[str]) -> int:
    """Seal what stdin holds, or what the options say."""
    options = _parser().parse_args(arguments)
    if options.user is None:
        for line in iter(lambda: sys.stdin.readline(_LINE_SIZE_MAX), ""):
            if line.strip():
                _write(seal_line(line))
        return ExitCode.OK
    if options.key_list is None:
        raise PaygateExit("--user needs --key-list FILE (`paygate-bank show-key-list` prints one)", ExitCode.USAGE)
    try:
        _write(_sealed(_request_of(options)))
    except SealError as error:
        raise PaygateExit(str(error), ExitCode.USAGE) from None
    return ExitCode.OK


def seal_line(line: str) -> dict[str, Any]:
    """The output object for one line of input. Raises PaygateExit(USAGE) naming the field that is wrong."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise BadJson("", "an object")
        if "signed_key_list" in fields:
            fields = _with_key_list(dict(fields))
        return _sealed(from_json(SealCredentials, fields))
    except (BadJson, SealError) as error:
        raise PaygateExit(str(error), ExitCode.USAGE) from None
    except (ValueError, RecursionError):
        raise PaygateExit("a line of the input is not JSON", ExitCode.USAGE) from None


def _with_key_list(fields: dict[str, Any]) -> dict[str, Any]:
    kem = fields.pop("kem", None)
    if kem is not None and kem not in KemId.__members__:
        raise BadJson("kem", f"one of {', '.join(KemId.__members__)}")
    signed = fields.pop("signed_key_list")
    if not isinstance(signed, str):
        raise BadJson("signed_key_list", "a text in hexadecimal")
    key_list = _key_list(signed, kem)
    suite_key = choose_suite_key(key_list)
    return {"suite_key": to_json(suite_key), "password_key": to_json(key_list.password_key), **fields}


def _key_list(signed_hex: str, kem: str | None) -> KeyList:
    try:
        key_list = decode_record(KeyList, decode_record(SignedKeyList, bytes.fromhex(signed_hex)).key_list)
    except (ValueError, RemoteProtocolError):
        raise BadJson("signed_key_list", "a signed key list in hexadecimal") from None
    if kem is None:
        return key_list
    return replace(key_list, suite_keys=tuple(k for k in key_list.suite_keys if k.kem_id.name == kem))


def _sealed(request: SealCredentials) -> dict[str, Any]:
    """Raises SealError."""
    envelope = seal_request(request, os.urandom(limits.ENVELOPE_NONCE_SIZE))
    return {"terms": to_json(request.terms), "key_id": request.suite_key.key_id.hex(), "envelope": envelope.hex()}


def _request_of(options: argparse.Namespace) -> SealCredentials:
    try:
        key_list = _key_list(_read_key_list(options.key_list), options.kem)
        now_wall_ms = system_now().wall_ms
        terms = {
            "bank_id": key_list.bank_id,
            "payment_id": make_payment_id(now_wall_ms, os.urandom(RANDOMNESS_SIZE)).hex(),
            "session_id": os.urandom(limits.SESSION_ID_SIZE).hex(),
            "authorised_at_ms": now_wall_ms,
            "gateway_id": "GW-1",
            "merchant_id": "M-100",
            "transaction_id": "TX-1001",
            "amount_minor": 100,
            "currency": "INR",
        }
        terms.update({n: v for n, v in vars(options).items() if n in _TERMS_OPTIONS and v is not None})
        request = {
            "suite_key": to_json(choose_suite_key(key_list)),
            "password_key": to_json(key_list.password_key),
            "terms": terms,
            "user_id": unicodedata.normalize("NFC", options.user),
            "password": unicodedata.normalize("NFC", _password(options.password_fd)),
        }
        return from_json(SealCredentials, request)
    except (BadJson, SealError) as error:
        raise PaygateExit(str(error), ExitCode.USAGE) from None


def _read_key_list(path: Path) -> str:
    # By hand it may come through a pipe, so that is waited for.
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise PaygateExit(f"--key-list {path}: could not read: {error.strerror}", ExitCode.USAGE) from None
    except UnicodeDecodeError:
        raise PaygateExit(f"--key-list {path}: expected hexadecimal text, and this is none", ExitCode.USAGE) from None


def _password(fd: int) -> str:
    if os.isatty(fd):
        return getpass.getpass("Password: ")
    return read_line_from_fd(fd, "--password-fd")


_TERMS_OPTIONS: Final = {f.name: f for f in fields_of(Terms)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="encode",
        description="Seal credentials by hand. Without --user: one JSON object a line from stdin.",
        allow_abbrev=False,
    )
    parser.add_argument("--text", action="store_true", help="this mode")
    parser.add_argument("--key-list", type=Path, metavar="FILE", help="the bank's signed key list in hexadecimal")
    parser.add_argument("--user", metavar="ID", help="the net-banking user ID; the password comes from stdin")
    parser.add_argument("--password-fd", type=int, default=_STDIN, metavar="N", help="read the password from here")
    parser.add_argument("--kem", choices=list(KemId.__members__), help="seal for this suite; default: the best one")
    terms = parser.add_argument_group("terms", "each has a default; IDs and nonces are random, the time is now")
    for field in _TERMS_OPTIONS.values():
        kind = int if field.name.endswith(("_minor", "_ms")) else str
        terms.add_argument(f"--{field.name.replace('_', '-')}", type=kind, metavar="VALUE", help=field.doc)
    return parser


def _write(value: dict[str, Any]) -> None:
    write_all(_STDOUT, f"{json.dumps(value)}\n".encode())
