"""The world under test: who is who, their secrets, and what the implementation was set up with; read from JSON.

    {
      "bank": {"bank_id": "CONFORMBANK", "bank_code": "CONF", "currency": "INR",
               "root_public_key": "bank/root.pub"},
      "gateway": {"gateway_id": "conform-gateway", "link_key": "gateway.key"},
      "second_gateway": {"gateway_id": "conform-gateway-2", "link_key": "gateway-2.key"},
      "customers": [{"user_id": "...", "password": "...", "balance_minor": 100000, "use": "SPENDING"}],
      "merchants": [{"merchant_id": "..."}],
      "tokens": [{"transaction_id": "...", "passcode": "...", "amount_minor": 125000, "merchant_id": "..."}],
      "expired_tokens": [{"transaction_id": "...", "passcode": "...", "amount_minor": 125000, "merchant_id": "..."}],
      "played_bank_seed": "<64 hexadecimal digits>"
    }

A key is 64 hexadecimal digits, or the path of a file that holds them as its last word, relative to the world's file:
so `bank/root.pub` may be what `paygate-bank show-root-key` prints. Keys are read when a case needs them. Amounts are
minor units. `use` says what a customer is for, see `Use`. `second_gateway` may be null, and `expired_tokens`, whose
time is over or which the merchant withdrew, may be left out; what needs them is skipped. Where the kit itself plays the
bank, all the keys of that bank are made from `played_bank_seed`, so that they are the same in each run.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from paygate.cli import ExitCode, PaygateExit
from paygate.codec.fields import AMOUNT_MINOR, CURRENCY, IDENTIFIER, PASSCODE, PASSWORD, USER_ID, Field
from paygate.codec.money import format_amount

KEY_SIZE: Final = 32
"""Link keys and Ed25519 public keys alike."""


class BadWorld(PaygateExit):
    """The world's file can't be used; the text says where in it and what is expected."""

    code = ExitCode.USAGE


class Use(Enum):
    """What a customer of the world is for, so that no case spoils another's."""

    PAYING = "is rich, and pays whenever a case needs somebody who pays"
    GUESSED = "is rich, and wrong passwords are tried on their account"
    SPENDING = "has a small balance that one case uses up; a world serves as many runs as it has of them"


NEEDS: Final[Mapping[str, Mapping[Use, int]]] = {
    "bank": {Use.PAYING: 1, Use.GUESSED: 3, Use.SPENDING: 1},
    "gateway": {Use.PAYING: 1},
    "client": {Use.PAYING: 1},
}
"""How many customers of each use the cases of a role can't do without."""
SPENDING_MINOR_MIN: Final = 100
"""The least balance of who spends: cases pay a tenth of it and a third, and must be able to tell them apart."""


@dataclass(frozen=True, slots=True)
class Party:
    """A gateway that the bank knows."""

    gateway_id: str
    link_key: bytes


@dataclass(frozen=True, slots=True)
class WorldCustomer:
    """Somebody with an account."""

    user_id: str
    password: str
    balance_minor: int
    use: Use


@dataclass(frozen=True, slots=True)
class WorldToken:
    """An unpaid token that the gateway knows."""

    transaction_id: str
    passcode: str
    amount_minor: int
    merchant_id: str


@dataclass(frozen=True, slots=True)
class World:
    """What a run knows."""

    bank_id: str
    bank_code: str
    currency: str
    root_public_key: bytes
    gateway: Party
    second_gateway: Party | None
    customers: tuple[WorldCustomer, ...]
    merchant_ids: tuple[str, ...]
    tokens: tuple[WorldToken, ...]
    played_bank_seed: bytes = field(repr=False)
    expired_tokens: tuple[WorldToken, ...] = ()

    def customers_for(self, use: Use) -> Iterator[WorldCustomer]:
        """Those who are for this."""
        return (customer for customer in self.customers if customer.use is use)


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Options of the command line that say where keys are, in place of what the world says; each may be None."""

    bank_root: Path | None = None
    link_key: Path | None = None
    second_link_key: Path | None = None


def read_world(path: Path, keys: KeyFiles, role: str | None = None) -> World:
    """Read a world, which must do for this role's cases. Raises BadWorld: what, where and how to mend it."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise BadWorld(
            f"could not read {path}: {(error.strerror or str(error)).lower()}; "
            "make a world with paygate-conform world DIR"
        ) from None
    except ValueError as error:
        raise BadWorld(f"{path} is no JSON: {error}") from None
    except RecursionError:
        raise BadWorld(f"{path} is no world: it is nested too deeply") from None
    reader = _Reader(path, "", data)
    bank, gateway = reader.at("bank"), reader.at("gateway")
    second = reader.at("second_gateway") if reader.has("second_gateway") else None
    customers, merchants = reader.items("customers"), reader.items("merchants")
    tokens, expired_tokens = reader.items("tokens"), _expired(reader)
    world = World(
        bank_id=bank.text("bank_id", IDENTIFIER),
        bank_code=bank.code("bank_code"),
        currency=bank.text("currency", CURRENCY),
        root_public_key=bank.key("root_public_key", keys.bank_root, "--bank-root"),
        gateway=_party(gateway, keys.link_key, "--link-key"),
        second_gateway=_party(second, keys.second_link_key, "--second-link-key") if second else None,
        customers=tuple(_customer(item) for item in customers),
        merchant_ids=tuple(item.text("merchant_id", IDENTIFIER) for item in merchants),
        tokens=tuple(_token(item) for item in tokens),
        played_bank_seed=reader.key("played_bank_seed", None, ""),
        expired_tokens=tuple(_token(item) for item in expired_tokens),
    )
    gateways = [gateway, second] if second else [gateway]
    for one in (reader, bank, *gateways, *customers, *merchants, *tokens, *expired_tokens):
        one.require_all_known()
    for name, several in (
        ("gateway_id", gateways),
        ("user_id", customers),
        ("merchant_id", merchants),
        ("transaction_id", [*tokens, *expired_tokens]),
    ):
        _require_different(several, name)
    _require_enough(path, world, NEEDS[role] if role is not None else {})
    return world


def _require_different(readers: Iterable["_Reader"], name: str) -> None:
    seen: set[str] = set()
    for reader in readers:
        value = str(reader.value(name))
        if value in seen:
            raise reader.bad(name, f"another than {value}, which stands before it already")
        seen.add(value)


def _require_enough(path: Path, world: World, needs: Mapping[Use, int]) -> None:
    for use, least in needs.items():
        count = sum(1 for _ in world.customers_for(use))
        if count < least:
            raise BadWorld(
                f"{path}: customers: expected at least {least} of use {use.name}, who {use.value}; {count} are"
            )
    if Use.SPENDING not in needs:
        return
    for customer in world.customers_for(Use.SPENDING):
        if customer.balance_minor < SPENDING_MINOR_MIN:
            raise BadWorld(
                f"{path}: customers: expected a balance_minor of at least {SPENDING_MINOR_MIN} "
                f"for {customer.user_id}, who is {Use.SPENDING.name}"
            )


def _expired(reader: "_Reader") -> "list[_Reader]":
    return reader.items("expired_tokens") if reader.has("expired_tokens") else []


def _party(reader: "_Reader", override: Path | None, option: str) -> Party:
    return Party(reader.text("gateway_id", IDENTIFIER), reader.key("link_key", override, option))


def _customer(reader: "_Reader") -> WorldCustomer:
    use = reader.value("use")
    if not isinstance(use, str) or use not in Use.__members__:
        raise reader.bad("use", f"one of {', '.join(Use.__members__)}")
    return WorldCustomer(
        reader.text("user_id", USER_ID), reader.text("password", PASSWORD), reader.amount("balance_minor"), Use[use]
    )


def _token(reader: "_Reader") -> WorldToken:
    return WorldToken(
        reader.text("transaction_id", IDENTIFIER),
        reader.text("passcode", PASSCODE),
        reader.amount("amount_minor"),
        reader.text("merchant_id", IDENTIFIER),
    )


class _Reader:
    """An object of the world's file and where it stands."""

    def __init__(self, path: Path, where: str, data: Any) -> None:
        self._path = path
        self._where = where
        if not isinstance(data, dict):
            raise BadWorld(f"{path}: {where or 'the whole'}: expected an object")
        self._data: dict[str, Any] = data
        self._known: set[str] = set()

    def has(self, name: str) -> bool:
        self._known.add(name)
        return self._data.get(name) is not None

    def require_all_known(self) -> None:
        for name in self._data:
            if name not in self._known:
                raise self.bad(name, f"no such name; there are {', '.join(sorted(self._known))}")

    def value(self, name: str) -> Any:
        self._known.add(name)
        if name not in self._data:
            raise self.bad(name, "a value; it is missing")
        return self._data[name]

    def at(self, name: str) -> "_Reader":
        return _Reader(self._path, self._place(name), self.value(name))

    def items(self, name: str) -> "list[_Reader]":
        values = self.value(name)
        if not isinstance(values, list) or not values:
            raise self.bad(name, "a list of at least one object")
        return [_Reader(self._path, f"{self._place(name)}[{i}]", value) for i, value in enumerate(values)]

    def text(self, name: str, field: Field) -> str:
        value = self.value(name)
        if not field.is_legal(value):
            raise self.bad(name, field.expected)
        return str(value)

    def code(self, name: str) -> str:
        value = self.value(name)
        if not (isinstance(value, str) and len(value) == 4 and value.isascii() and value.isalpha() and value.isupper()):
            raise self.bad(name, "four capital letters")
        return value

    def amount(self, name: str) -> int:
        value = self.value(name)
        if not AMOUNT_MINOR.is_legal(value):
            raise self.bad(name, AMOUNT_MINOR.expected)
        return int(value)

    def key(self, name: str, override: Path | None, option: str) -> bytes:
        """A key's bytes: from the option's file, the file that the world names, or the world itself."""
        value = self.value(name) if override is None else ""
        self._known.add(name)
        if override is None and isinstance(value, str) and (key := _key_in(value)):
            return key
        if not isinstance(value, str):
            raise self.bad(name, "64 hexadecimal digits, or the path of a file that holds them")
        source = self._path.parent / value if override is None else override
        try:
            key = _key_in(source.read_text(encoding="ascii").split()[-1])
        except (OSError, ValueError, IndexError) as error:
            what = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no text"
            raise self.bad(
                name, f"a key in {source} ({what}); put the file there, or say where it is with {option}"
            ) from None
        if not key:
            raise self.bad(name, f"64 hexadecimal digits as the last word of {source}")
        return key

    def bad(self, name: str, expected: str) -> BadWorld:
        return BadWorld(f"{self._path}: {self._place(name)}: expected {expected}")

    def _place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name


def _key_in(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return b""
    return key if len(key) == KEY_SIZE and len(text) == 2 * KEY_SIZE else b""


# -- making one ------------------------------------------------------------------------------------------

WORLD_NAME: Final = "world.json"
_RICH_MINOR: Final = 10**14
_SPENDING_MINOR: Final = 10_000
_SPENDING_COUNT: Final = 40
_TOKEN_COUNT: Final = 400
_EXPIRED_COUNT: Final = 8
_MERCHANT_ID: Final = "M-CONFORM"
_EXPIRED_END: Final = " | | 2020-01-01T00:00:00Z"
"""No UTR, and a time that is over."""


def default_world(secret: bytes) -> dict[str, Any]:
    """A world as its file holds it. `secret`: random bytes that passwords and passcodes are made of, in hexadecimal."""
    word = secret.hex()
    customers = [
        *(_world_customer(f"payer-{i}", word, _RICH_MINOR, Use.PAYING) for i in range(1, 4)),
        *(_world_customer(f"guessed-{i}", word, _RICH_MINOR, Use.GUESSED) for i in range(1, 9)),
        *(_world_customer(f"spender-{i}", word, _SPENDING_MINOR, Use.SPENDING) for i in range(1, _SPENDING_COUNT + 1)),
    ]
    return {
        "bank": {
            "bank_id": "CONFORMBANK",
            "bank_code": "CONF",
            "currency": "INR",
            "root_public_key": "bank/root.pub",
        },
        "gateway": {"gateway_id": "conform-gateway", "link_key": "gateway.key"},
        "second_gateway": {"gateway_id": "conform-gateway-2", "link_key": "gateway-2.key"},
        "customers": customers,
        "merchants": [{"merchant_id": _MERCHANT_ID}, {"merchant_id": f"{_MERCHANT_ID}-2"}],
        "tokens": [_world_token(word[:8], i) for i in range(1, _TOKEN_COUNT + 1)],
        "expired_tokens": [_world_token(word[:8], _TOKEN_COUNT + i) for i in range(1, _EXPIRED_COUNT + 1)],
        "played_bank_seed": hashlib.sha256(b"played bank" + secret).hexdigest(),
    }


def _world_customer(name: str, word: str, balance_minor: int, use: Use) -> dict[str, Any]:
    return {"user_id": name, "password": f"{name} {word}", "balance_minor": balance_minor, "use": use.name}


def _world_token(word: str, number: int) -> dict[str, Any]:
    return {
        "transaction_id": f"TX-{word}-{number}",
        "passcode": f"{word}{number}",
        "amount_minor": 125_000 + number,
        "merchant_id": _MERCHANT_ID,
    }


def write_world(directory: Path, world: dict[str, Any], key_files: dict[str, str] | None = None) -> list[Path]:
    """Write the world and, in this project's own format, the records that bank and gateway are set up from.

    `key_files`: by name, what holds the keys of a bank that the kit plays. Raises BadWorld if it can't be written, or
    would overwrite another world.
    """
    if (directory / WORLD_NAME).exists():
        raise BadWorld(f"there is a world in {directory} already; give another directory, or remove that one")
    currency = world["bank"]["currency"]
    files = {
        WORLD_NAME: json.dumps(world, indent=1) + "\n",
        "NetbankingUsers.txt": "".join(
            f"C-{c['user_id']} | {c['user_id']} | {c['password']} | {format_amount(c['balance_minor'], currency)}\n"
            for c in world["customers"]
        ),
        "Merchant.txt": "".join(f"{m['merchant_id']} | Conformance | 0.00\n" for m in world["merchants"]),
        "PaymentTokensData.txt": "".join(
            f"{t['transaction_id']} | {t['passcode']} | unpaid | {format_amount(t['amount_minor'], currency)} "
            f"| {t['merchant_id']} | {currency}{end}\n"
            for tokens, end in ((world["tokens"], ""), (world["expired_tokens"], _EXPIRED_END))
            for t in tokens
        ),
        **(key_files or {}),
    }
    paths = [directory / name for name in files]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, files.values(), strict=True):
            # Never open to others, not even for a moment, and in nobody's place.
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(number, "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise BadWorld(
            f"could not write {error.filename or directory}: {(error.strerror or str(error)).lower()}"
        ) from None
    return paths
