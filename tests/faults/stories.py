"""What programs do while one of their file operations fails, and what must be so during that and afterwards."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from faults.books import Broken, check_bank, check_client, check_gateway
from faults.forked import Fault, Forked
from faults.house import MERCHANT, PASSCODE, SERVER_CODES, ClientRun, House

import paygate.files.sqlite
from paygate.cli import ExitCode

OPENING_MINOR: Final = 2 * 5_000_000
"""What the customers of a `House` have together at first."""
CHECKPOINT_PAGE_COUNT: Final = 4
"""So few pages, and not a thousand, that the databases themselves are written in a run of some payments too."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_UNCLEAR: Final = ("Traceback", "internal error")
_CLIENT_CODES: Final = frozenset(ExitCode) - {ExitCode.INTERNAL, ExitCode.CANCELLED}
_TRIES_MAX: Final = 3
"""Of a payment that came too late, which it may on a machine that is busy with other tests."""
_POLLS_S: Final = 0.35
"""In which both servers look at their files three times."""


def checkpoint_often() -> None:
    """A patch of the programs, which changes nothing but how often the log is copied into the database."""
    paygate.files.sqlite.CHECKPOINT_PAGE_COUNT = CHECKPOINT_PAGE_COUNT


@dataclass(frozen=True, slots=True)
class Traced:
    """One operation of a traced program."""

    kind: str
    name: str
    is_fault: bool


def read_trace(path: Path) -> list[Traced]:
    """All that a program did with its files, in order; nothing if it was never started."""
    if not path.exists():
        return []
    lines = [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]
    return [Traced(words[0], words[1], len(words) > 2) for words in lines]


# -- serving ---------------------------------------------------------------------------------------------


def serve(house: House) -> None:
    """Both servers start, take lines in, and pay; then the same without the fault, and all must be right.

    Raises Broken, Hang.
    """
    fault = house.setting.fault
    runs: list[tuple[str, ClientRun]] = []
    has_listened: set[str] = set()
    for name, start in (("bank", house.start_bank), ("gateway", house.start_gateway)):
        if not start():
            break
        has_listened.add(name)
    else:
        _add_line(house.root / "bank" / "Merchant.txt", "M-2 | Second Hand | 0")
        runs.append(("TX-1", house.pay("TX-1")))
        _add_line(house.root / "gateway" / "PaymentTokensData.txt", f"TX-9|{PASSCODE}|unpaid|1.00|{MERCHANT}|INR")
        time.sleep(_POLLS_S)
        runs.append(("TX-2", house.pay("TX-2", 1)))
        runs.append(("", house.status()))
    servers = list(house.servers())
    house.stop()
    for server in servers:
        _judge_server(house, fault, server, is_up=server.name in has_listened)
    for _, run in runs:
        _judge_client(run)
    if fault is not None:
        _judge_fsync(house, fault)
    claims = [(token, run) for token, run in runs if token]
    _heal(house, claims)


def _heal(house: House, claims: list[tuple[str, ClientRun]]) -> None:
    """Without the fault: both servers start, every doubt ends, and a payment goes through."""
    house.without_fault()
    for start in (house.start_bank, house.start_gateway):
        if not start():
            last = house.servers()[-1]
            raise Broken(f"{last.name} does not start again: {last.exit_code}, {last.errors.strip()}")
    if (house.root / "client" / "payments").exists():
        _judge_client(house.status_later())
    paid = house.pay("TX-3")
    for _ in range(_TRIES_MAX - 1):
        if "too late" not in paid.output:
            break
        paid = house.pay("TX-3")
    if paid.exit_code != ExitCode.OK:
        raise Broken(f"a payment after it ended with {paid.exit_code}: {paid.output}{paid.errors}")
    time.sleep(_POLLS_S)
    codes = house.stop()
    if codes != [0, 0]:
        raise Broken(f"the servers ended with {codes} after it")
    postings = check_bank(house.root / "bank", OPENING_MINOR)
    check_gateway(house.root / "gateway", postings)
    check_client(house.root / "client", house.root / "bank")
    for program in ("bank", "gateway"):
        audit = house.command(program, "audit").last
        if audit.exit_code != ExitCode.OK:
            raise Broken(f"paygate-{program} audit finds something: {audit.output}{audit.errors}")
    utr_of = {posting.transaction_id: posting.utr for posting in postings}
    for token, run in claims:
        _judge_claim(token, run, utr_of.get(token, ""))


def _judge_claim(token: str, run: ClientRun, utr: str) -> None:
    """What a client said to its customer, against the ledger. Each token was tried once."""
    with contextlib.suppress(ValueError):  # it ended with an error, and says nothing of money
        for answer in run.answers:
            told: Any = answer["outcome"], answer["utr"], answer["money_may_have_moved"]
            if answer["outcome"] == "paid" and answer["utr"] != utr:
                raise Broken(f"I3: the client says {told} of {token}, and its debit is {utr or 'none'}")
            if not answer["money_may_have_moved"] and answer["outcome"] != "already-paid" and utr:
                raise Broken(f"I6: the client says {told} of {token}, and its debit is {utr}")


def _judge_server(house: House, fault: Fault | None, server: Forked, *, is_up: bool) -> None:
    code, said = server.exit_code, server.errors
    _judge_words(server.name, said)
    if code == ExitCode.OK:
        return
    if code not in SERVER_CODES:
        raise Broken(f"{server.name} ended with {code}, which is no documented code: {said.strip()}")
    if not any(line.startswith(f"paygate-{server.name}: ") for line in said.splitlines()):
        raise Broken(f"{server.name} ended with {code} and did not say why: {said.strip()}")
    is_no_room = fault is not None and fault.plan.error_number in _NO_ROOM and fault.program == server.name
    if is_up and is_no_room and not _is_fsync(fault):
        raise Broken(f"T30: {server.name} ended with {code} because the disk was full: {said.strip()}")
    others_fault = fault is None or fault.program not in (server.name, "decoder" if server.name == "bank" else "")
    if others_fault and not (server.name == "gateway" and code == ExitCode.NO_BANK):
        raise Broken(f"{server.name} ended with {code}, and nothing of its own had failed: {said.strip()}")


def _is_fsync(fault: Fault | None) -> bool:
    return fault is not None and "sync" in fault.plan.kinds


def _judge_fsync(house: House, fault: Fault) -> None:
    """T31: after a failed fsync of a database nothing is sent, and that file is not fsynced again."""
    plan = fault.plan
    if not _is_fsync(fault) or ".sqlite" not in plan.names or plan.error_number == errno.EINTR:
        return
    trace = read_trace(house.setting.logs / f"{fault.program}.trace")
    failed = next((at for at, done in enumerate(trace) if done.is_fault), None)
    if failed is None:
        return
    for done in trace[failed + 1 :]:
        if done.kind == "send":
            raise Broken(f"T31: {fault.program} sent something after a failed fsync of {plan.names}")
        if "sync" in done.kind and done.name == trace[failed].name:
            raise Broken(f"T31: {fault.program} did the fsync of {plan.names} again")


def _judge_client(run: ClientRun) -> None:
    _judge_words("the client", run.errors)
    if run.exit_code not in _CLIENT_CODES:
        raise Broken(f"the client ended with {run.exit_code}: {run.output}{run.errors}")
    if not run.output.strip() and not run.errors.strip() and run.exit_code != ExitCode.OK:
        raise Broken(f"the client ended with {run.exit_code} without a word")


def _judge_words(who: str, said: str) -> None:
    for mark in _UNCLEAR:
        if mark in said:
            raise Broken(f"{who} says no clear word: {said.strip()[-600:]}")


def _add_line(path: Path, line: str) -> None:
    # As a person does, with another program; not under a fault.
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


# -- commands --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the bank or the gateway that is run by itself, then again without the fault."""

    program: str
    words: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...] = ()
    again: frozenset[int] = frozenset({ExitCode.OK})
    """How it may end when it is run again and had its effect before."""
    is_new: bool = False
    """Whether it makes the state directory, so that there must be none."""

    @property
    def name(self) -> str:
        """Such as `bank add-merchant`."""
        return f"{self.program} {self.words[0]}"


_KNOWN: Final = frozenset({ExitCode.OK, ExitCode.USAGE})
_THERE: Final = frozenset({ExitCode.OK, ExitCode.USAGE, ExitCode.BAD_STATE})
_HERE: Final = "{root}"
COMMANDS: Final = (
    Command(
        "bank",
        ("init", "--bank-id", "NEWBANK", "--bank-code", "NEWB", "--from", "{root}/../data"),
        again=frozenset({ExitCode.OK, ExitCode.BAD_STATE}),
        is_new=True,
    ),
    Command("bank", ("add-account", "--customer", "C-9", "--user", "nina", "--amount", "1.00"),
            (("password_fd", "seven brass lamps"),), again=_KNOWN),
    Command("bank", ("add-merchant", "--merchant", "M-9", "--name", "Ninth"), again=_KNOWN),
    Command("bank", ("add-gateway", "other-gateway", "--key-out", "{root}/other.key"),
            again=frozenset({ExitCode.OK, ExitCode.BAD_STATE, ExitCode.USAGE})),
    Command("bank", ("rotate-keys",)),
    Command("bank", ("show-keys",)),
    Command("bank", ("show-key-list",)),
    Command("bank", ("show-root-key",)),
    Command("bank", ("export", "{root}/exported")),
    Command(
        "gateway",
        ("init", "--gateway-id", "new-gateway", "--bank-id", "NEWBANK", "--link-key", "{root}/link.key", "--from",
         "{root}/../data"),
        again=frozenset({ExitCode.OK, ExitCode.BAD_STATE}),
        is_new=True,
    ),
    Command("gateway", ("issue", "--transaction", "TX-8", "--amount", "2.00", "--merchant", MERCHANT), again=_KNOWN),
    Command("gateway", ("list",)),
    Command("bank", ("audit",)),
    Command("gateway", ("audit",)),
    Command("bank", ("backup", "{root}/bank-backup"), again=_THERE),
    Command("gateway", ("backup", "{root}/gateway-backup"), again=_THERE),
    Command("gateway", ("cancel", "TX-2"), again=frozenset({ExitCode.OK, ExitCode.TOKEN_REFUSED})),
)  # fmt: skip
_COMMAND_CODES: Final = frozenset({ExitCode.OK, ExitCode.USAGE, ExitCode.FINDINGS}) | SERVER_CODES


def command_story(command: Command) -> Callable[[House], None]:
    """The story of a command that fails by a fault and then is run again."""

    def story(house: House) -> None:
        """Raises Broken, Hang."""
        state = house.root / command.program
        if command.is_new:
            state.rename(house.root / "put-away")
        words = [word.replace(_HERE, str(house.root)) for word in command.words]
        house.command(command.program, *words, **dict(command.inputs))
        first = house.last
        _judge_words(command.name, first.errors)
        if first.exit_code not in _COMMAND_CODES:
            raise Broken(f"{command.name} ended with {first.exit_code}: {first.errors.strip()}")
        if first.exit_code != ExitCode.OK and not (first.errors + first.output).strip():
            raise Broken(f"{command.name} ended with {first.exit_code} without a word")
        house.without_fault()
        house.command(command.program, *words, **dict(command.inputs))
        again = house.last
        if again.exit_code not in command.again:
            raise Broken(f"{command.name} ends with {again.exit_code} once the fault is gone: {again.errors.strip()}")
        if not command.is_new:
            _runs_on(house)

    return story


def _runs_on(house: House) -> None:
    for start in (house.start_bank, house.start_gateway):
        if not start():
            last = house.servers()[-1]
            raise Broken(f"{last.name} does not start: {last.exit_code}, {last.errors.strip()}")
    codes = house.stop()
    if codes != [0, 0]:
        raise Broken(f"the servers ended with {codes} after it")
    opened = OPENING_MINOR + (100 if "C-9" in (house.root / "bank" / "NetbankingUsers.txt").read_text() else 0)
    check_gateway(house.root / "gateway", check_bank(house.root / "bank", opened))


def stories() -> Iterator[tuple[str, tuple[str, ...], Callable[[House], None]]]:
    """Each story: its name, the programs whose operations fail in it, and what it does."""
    yield "serve", ("bank", "decoder", "gateway", "client"), serve
    for command in COMMANDS:
        programs = (
            (command.program, "decoder") if command.name in ("bank add-account", "bank init") else (command.program,)
        )
        yield command.name, programs, command_story(command)
