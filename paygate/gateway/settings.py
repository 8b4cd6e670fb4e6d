"""What a gateway was told when it was made: who it is, which bank it pays through, and their link key."""

import json
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.fields import IDENTIFIER
from paygate.files.state_dir import StateDir, StateError
from paygate.gateway.bank_side import GatewayIdentity
from paygate.gateway.bank_trouble import LINK_KEY_NAME

SETTINGS_NAME: Final = "gateway.json"
STORE_NAME: Final = "tokens.sqlite"
_LINK_KEY_SIZE: Final = 32


def refuse_second(state: StateDir) -> None:
    """Raises StateError if there is a gateway already."""
    if (state.path / SETTINGS_NAME).exists():
        raise StateError(f"a gateway exists in {state.path}; give another directory")


def write_identity(state: StateDir, identity: GatewayIdentity) -> None:
    """Keep a new gateway's identity, which says that there is one. Raises StateError if there is one already."""
    refuse_second(state)
    # Without settings there is no gateway: a key beside them is what a killed `init` left, and a copy of the bank's.
    state.write_secret(LINK_KEY_NAME, f"{identity.link_key.hex()}\n".encode(), overwrite=True)
    settings = {"gateway_id": identity.gateway_id, "bank_id": identity.bank_id}
    state.write_atomic(SETTINGS_NAME, f"{json.dumps(settings, indent=2)}\n".encode())


def read_identity(state: StateDir) -> GatewayIdentity:
    """Who this gateway is, with its link key. Raises StateError naming the file and what is wrong with it."""
    return GatewayIdentity(*read_ids(state), read_link_key(state.path / LINK_KEY_NAME))


def read_ids(state: StateDir) -> tuple[str, str]:
    """The IDs of this gateway and of its bank: all that is known of it without its link key. Raises StateError."""
    path = state.path / SETTINGS_NAME
    try:
        settings = json.loads(path.read_bytes())
        gateway_id, bank_id = settings["gateway_id"], settings["bank_id"]
    except FileNotFoundError:
        raise StateError(f"{state.path} is no gateway's state; make it with 'paygate-gateway init'") from None
    except OSError as error:
        raise StateError(f"could not read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise StateError(f'{path}: expected {{"gateway_id": "...", "bank_id": "..."}} in JSON') from None
    for name, value in (("gateway_id", gateway_id), ("bank_id", bank_id)):
        if not IDENTIFIER.is_legal(value):
            raise StateError(f"{path}, {name}: expected {IDENTIFIER.expected}")
    return gateway_id, bank_id


def read_link_key(path: Path) -> bytes:
    """The link key that 'paygate-bank add-gateway' wrote. Raises StateError."""
    return _parse_link_key(StateDir(path.parent).read_secret(path.name), str(path))


def _parse_link_key(data: bytes, where: str) -> bytes:
    """32 bytes from 64 hexadecimal digits. Raises PaygateExit that does not show them."""
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        key = b""
    if len(key) != _LINK_KEY_SIZE:
        raise PaygateExit(f"{where}: expected a link key, 64 hexadecimal digits on one line", ExitCode.BAD_STATE)
    return key
