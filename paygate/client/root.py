"""The bank's root key as the customer pinned it: one line `BANKID HEX64` (T10)."""

from dataclasses import dataclass
from pathlib import Path

from paygate.cli import ExitCode, PaygateExit
from paygate.client.input_file import read_input_file
from paygate.codec import limits
from paygate.codec.fields import IDENTIFIER

ROOT_FILE_SIZE_MAX = 4_096
"""Bytes read of a root file: one line is meant, and a wrong file is refused before it fills the memory."""


class BadRoot(PaygateExit):
    """The text is no root key; nothing can be trusted without one."""

    code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class BankRoot:
    """Whose signature the customer trusts, got from the bank itself and never through the gateway."""

    bank_id: str
    public_key: bytes
    """Ed25519, 32 bytes."""

    def __str__(self) -> str:
        return f"{self.bank_id} {self.public_key.hex()}"


def parse_root(text: str) -> BankRoot:
    """Read the line that `paygate-bank show-root-key` prints. Raises BadRoot."""
    words = text.split()
    if len(words) != 2 or not IDENTIFIER.is_legal(words[0]):
        raise BadRoot("a bank's root key is one line: bank ID, a blank, 64 hexadecimal digits")
    try:
        public_key = bytes.fromhex(words[1])
    except ValueError:
        public_key = b""
    if len(public_key) != limits.ED25519_PUBLIC_KEY_SIZE:
        raise BadRoot(f"the root key of bank {words[0]} is not 64 hexadecimal digits")
    return BankRoot(words[0], public_key)


def read_root(path: Path) -> BankRoot:
    """Read a root file; blank lines and lines that begin with `#` are comments. Raises BadRoot."""
    try:
        data = read_input_file(path, ROOT_FILE_SIZE_MAX)
    except OSError as error:
        raise BadRoot(f"could not read the bank's root key {path}: {error.strerror}") from None
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    try:
        return parse_root(" ".join(line for line in lines if line and not line.startswith("#")))
    except BadRoot as error:
        raise BadRoot(f"{path}: {error}") from None
