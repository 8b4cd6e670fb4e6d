"""What an operator does meanwhile: accounts, keys, tokens, new servers; killed in the middle, and done again."""

import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crash.books import Books, Token, text_rows
from crash.points import POINTS
from crash.system import BANK_ID, GATEWAY_ID, Death, System, Violation
from crash.zygote import Started

OFFLINE: Final = frozenset({"init", "issue"})
"""Commands that are run while no server runs, and then do a server's work."""
_BAD_STATE: Final = 22
_TRY_COUNT: Final = 6
_FILES: Final = {"bank": ("NetbankingUsers.txt", "Merchant.txt"), "gateway": ("PaymentTokensData.txt",)}
_KEY_ID: Final = re.compile(r"^([0-9a-f]{16}) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs one command that dies, and then the same again."""

    system: System
    books: Books
    randomness: random.Random
    numbers: Iterator[int]

    def run(self, death: Death) -> None:
        """Run the command that comes past this point. Raises Violation, Hang."""
        point = POINTS[death.point]
        what = {
            "init": self._init,
            "rotate-keys": self._rotate,
            "retire-keys": self._retire,
            "add-gateway": self._add_gateway,
            "add-account": self._add_account,
            "add-merchant": self._add_merchant,
            "issue": self._issue,
            "cancel": self._cancel,
            "backup": self._back_up,
            "restore": self._restore,
        }
        what[point.reached_by](point.program, death)

    def _twice(self, program: str, arguments: Sequence[str], death: Death, known: str = "", **inputs: str) -> bool:
        """The command, and if it is killed the same again; gives whether it was killed.

        `known`: what the second one may say instead, when the first had done it all.
        """
        given = {f"--{name.replace('_', '-')}": text for name, text in inputs.items()}
        first = self._finish(program, arguments, death, given)
        if not first.was_killed:
            self._expect(first, arguments, "")
            return False
        self.system.killed.append(death)
        self._expect(self._finish(program, arguments, None, given), arguments, known)
        return True

    def _finish(self, program: str, arguments: Sequence[str], death: Death | None, given: dict[str, str]) -> Started:
        for _ in range(_TRY_COUNT):
            started = self.system.begin(program, arguments, death, inputs=given)
            self.system.wait_for([started])
            if not started.errors.rstrip().endswith("; try again"):  # A server that was to make a copy was killed.
                break
        return started

    def _expect(self, started: Started, arguments: Sequence[str], known: str) -> None:
        if started.exit_code == 0 or (known and re.search(known, started.errors)):
            return
        said = started.errors.strip()
        raise Violation(f"'{started.program} {arguments[0]}' ended with {started.exit_code} when run again: {said}")

    def _state(self, program: str) -> Path:
        return self.system.root / program

    # -- the bank's ------------------------------------------------------------------------------------

    def _add_account(self, program: str, death: Death) -> None:
        customer_id = f"C-{next(self.numbers) + 1000}"
        arguments = ["add-account", "--state", str(self._state("bank")), "--customer", customer_id]
        arguments += ["--user", f"user-{customer_id}", "--amount", "5.00"]
        password = f"canary-password-{customer_id}"
        self.books.passwords.append(password)
        self._twice(program, arguments, death, "there is customer .* already", password_fd=password)
        self.books.merchants[customer_id] = 500  # nobody pays with it; that it has its opening balance is checked

    def _add_merchant(self, program: str, death: Death) -> None:
        merchant_id = f"M-{next(self.numbers) + 1000}"
        arguments = ["add-merchant", "--state", str(self._state("bank")), "--merchant", merchant_id, "--amount", "3.00"]
        self._twice(program, arguments, death, "there is merchant .* already")
        self.books.merchants[merchant_id] = 300

    def _add_gateway(self, program: str, death: Death) -> None:
        gateway_id = f"gateway-{next(self.numbers)}"
        key_path = self.system.root / f"{gateway_id}.key"
        arguments = ["add-gateway", gateway_id, "--state", str(self._state("bank")), "--key-out", str(key_path)]
        known = "has a key already|exists; move it away"
        if self._twice(program, arguments, death, known):
            kept = self._state("bank") / "gateways" / f"{gateway_id}.key"
            if not kept.exists():
                # As it says: the copy that nobody has used is moved away.
                key_path.rename(key_path.with_suffix(".old"))
                self._expect(self._finish(program, arguments, None, {}), arguments, "")
            if kept.read_bytes() != key_path.read_bytes():
                raise Violation(f"I3: {key_path} is not the key that the bank has for {gateway_id}")

    def _rotate(self, program: str, death: Death) -> None:
        self._twice(program, ["rotate-keys", "--state", str(self._state("bank"))], death)

    def _retire(self, program: str, death: Death) -> None:
        state = str(self._state("bank"))
        before = self._finish(program, ["show-keys", "--state", state], None, {})
        old = _KEY_ID.findall(before.output)[-1]
        self._expect(self._finish(program, ["rotate-keys", "--state", state], None, {}), ["rotate-keys"], "")
        self._twice(program, ["retire-keys", "--state", state, old], death, "the key list has no key")
        if left := [path.name for path in (self._state("bank") / "decoder").iterdir() if old in path.name]:
            raise Violation(f"T12: sealing key {old} was retired and is not destroyed: {left}")

    # -- the gateway's ---------------------------------------------------------------------------------

    def _issue(self, program: str, death: Death) -> None:
        number = next(self.numbers)
        token = Token(f"TX-ISSUED-{number}", f"pc{number:06}", 500, "M-100")
        arguments = ["issue", "--state", str(self._state("gateway")), "--transaction", token.transaction_id]
        arguments += ["--passcode", token.passcode, "--amount", "5.00", "--merchant", token.merchant_id]
        self._twice(program, arguments, death, "there is a token for transaction .* already")
        self.books.tokens[token.transaction_id] = token

    def _cancel(self, program: str, death: Death) -> None:
        rows = text_rows(self._state("gateway") / "PaymentTokensData.txt")
        unpaid = [row[0] for row in rows if row[2] == "unpaid" and row[0].startswith("TX-CANCEL-")]
        name = unpaid[0]
        arguments = ["cancel", name, "--state", str(self._state("gateway"))]
        self._twice(program, arguments, death, "is cancelled; only unpaid")
        self.books.cancelled.add(name)

    # -- backups ---------------------------------------------------------------------------------------

    def _back_up(self, program: str, death: Death) -> None:
        """A backup that has its name is whole, whatever was killed."""
        folder = self.system.root / f"backup-{program}-{next(self.numbers)}"
        arguments = ["backup", "--state", str(self._state(program)), "--with-keys", str(folder)]
        self._twice(program, arguments, death, "exists; a backup never overwrites")
        state = folder.with_name(f"{folder.name}-restored")
        restore = ["restore", "--state", str(state), str(folder)]
        self._expect(self._finish(program, restore, None, {}), restore, "")
        for path in (folder, state):
            shutil.rmtree(path)

    def _restore(self, program: str, death: Death) -> None:
        """A killed restore leaves what is no server; another one, into an empty directory, is whole."""
        folder = self.system.root / f"backup-{program}-{next(self.numbers)}"
        state = folder.with_name(f"{folder.name}-restored")
        back_up = ["backup", "--state", str(self._state(program)), "--with-keys", str(folder)]
        self._expect(self._finish(program, back_up, None, {}), back_up, "")
        restore = ["restore", "--state", str(state), str(folder)]
        if self._twice(program, restore, death, "is not empty; a restore never overwrites"):
            export = ["export-payments", "--state", str(state)]
            export += ["--gateway", GATEWAY_ID] if program == "bank" else []
            looked = self._finish(program, [*export, str(folder.with_suffix(".jsonl"))], None, {})
            if looked.exit_code not in (0, _BAD_STATE):
                raise Violation(f"a killed restore left a {program} that is none: {looked.output} {looked.errors}")
            shutil.rmtree(state)
            self._expect(self._finish(program, restore, None, {}), restore, "")
        for path in (folder, state):
            shutil.rmtree(path)

    # -- new servers -----------------------------------------------------------------------------------

    def _init(self, program: str, death: Death) -> None:
        """A killed `init` leaves a directory that no server takes for whole, or a whole one."""
        root = self.system.root
        state = root / f"new-{program}-{next(self.numbers)}"
        arguments = ["init", "--state", str(state), "--from", str(root.parent / "data")]
        if program == "bank":
            arguments += ["--bank-id", BANK_ID, "--bank-code", "CRSH"]
        else:
            arguments += ["--gateway-id", GATEWAY_ID, "--bank-id", BANK_ID, "--link-key", str(root / "link.key")]
        try:
            if self._twice(program, arguments, death, "exists; move it away|there is a bank in|a gateway exists in"):
                self._try_again(program, arguments, state)
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def _try_again(self, program: str, arguments: Sequence[str], state: Path) -> None:
        shown = "show-root-key" if program == "bank" else "list"
        looked = self._finish(program, [shown, "--state", str(state)], None, {})
        if (state / f"{program}.json").exists():
            # It says that there is one, so all of it has to be there.
            self._expect(looked, [shown], "")
            source = self.system.root.parent / "data"
            for name in _FILES[program]:
                if not {row[0] for row in text_rows(source / name)} <= {row[0] for row in text_rows(state / name)}:
                    raise Violation(f"a killed 'init' left a {program} that seems whole and misses lines of {name}")
            return
        if looked.exit_code != _BAD_STATE and program == "bank":
            raise Violation(f"half a bank is taken for one: {looked.output}")
        shutil.rmtree(state, ignore_errors=True)
        self._expect(self._finish(program, arguments, None, {}), arguments, "")
