"""What each case begins with: a bank with a few customers, a gateway with tokens, both made by the real commands."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crash.books import Books, Customer, Token
from crash.launch import Plan
from crash.system import BANK_ID, GATEWAY_ID
from crash.zygote import HANG_S, start, warm_up

from paygate.bank.keys import load_key_list

CUSTOMERS: Final = tuple(
    Customer(f"C-{name}", f"canary-user-{name.lower()}-5f0c", f"canary password of {name.lower()} 9a7b", opening_minor)
    for name, opening_minor in (
        ("ALICE", 100_000_000),
        ("BOB", 50_000_000),
        ("CAROL", 70_000_000),
        ("POOR", 50),
        ("VICTIM", 30_000_000),
    )
)
MERCHANTS: Final = {"M-100": 0, "M-200": 150_000}
FRESH_COUNT: Final = 160
"""Tokens, of which a round uses six at most."""
CANCEL_COUNT: Final = 20
TOKENS: Final = tuple(
    Token(f"TX-{number:04}", f"pc{number:04}", 1_000 + 7 * number, "M-100" if number % 3 else "M-200")
    for number in range(FRESH_COUNT)
)
_FIRST: Final = Token("TX-FIRST", "pc-first", 700, "M-100")
CANCELLED_BY_COMMAND: Final = tuple(Token(f"TX-CANCEL-{n}", f"pc{n:04}", 900, "M-100") for n in range(CANCEL_COUNT))


@dataclass(frozen=True, slots=True)
class Template:
    """Directories that are copied for each case."""

    directory: Path

    def make(self) -> None:
        """Make it, and warm this process up for its customers. Raises RuntimeError if a command fails."""
        _write_data(self.directory / "data")
        made = self.directory / "made"
        (made / "logs").mkdir(parents=True)
        (made / "clients").mkdir()
        bank, gateway, data = str(made / "bank"), str(made / "gateway"), str(self.directory / "data")
        self._run("bank", "init", "--state", bank, "--bank-id", BANK_ID, "--bank-code", "CRSH", "--from", data)
        self._run("bank", "add-gateway", GATEWAY_ID, "--state", bank, "--key-out", str(made / "link.key"))
        (made / "root.txt").write_text(self._run("bank", "show-root-key", "--state", bank), encoding="ascii")
        identity = ("--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", str(made / "link.key"))
        self._run("gateway", "init", "--state", gateway, *identity, "--from", data)
        # As while no server runs, so that there is a database to back up before the first start.
        given = ("--passcode", _FIRST.passcode, "--amount", _amount(_FIRST.amount_minor), "--merchant", "M-100")
        self._run("gateway", "issue", "--state", gateway, "--transaction", _FIRST.transaction_id, *given)
        parameters = load_key_list(made / "bank").password_key
        words = [(c.user_id, c.password) for c in CUSTOMERS]
        words += [(c.user_id, "wrong-canary-3c1e77") for c in CUSTOMERS if c.customer_id == "C-VICTIM"]
        warm_up([(parameters, BANK_ID, user_id, password) for user_id, password in words])

    def copy_to(self, root: Path) -> Books:
        """A new system's directories, and its books."""
        shutil.copytree(self.directory / "made", root)
        tokens = {token.transaction_id: token for token in (_FIRST, *TOKENS, *CANCELLED_BY_COMMAND)}
        return Books({c.customer_id: c for c in CUSTOMERS}, dict(MERCHANTS), tokens)

    @staticmethod
    def fresh_tokens() -> Iterator[Token]:
        """Tokens that nobody has tried yet."""
        return iter(TOKENS)

    def _run(self, program: str, *arguments: str) -> str:
        output, errors = self.directory / "made.out", self.directory / "made.err"
        output.unlink(missing_ok=True)
        started = start(program, arguments, Plan(), output, errors)
        if started.wait(HANG_S) != 0:
            raise RuntimeError(f"'{program} {arguments[0]}' ended with {started.exit_code}: {started.errors}")
        return started.output


def _write_data(directory: Path) -> None:
    directory.mkdir(parents=True)
    users = [f"{c.customer_id}|{c.user_id}|{c.password}|{_amount(c.opening_minor)}" for c in CUSTOMERS]
    merchants = [f"{name}|Merchant {name}|{_amount(minor)}" for name, minor in MERCHANTS.items()]
    tokens = [
        f"{t.transaction_id}|{t.passcode}|unpaid|{_amount(t.amount_minor)}|{t.merchant_id}|INR"
        for t in (*TOKENS, *CANCELLED_BY_COMMAND)
    ]
    for name, lines in (
        ("NetbankingUsers.txt", users),
        ("Merchant.txt", merchants),
        ("PaymentTokensData.txt", tokens),
    ):
        (directory / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _amount(minor: int) -> str:
    return f"{minor // 100}.{minor % 100:02}"
