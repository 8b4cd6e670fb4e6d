"""One round: customers pay, people add lines, processes die and are started again, and all questions get an answer.

A round starts both servers, some of its programs armed to die; lets several customers pay at once, of which some must
be declined; asks `status` until every payment has a definite answer; pays again what is unpaid; drains the servers; and
holds everything against the books.
"""

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from crash.books import DEFINITE, Books, Customer, Token, client_records, text_rows
from crash.cases import ASKING
from crash.operator_commands import OFFLINE, Operator
from crash.points import POINTS
from crash.system import GATEWAY_ID, GATEWAY_PORT, POLL_S, SESSION_S, Death, System, Violation, resources_of
from crash.zygote import Started

CLOCK_AHEAD_MS: Final = 41_000
"""A client believes a gateway that does not know a payment once no frame of its session can be on its way any more: 10
seconds after the longest session. Instead of waiting for it, the question is asked with a clock that is so far on."""
TRUE_CLOCK_S: Final = 0.4
"""How long is asked with the true clock before."""
FINAL_S_MAX: Final = SESSION_S + 60
"""I9."""
RETRY_COUNT_MAX: Final = 5
PROVOKED_COUNT_MAX: Final = 5
"""How often customers pay once more for the sake of servers that are to die."""
MEMORY_GROWN_MAX: Final = 1 << 20
"""Bytes: what a payment leaves in memory, a few hundred bytes of its token, times those of a long case, and room."""
_DECLINED, _TIMED_OUT, _UNKNOWN, _NO_CONNECTION, _TOKEN_REFUSED, _ALREADY_PAID, _REFUSED = 1, 3, 4, 5, 6, 7, 10
_EDITED: Final = ("bank.rewrite", "bank.row-", "bank.rows-", "bank.blank")
"""Points of the bank that only a start after somebody's edits comes past."""
_WRONG_PASSWORD: Final = "wrong-canary-3c1e77"


@dataclass(slots=True)
class Run:
    """One run of a client."""

    customer: Customer
    token: Token
    started: Started
    death: Death | None = None
    has_wrong_password: bool = False


@dataclass(slots=True)
class Round:
    """A round to be played on a system."""

    system: System
    books: Books
    deaths: Sequence[Death]
    randomness: random.Random
    fresh: Iterator[Token]
    """Tokens that nobody has tried yet."""
    numbers: Iterator[int] = field(default_factory=count)
    armed: list[Death] = field(default_factory=list)
    """Deaths that are left for customers who pay."""
    final_s: float = 0.0
    """The longest that a payment took to be final, once everything ran again."""
    asked_count: int = 0
    paid_count: int = 0
    """Payments that were tried."""

    def play(self) -> None:
        """Play it. Raises Violation, Hang."""
        operator = Operator(self.system, self.books, self.randomness, self.numbers)
        commands = [d for d in self.deaths if d.program == "operator"]
        of_clients = [d for d in self.deaths if d.program == "client"]
        asking = [d for d in of_clients if d.point in POINTS and POINTS[d.point].reached_by in ASKING]
        self.armed = [d for d in of_clients if d not in asking]
        offline_token = self._edit_offline()
        for death in commands:
            if POINTS[death.point].reached_by in OFFLINE:
                operator.run(death)
        self.system.start_servers(self.deaths)
        self.system.wait_until_ready()
        online_token = self._edit_online()
        runs = self._pay_all(offline_token)
        for death in commands:
            if POINTS[death.point].reached_by not in OFFLINE:
                operator.run(death)
        self.system.wait_for([run.started for run in runs])
        self._note(runs)
        self._settle(asking)
        self._provoke()
        self._pay_again([(runs[0].customer, runs[0].token), (runs[-1].customer, online_token)])
        self._check_resources()
        self.system.stop_servers()
        self._note_decoder_deaths()
        self.books.check(self.system.root)

    def audit(self) -> None:
        """I8: both stopped servers hold, by themselves and against each other. Raises Violation, Hang."""
        root = self.system.root
        exports = {name: root / f"{name}-{next(self.numbers)}.jsonl" for name in ("bank", "gateway")}
        for program, path in exports.items():
            which = ["--gateway", GATEWAY_ID] if program == "bank" else []
            self._command(program, "export-payments", *which, str(path))
        for program, other in (("bank", "gateway"), ("gateway", "bank")):
            self._command(program, "audit", "--against", str(exports[other]))

    def _command(self, program: str, command: str, *arguments: str) -> None:
        started = self.system.begin(program, [command, "--state", str(self.system.root / program), *arguments])
        self.system.wait_for([started])
        if started.exit_code != 0:
            told = f"{started.output.strip()} {started.errors.strip()}"
            raise Violation(f"I8: '{program} {command}' ended with {started.exit_code}: {told}")

    def endure(self) -> None:
        """The servers live on while customers die, three at a time (I10). Raises Violation, Hang."""
        names = ("C-ALICE", "C-BOB", "C-CAROL")
        self.system.start_servers(())
        self.system.wait_until_ready()
        samples = []
        for start in range(0, len(self.deaths), len(names)):
            some = zip(names, self.deaths[start:], strict=False)
            runs = [self._begin_run(name, next(self.fresh), death) for name, death in some]
            self.system.wait_for([run.started for run in runs])
            self._note(runs)
            self._settle(())
            self._check_resources()
            samples.append(self._memory())
        settled, last = samples[len(samples) // 3], samples[-1]
        for name, size in last.items():
            grown = size - settled.get(name, size)
            if grown > MEMORY_GROWN_MAX:
                raise Violation(f"I10: the {name} has grown by {grown} bytes while {len(self.deaths)} customers died")
        self.system.stop_servers()
        self.books.check(self.system.root)

    def _memory(self) -> dict[str, int]:
        servers = self.system.servers.values()
        found = {server.name: resources_of(server.started.pid) for server in servers if server.started is not None}
        return {name: resources[1] for name, resources in found.items() if resources is not None}

    # -- people at the files ---------------------------------------------------------------------------

    def _edit_offline(self) -> Token:
        """While no server runs: add a token, perhaps an account; perhaps change what is the servers' to say."""
        root = self.system.root
        token = self._new_token()
        is_sure = any(death.point.startswith(_EDITED) for death in self.deaths)
        if is_sure or self.randomness.random() < 0.5:
            merchant_id = f"M-{next(self.numbers) + 1000}"
            self.books.merchants[merchant_id] = 700
            _append(root / "bank" / "Merchant.txt", f"{merchant_id}|Late|7.00\n")
        if any(death.point.startswith("gateway.rewrite") for death in self.deaths):
            # What a line leaves that was taken in: between rows, it is something to tidy up.
            tokens = root / "gateway" / "PaymentTokensData.txt"
            lines = tokens.read_bytes().splitlines(keepends=True)
            at = next(number for number, line in enumerate(lines) if not line.startswith(b"#")) + 1
            tokens.write_bytes(b"".join([*lines[:at], b"# taken in\n", *lines[at:]]))
        users = root / "bank" / "NetbankingUsers.txt"
        if is_sure or self.randomness.random() < 0.2:
            customer_id = f"C-{next(self.numbers) + 1000}"
            password = f"canary-password-{customer_id}"
            self.books.merchants[customer_id] = 400
            self.books.passwords.append(password)
            _append(users, f"{customer_id}|user-{customer_id}|{password}|4.00\n")
        if is_sure or self.randomness.random() < 0.3:
            _change_in_place(users, text_rows(users)[0][3])
        if self.randomness.random() < 0.2:
            with (root / "bank" / "TransactionID.txt").open("rb+") as file:
                lines = file.read().splitlines(keepends=True)
                if not lines[-1].startswith(b"#"):
                    file.truncate(sum(map(len, lines[:-1])))
        return token

    def _edit_online(self) -> Token:
        """While the servers run: add a token, and withdraw another."""
        token = self._new_token()
        victim = next(self.fresh)
        line = f"{victim.transaction_id}|{victim.passcode}|cancelled|{_amount(victim)}|{victim.merchant_id}|INR\n"
        _append(self.system.root / "gateway" / "PaymentTokensData.txt", line)
        self.books.cancelled.add(victim.transaction_id)
        return token

    def _provoke(self) -> None:
        """More payments, as long as a server is to die of them, or customers are to die."""
        for _ in range(PROVOKED_COUNT_MAX):
            if not (self.system.waits_for_work or self.armed):
                return
            self._new_token()
            runs = [self._begin_run(name, next(self.fresh), self._next_death()) for name in ("C-ALICE", "C-BOB")]
            self.system.wait_for([run.started for run in runs])
            self._note(runs)
            self._settle(())

    def _new_token(self) -> Token:
        number = next(self.numbers)
        token = Token(f"TX-ADDED-{number}", f"pc{number:06}", 100 + number, "M-100")
        line = f"{token.transaction_id}|{token.passcode}|unpaid|{_amount(token)}|{token.merchant_id}|INR\n"
        _append(self.system.root / "gateway" / "PaymentTokensData.txt", line)
        self.books.tokens[token.transaction_id] = token
        return token

    # -- customers -------------------------------------------------------------------------------------

    def _pay_all(self, offline_token: Token) -> list[Run]:
        """Let all customers pay at once; gives the runs."""
        customers = self.books.customers
        tokens = [next(self.fresh) for _ in range(4)]
        # T5: now and then two pay one token.
        last = tokens[1] if self.randomness.random() < 0.3 else offline_token
        runs = [
            self._begin_run("C-ALICE", tokens[0], self._next_death(), has_receipt=True),
            self._begin_run("C-BOB", tokens[1], self._next_death()),
            self._begin_run("C-POOR", tokens[2]),
            self._begin_run("C-VICTIM", tokens[3], is_wrong=True),
            self._begin_run("C-CAROL", last, self._next_death()),
        ]
        if self.randomness.random() < 0.3:
            # A wrong passcode, which is counted before it is answered (T16).
            self.system.wait_for([self._begin_pay(customers["C-BOB"], next(self.fresh), None, passcode="0000")])
        return runs

    def _next_death(self) -> Death | None:
        return self.armed.pop(0) if self.armed else None

    def _begin_run(
        self,
        customer_id: str,
        token: Token,
        death: Death | None = None,
        *,
        is_wrong: bool = False,
        has_receipt: bool = False,
    ) -> Run:
        """Let a customer pay; `has_receipt`: into a file, unless the death asks for the other way."""
        customer = self.books.customers[customer_id]
        if death is not None and ".receipt" in death.point:
            has_receipt = ".receipt-file" in death.point
        clients = self.system.root / "clients"
        if death is not None and ".serial" in death.point:
            # As with a backup from before: a serial is kept once, in a customer's first session.
            shutil.rmtree(clients / customer_id / "serials", ignore_errors=True)
        receipt = clients / f"receipt-{next(self.numbers)}.json" if has_receipt else None
        started = self._begin_pay(customer, token, death, is_wrong=is_wrong, receipt=receipt)
        return Run(customer, token, started, death, is_wrong)

    def _begin_pay(
        self,
        customer: Customer,
        token: Token,
        death: Death | None,
        *,
        is_wrong: bool = False,
        receipt: Path | None = None,
        passcode: str = "",
    ) -> Started:
        root = self.system.root
        self.paid_count += 1
        arguments = ["pay", "--gateway", f"{self.system.host}:{GATEWAY_PORT}", "--bank-root", str(root / "root.txt")]
        arguments += ["--state", str(root / "clients" / customer.customer_id), "--transaction", token.transaction_id]
        arguments += ["--user", customer.user_id, "--yes", "--json"]
        if receipt is not None:
            arguments += ["--receipt", str(receipt)]
        password = _WRONG_PASSWORD if is_wrong else customer.password
        inputs = {"--passcode-fd": passcode or token.passcode, "--password-fd": password}
        return self.system.begin("client", arguments, death, inputs=inputs)

    def _note(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if run.started.was_killed:
                if run.death is None:
                    raise Violation(f"a client was killed by nobody: {run.started.errors}")
                self.system.killed.append(run.death)
            elif (
                run.death is not None and "encoder" in run.death.point and "ended with status -9" in run.started.output
            ):
                self.system.killed.append(run.death)
            results = self.books.note_output(run.started.output)
            if (
                run.has_wrong_password
                and [r["outcome"] for r in results] == ["declined"]
                and results[0]["reason"] != "FENCED"
            ):
                self.books.wrong_count[run.customer.customer_id] += 1
            for result in results:
                if result["outcome"] == "untrusted":
                    raise Violation(f"I6: a client does not trust what it was told: {result}")

    def _note_decoder_deaths(self) -> None:
        for death in self.deaths:
            if death.program == "bank" and death.point.startswith("decoder."):
                logs = (self.system.root / "logs").glob("*-bank-serve.err")
                told = sum(path.read_text(encoding="utf-8").count("the decoder ended with -9") for path in logs)
                if told > sum(d.point.startswith("decoder.") for d in self.system.killed):
                    self.system.killed.append(death)

    # -- doubt -----------------------------------------------------------------------------------------

    def _settle(self, deaths: Sequence[Death]) -> None:
        """Ask what became of every payment, until each has a definite answer (I9)."""
        armed = list(deaths)
        begun_s = time.monotonic()
        if any(d.point.startswith("client.retry") for d in armed) or (not armed and self.randomness.random() < 0.4):
            self._retry(armed)
        while open_ids := self._customers_in_doubt():
            healed_s = max(self.system.healed_at_s, begun_s)
            if time.monotonic() > healed_s + FINAL_S_MAX:
                raise Violation(f"I9: payments of {open_ids} are not final {FINAL_S_MAX} s after everything ran again")
            is_true = time.monotonic() < begun_s + TRUE_CLOCK_S
            ahead_ms = 0 if is_true else CLOCK_AHEAD_MS
            self._ask([(customer_id, ["status", "all"]) for customer_id in open_ids], armed, ahead_ms)
            if self._customers_in_doubt():
                self.system.wait(0.1)
        self.final_s = max(0.0, time.monotonic() - max(self.system.healed_at_s, begun_s))

    def _retry(self, armed: list[Death]) -> None:
        """Customers in doubt go on with their payments themselves."""
        clients = self.system.root / "clients"
        self._ask(
            [
                (customer_id, ["retry", record["terms"]["payment_id"]])
                for customer_id in self._customers_in_doubt()
                for record in client_records(clients / customer_id)
                if record["state"] not in DEFINITE
            ],
            armed,
        )

    def _ask(self, questions: Sequence[tuple[str, list[str]]], armed: list[Death], clock_ahead_ms: int = 0) -> None:
        """Ask all at once, each customer's question by a program of its own, as many as there are of `armed` dying."""
        asked = []
        for customer_id, words in questions:
            fitting = [death for death in armed if POINTS[death.point].reached_by == words[0]]
            if fitting:
                armed.remove(fitting[0])
            death = fitting[0] if fitting else None
            arguments = [*words, "--state", str(self.system.root / "clients" / customer_id), "--json"]
            asked.append((self.system.begin("client", arguments, death, clock_ahead_ms=clock_ahead_ms), death))
        self.asked_count += len(asked)
        self.system.wait_for([started for started, _ in asked])
        for started, death in asked:
            if started.was_killed and death is not None:
                self.system.killed.append(death)
            elif started.exit_code not in (0, _DECLINED, _UNKNOWN, _NO_CONNECTION, _REFUSED):
                raise Violation(f"I6: a question ended with {started.exit_code}: {started.output} {started.errors}")
            self.books.note_output(started.output)

    def _customers_in_doubt(self) -> list[str]:
        clients = self.system.root / "clients"
        return [
            customer_id
            for customer_id in self.books.customers
            if any(record["state"] not in DEFINITE for record in client_records(clients / customer_id))
        ]

    def _pay_again(self, pairs: Sequence[tuple[Customer, Token]]) -> None:
        """What is unpaid can be paid, whatever has happened: no token stays stuck."""
        for customer, token in pairs:
            for attempt in range(RETRY_COUNT_MAX):
                started = self._begin_pay(customer, token, None)
                self.system.wait_for([started])
                self.books.note_output(started.output)
                if started.exit_code in (0, _ALREADY_PAID):
                    break
                may_pass = (_DECLINED, _TIMED_OUT, _UNKNOWN, _NO_CONNECTION, _TOKEN_REFUSED, _REFUSED)
                if attempt == RETRY_COUNT_MAX - 1 or started.exit_code not in may_pass:
                    text = f"{started.exit_code}: {started.output.strip()} {started.errors.strip()}"
                    raise Violation(f"I9: {token.transaction_id} can't be paid when everything runs again; {text}")
                self._settle(())
                self.system.wait(0.3)

    def _check_resources(self) -> None:
        """I10: a server that lived through the round holds no more descriptors than when it began."""
        for server in self.system.servers.values():
            if server.resources is None or server.started is None or server.start_count > 1:
                continue
            deadline_s = time.monotonic() + 5
            while (now := resources_of(server.started.pid)) and now[0] > server.resources[0]:
                if time.monotonic() > deadline_s:
                    text = f"{now[0]} descriptors when nobody is connected, {server.resources[0]} at first"
                    raise Violation(f"I10: the {server.name} has {text}")
                time.sleep(POLL_S)


def _append(path: Path, line: str) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


def _change_in_place(path: Path, text: str) -> None:
    """Somebody edits a digit of a balance, which is not theirs to say."""
    data = path.read_bytes()
    at = data.rfind(text.encode())
    with path.open("rb+") as file:
        file.seek(at)
        file.write(b"7" if text[0] != "7" else b"8")


def _amount(token: Token) -> str:
    return f"{token.amount_minor // 100}.{token.amount_minor % 100:02}"
