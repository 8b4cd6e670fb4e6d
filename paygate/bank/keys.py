"""The bank's keys and where they are kept.

    bank.json           bank ID, bank code, currency; no secret
    root.key            signs key lists; used by commands only and never by a running server, so it may be moved away
    root.pub            `BANKID HEX64`: what clients pin
    receipt.key         signs receipts
    keys.signed         the signed key list (spec 8.4)
    decoder/            what only the decoder child opens (R23): pepper and sealing keys
    gateways/ID.key     the link key of one gateway each
    restored.json       when it was restored from a backup, if it was (`backup.py`)

Keys are hexadecimal text in files of mode 0600; looser ones are refused (T29).
"""

import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paygate.bank.ledger import BankIdentity
from paygate.cli import ExitCode, PaygateExit
from paygate.codec import limits
from paygate.codec.codes import KemId
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.fields import CURRENCY, IDENTIFIER
from paygate.codec.record_codec import decode_record
from paygate.codec.seal import (
    DEFAULT_PASSWORD_KEY,
    BadKeyList,
    SealingKey,
    key_id_of,
    sign_key_list,
    verify_key_list,
)
from paygate.codec.sealed import KeyList, ReceiptKey, SignedKeyList, SuiteKey
from paygate.files.durable import fsync_directory
from paygate.files.state_dir import StateDir, StateError, check_private

KEY_LIST_VALID_MS: Final = 365 * 24 * 3_600_000
"""How long a key list is valid; each rotation begins it anew."""
LINK_KEY_SIZE: Final = 32
RESTORED_SERIAL_STEP: Final = 1_000
"""More rotations than there are between a backup and its restore."""

_KEY_SIZE: Final = 32
_IDENTITY_NAME: Final = "bank.json"
_ROOT_KEY_NAME: Final = "root.key"
_ROOT_PUBLIC_NAME: Final = "root.pub"
_RECEIPT_KEY_NAME: Final = "receipt.key"
KEY_LIST_NAME: Final = "keys.signed"
_PEPPER_NAME: Final = "pepper.key"
_DECODER_DIRECTORY: Final = "decoder"
_GATEWAY_DIRECTORY: Final = "gateways"
_KEM_WORDS: Final = {KemId.MLKEM768_X25519: "mlkem768-x25519", KemId.X25519: "x25519"}
_SEALING_KEY_NAME: Final = re.compile(r"([0-9a-f]{16})\.(mlkem768-x25519|x25519)\.key")
_BANK_CODE: Final = re.compile(r"[A-Z]{4}")


# -- making and reading ----------------------------------------------------------------------------------


def make_keys(directory: Path, identity: BankIdentity, now_wall_ms: int) -> None:
    """Make the state directory of a new bank with all its keys.

    Raises PaygateExit(USAGE) for an identity that can't be, StateError if there is a bank already.
    """
    _check_identity(identity)
    state = StateDir(directory)
    state.create()
    if (directory / _IDENTITY_NAME).exists():
        raise StateError(f"there is a bank in {directory} already; give another directory")
    for name in (_DECODER_DIRECTORY, _GATEWAY_DIRECTORY):
        StateDir(directory / name).create()
    root_key, receipt_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    _write_hex(state, _ROOT_KEY_NAME, root_key.private_bytes_raw())
    _write_hex(state, _RECEIPT_KEY_NAME, receipt_key.private_bytes_raw())
    _write_hex(StateDir(directory / _DECODER_DIRECTORY), _PEPPER_NAME, secrets.token_bytes(_KEY_SIZE))
    root_public = root_key.public_key().public_bytes_raw()
    state.write_atomic(_ROOT_PUBLIC_NAME, f"{identity.bank_id} {root_public.hex()}\n".encode())
    receipt_public = receipt_key.public_key().public_bytes_raw()
    key_list = KeyList(
        bank_id=identity.bank_id,
        serial=1,
        valid_from_ms=_valid_from(now_wall_ms),
        valid_until_ms=now_wall_ms + KEY_LIST_VALID_MS,
        password_key=DEFAULT_PASSWORD_KEY,
        suite_keys=_make_sealing_keys(directory),
        receipt_keys=(ReceiptKey(key_id_of(receipt_public), receipt_public),),
    )
    state.write_atomic(KEY_LIST_NAME, sign_key_list(root_key, key_list))
    # Last, since it says that there is a bank: a crash before it leaves a directory that is refused as none.
    identity_json = {
        "bank_id": identity.bank_id,
        "bank_code": identity.bank_code,
        "currency": identity.currency,
    }
    state.write_atomic(_IDENTITY_NAME, json.dumps(identity_json, indent=2).encode() + b"\n")


def _check_identity(identity: BankIdentity) -> None:
    if not IDENTIFIER.is_legal(identity.bank_id):
        raise PaygateExit(f"--bank-id: expected {IDENTIFIER.expected}", ExitCode.USAGE)
    if not _BANK_CODE.fullmatch(identity.bank_code):
        raise PaygateExit("--bank-code: expected four capital letters, such as PAYG", ExitCode.USAGE)
    if not CURRENCY.is_legal(identity.currency):
        raise PaygateExit("--currency: expected an ISO 4217 code in capitals, such as INR", ExitCode.USAGE)


def load_identity(directory: Path) -> BankIdentity:
    """Which bank a state directory holds. Raises StateError."""
    path = directory / _IDENTITY_NAME
    try:
        values = json.loads(path.read_bytes())
        identity = BankIdentity(values["bank_id"], values["bank_code"], values["currency"])
        _check_identity(identity)
    except FileNotFoundError:
        raise StateError(f"there is no bank in {directory}; make one with paygate-bank init") from None
    except (OSError, ValueError, KeyError, TypeError, PaygateExit):
        raise StateError(f"{path} does not say which bank it is; restore it from a backup") from None
    return identity


def check_root_key(directory: Path) -> None:
    """Refuse a root key that others may read (T29). A server doesn't need one at all. Raises StateError."""
    path = directory / _ROOT_KEY_NAME
    if path.exists():
        check_private(path, path.stat(), 0o600)


def load_receipt_key(directory: Path) -> Ed25519PrivateKey:
    """The key that receipts are signed with. Raises StateError."""
    return Ed25519PrivateKey.from_private_bytes(_read_hex(StateDir(directory), _RECEIPT_KEY_NAME, _KEY_SIZE))


def load_signed_key_list(directory: Path) -> bytes:
    """The bytes that BankKeys carries. Raises StateError if they are no signed key list."""
    return _load_key_list(directory)[0]


def load_key_list(directory: Path) -> KeyList:
    """The key list itself. Raises StateError."""
    return _load_key_list(directory)[1]


def _load_key_list(directory: Path) -> tuple[bytes, KeyList]:
    path = directory / KEY_LIST_NAME
    try:
        data = path.read_bytes()
        return data, decode_record(KeyList, decode_record(SignedKeyList, data).key_list)
    except OSError as error:
        raise StateError(f"could not read {path}: {error.strerror}") from None
    except RemoteProtocolError as error:
        raise StateError(f"{path} is no key list ({error.text}); restore it from a backup") from None


def root_key_line(directory: Path) -> str:
    """`BANKID HEX64`: the public half of the root key, which clients pin. Raises StateError."""
    identity = load_identity(directory)
    path = directory / _ROOT_PUBLIC_NAME
    try:
        line = path.read_text(encoding="ascii").strip()
        bank_id, root_key = line.split(" ")
        is_whole = bank_id == identity.bank_id and len(bytes.fromhex(root_key)) == limits.ED25519_PUBLIC_KEY_SIZE
    except (OSError, ValueError):  # a UnicodeDecodeError is a ValueError
        is_whole = False
    if not is_whole:
        raise StateError(f"{path}: expected {identity.bank_id} and 64 hexadecimal digits; restore it from a backup")
    return line


# -- rotation --------------------------------------------------------------------------------------------


def rotate_keys(directory: Path, now_wall_ms: int) -> KeyList:
    """Add a new sealing key of each suite and sign a new list; the old keys stay valid until retired (T12).

    A running bank takes both over by itself. Raises StateError.
    """
    old = load_key_list(directory)
    if len(old.suite_keys) + len(_KEM_WORDS) > limits.SUITE_KEY_COUNT_MAX:
        raise StateError(
            f"the key list has {len(old.suite_keys)} sealing keys and holds {limits.SUITE_KEY_COUNT_MAX}; "
            "retire old ones first with paygate-bank retire-keys"
        )
    # The keys first: whoever sees the list can then have an envelope opened. Clients take the first of a suite.
    return _sign_next(directory, old, _make_sealing_keys(directory) + old.suite_keys, now_wall_ms)


def retire_key(directory: Path, key_id: bytes, now_wall_ms: int) -> KeyList:
    """Take a sealing key off the list and destroy it; what was sealed for it gets KEY_RETIRED. Raises StateError."""
    old = load_key_list(directory)
    kept = tuple(key for key in old.suite_keys if key.key_id != key_id)
    if len(kept) == len(old.suite_keys):
        # A kill between list and key leaves the key: off the list, and not destroyed.
        if _destroy_sealing_key(directory, key_id):
            return old
        known = ", ".join(key.key_id.hex() for key in old.suite_keys)
        raise StateError(f"the key list has no key {key_id.hex()}; it has {known}")
    retired = next(key for key in old.suite_keys if key.key_id == key_id)
    if not any(key.kem_id is retired.kem_id for key in kept):
        raise StateError(f"{key_id.hex()} is the last {retired.kem_id.name} key; rotate first")
    key_list = _sign_next(directory, old, kept, now_wall_ms)
    _destroy_sealing_key(directory, key_id)
    return key_list


def _destroy_sealing_key(directory: Path, key_id: bytes) -> bool:
    """Remove a sealing key's file; gives whether there was one. Raises StateError."""
    decoder_directory = directory / _DECODER_DIRECTORY
    try:
        paths = list(decoder_directory.glob(f"{key_id.hex()}.*.key"))
        for path in paths:
            path.unlink(missing_ok=True)
        fsync_directory(decoder_directory)
    except OSError as error:
        raise StateError(f"could not remove the key from {decoder_directory}: {error.strerror}") from None
    return bool(paths)


def renew_key_list(directory: Path, now_wall_ms: int) -> KeyList:
    """Sign the list of a restored bank anew, with a serial above all that the bank can have given since the backup.

    Clients take no list with a serial below one that they have seen (T10). Raises StateError.
    """
    old = load_key_list(directory)
    return _sign_next(directory, old, old.suite_keys, now_wall_ms, serial_step=RESTORED_SERIAL_STEP)


def _sign_next(
    directory: Path, old: KeyList, suite_keys: Sequence[SuiteKey], now_wall_ms: int, *, serial_step: int = 1
) -> KeyList:
    state = StateDir(directory)
    root_key = _load_root_key(directory)
    key_list = KeyList(
        bank_id=old.bank_id,
        serial=old.serial + serial_step,
        valid_from_ms=min(_valid_from(now_wall_ms), old.valid_from_ms),
        valid_until_ms=max(now_wall_ms + KEY_LIST_VALID_MS, old.valid_until_ms),
        password_key=old.password_key,
        suite_keys=tuple(suite_keys),
        receipt_keys=old.receipt_keys,
    )
    state.write_atomic(KEY_LIST_NAME, sign_key_list(root_key, key_list))
    return key_list


def _valid_from(now_wall_ms: int) -> int:
    """A client whose clock is so slow that its payments are just taken can use a list that was made just now."""
    return max(0, now_wall_ms - limits.AUTHORISED_AT_SKEW_MS_MAX)


# -- the decoder's secrets -------------------------------------------------------------------------------


def load_pepper(directory: Path) -> bytes:
    """The key of all verifiers; for the decoder child only (T18). Raises StateError."""
    return _read_hex(StateDir(directory / _DECODER_DIRECTORY), _PEPPER_NAME, _KEY_SIZE)


def load_sealing_keys(directory: Path) -> dict[bytes, SealingKey]:
    """Every sealing key by its key ID; for the decoder child only (R23). Raises StateError."""
    decoder = StateDir(directory / _DECODER_DIRECTORY)
    kem_ids = {word: kem_id for kem_id, word in _KEM_WORDS.items()}
    keys: dict[bytes, SealingKey] = {}
    for name in sorted(path.name for path in decoder.path.iterdir()):
        match = _SEALING_KEY_NAME.fullmatch(name)
        if match is None:
            continue
        try:
            key = SealingKey.from_private_bytes(kem_ids[match[2]], _read_hex(decoder, name))
        except ValueError:
            raise _bad_key(decoder, name) from None
        except StateError:
            if not (decoder.path / name).exists():
                continue  # It was just retired, and is off the list already.
            raise
        key_id = key.public_suite_key().key_id
        if key_id.hex() != match[1]:
            raise _bad_key(decoder, name)
        keys[key_id] = key
    return keys


def decoder_secrets_mtime_ns(directory: Path) -> int:
    """Changes when a sealing key is added or removed. Raises StateError."""
    # Text and no Path, whose making would take most of the time: a decoder asks at each read.
    path = f"{directory}/{_DECODER_DIRECTORY}"
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError as error:
        raise StateError(f"could not look at {path}: {error.strerror}") from None


def _make_sealing_keys(directory: Path) -> tuple[SuiteKey, ...]:
    decoder = StateDir(directory / _DECODER_DIRECTORY)
    public_keys = []
    for kem_id in _KEM_WORDS:
        key = SealingKey.generate(kem_id)
        public_keys.append(key.public_suite_key())
        _write_hex(decoder, _sealing_key_name(public_keys[-1]), key.private_bytes())
    return tuple(public_keys)


def _sealing_key_name(key: SuiteKey) -> str:
    return f"{key.key_id.hex()}.{_KEM_WORDS[key.kem_id]}.key"


# -- gateways' link keys ---------------------------------------------------------------------------------


def add_gateway(directory: Path, gateway_id: str, key_out: Path) -> None:
    """Make a link key for a gateway: kept here, and written to `key_out` for it to take. Raises StateError."""
    if not IDENTIFIER.is_legal(gateway_id):
        raise PaygateExit(f"gateway ID: expected {IDENTIFIER.expected}", ExitCode.USAGE)
    gateways = StateDir(directory / _GATEWAY_DIRECTORY)
    if (gateways.path / f"{gateway_id}.key").exists():
        raise StateError(f"gateway {gateway_id} has a key already: {gateways.path / gateway_id}.key")
    link_key = secrets.token_bytes(LINK_KEY_SIZE)
    if not key_out.name or key_out.is_dir():
        raise PaygateExit(f"--key-out {key_out}: expected the path of a file to write", ExitCode.USAGE)
    # The copy first: if it can't be written, the bank is as before.
    _write_hex(StateDir(key_out.parent), key_out.name, link_key)
    try:
        _write_hex(gateways, f"{gateway_id}.key", link_key)
    except StateError:
        key_out.unlink()  # or the next try would find it there
        raise


def find_link_key(directory: Path, gateway_id: str) -> bytes | None:
    """The link key of a gateway, looked up at each Hello; None for a stranger. Raises StateError (T29)."""
    # The ID becomes part of a path, so it is checked here, whatever others have checked before.
    if not IDENTIFIER.is_legal(gateway_id):
        return None
    gateways = StateDir(directory / _GATEWAY_DIRECTORY)
    path = gateways.path / f"{gateway_id}.key"
    try:
        is_there = path.exists()
    except OSError as error:
        raise StateError(f"could not look at {path}: {error.strerror}") from None
    if not is_there:
        return None
    return _read_hex(gateways, f"{gateway_id}.key", LINK_KEY_SIZE)


def gateway_ids(directory: Path) -> list[str]:
    """The gateways that have a link key."""
    return sorted(path.stem for path in (directory / _GATEWAY_DIRECTORY).glob("*.key"))


# -- what a backup holds ---------------------------------------------------------------------------------


def public_file_names() -> tuple[str, ...]:
    """The files of a bank that hold no secret: a backup without keys has these."""
    return _ROOT_PUBLIC_NAME, KEY_LIST_NAME, _IDENTITY_NAME


def key_file_names(directory: Path) -> list[str]:
    """The files with keys that a state directory or a backup of one has; whoever has these is the bank."""
    names = [name for name in (_ROOT_KEY_NAME, _RECEIPT_KEY_NAME) if (directory / name).exists()]
    for folder in (_DECODER_DIRECTORY, _GATEWAY_DIRECTORY):
        names += sorted(f"{folder}/{path.name}" for path in (directory / folder).glob("*.key"))
    return names


def has_root_key(directory: Path) -> bool:
    """Whether key lists can be signed here."""
    return (directory / _ROOT_KEY_NAME).exists()


def are_keys_of(directory: Path, root_key_line: str) -> bool:
    """Whether root key and key list in a directory, as far as they are there, are this bank's. Raises StateError."""
    bank_id, root_public = root_key_line.split(" ")
    if has_root_key(directory):
        return _load_root_key(directory).public_key().public_bytes_raw().hex() == root_public
    if (directory / KEY_LIST_NAME).exists():
        try:
            verify_key_list(load_signed_key_list(directory), bytes.fromhex(root_public), bank_id, None)
        except BadKeyList:
            return False
    return True


# -- files -----------------------------------------------------------------------------------------------


def _load_root_key(directory: Path) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_read_hex(StateDir(directory), _ROOT_KEY_NAME, _KEY_SIZE))


def _write_hex(state: StateDir, name: str, secret: bytes) -> None:
    state.write_secret(name, secret.hex().encode() + b"\n")


def _read_hex(state: StateDir, name: str, size: int | None = None) -> bytes:
    try:
        secret = bytes.fromhex(state.read_secret(name).decode("ascii").strip())
    except ValueError:
        raise _bad_key(state, name) from None
    if size is not None and len(secret) != size:
        raise _bad_key(state, name)
    return secret


def _bad_key(state: StateDir, name: str) -> StateError:
    return StateError(f"{state.path / name} does not hold the key that it should; restore it from a backup")
