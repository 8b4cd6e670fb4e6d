"""`make demo`: a payment and four that fail, through a real bank, gateway and client; exit 0 only if all is right.

It ends with the first payment as `paygate-dump` draws it from the gateway's own capture. `--interactive` leaves the
servers up on the usual ports and lets a person pay.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_system import COMMAND_TIMEOUT_S, ClientRun, LocalSystem, StartFailed, program

from paygate.cli import ExitCode
from paygate.codec.codes import Reason

ROOT = Path(__file__).parents[1] / "var" / "demo"
CAPTURE = ROOT / "gateway.pcapng"
"""Of the gateway, where both links end."""
DUMP = program("dump")
PAYMENT_KINDS = ["EncryptedCredentials", "TransferRequest", "TransferResult", "PaymentAck"]
RECORDS = (
    ("gateway", "PaymentTokensData.txt", "R13"),
    ("gateway", "GatewayTransaction.txt", "R14"),
    ("gateway", "LogFiles.txt", "R15"),
    ("bank", "NetbankingUsers.txt", "R16"),
    ("bank", "Merchant.txt", "R17"),
    ("bank", "TransactionID.txt", "R18"),
)


class Demo:
    """Runs each exchange, shows it, and remembers whether it came out as it should."""

    def __init__(self, system: LocalSystem) -> None:
        self.system = system
        self.failures: list[str] = []

    def exchange(
        self,
        title: str,
        payment: tuple[str, str, str, str],
        expected: ExitCode,
        holds: Callable[[ClientRun], bool] = lambda _: True,
    ) -> ClientRun:
        """One run of the client; `holds` looks at what it printed."""
        transaction, passcode, user, password = payment
        say(f"\n=== {title}")
        say(f"    transaction {transaction}, user {user}")
        run = self.system.pay(transaction, passcode, user, password, is_json=False)
        for line in (run.output + run.errors).strip().splitlines():
            say(f"    | {line}")
        is_right = run.exit_code == expected and holds(run)
        say(f"    exit code {run.exit_code} {ExitCode(run.exit_code).name}, expected {int(expected)}: {mark(is_right)}")
        if not is_right:
            self.failures.append(title)
        return run

    def check(self, title: str, is_right: bool) -> None:
        """One more thing that must hold."""
        say(f"  {mark(is_right)}: {title}")
        if not is_right:
            self.failures.append(title)


def run_demo(system: LocalSystem) -> int:
    """The whole demo. Returns the exit code."""
    demo = Demo(system)
    system.start_bank()
    system.start_gateway()
    assert system.bank is not None
    assert system.gateway is not None
    say(f"bank on {system.bank.address}, gateway on {system.gateway.address}, state below {system.root}/")

    first = demo.exchange("A customer pays", ("TX-1001", "4711", "asha", "correct horse battery"), ExitCode.OK)
    paid = {row[0]: row[6] for row in system.record("gateway", "PaymentTokensData.txt") if row[2] == "paid"}
    utr = paid.get("TX-1001", "")
    demo.check("the UTR that the customer saw stands in the gateway's record", bool(utr) and utr in first.output)
    demo.exchange(
        "The same token again: already paid, same UTR",
        ("TX-1001", "4711", "asha", "correct horse battery"),
        ExitCode.ALREADY_PAID,
        lambda run: bool(utr) and utr in run.output + run.errors,
    )
    demo.exchange("A wrong passcode", ("TX-1002", "0000", "asha", "correct horse battery"), ExitCode.TOKEN_REFUSED)
    demo.exchange(
        "Insufficient funds",
        ("TX-1002", "8086", "ravi", "monsoon-in-mumbai"),
        ExitCode.DECLINED,
        lambda run: Reason.FUNDS.meaning in run.errors,
    )
    demo.exchange(
        "A wrong password",
        ("TX-1003", "6502", "meera", "not-her-password"),
        ExitCode.DECLINED,
        lambda run: Reason.CREDENTIALS.meaning in run.errors,
    )

    say("\n=== The records")
    for server, name, requirement in RECORDS:
        say(f"\n--- {server}/{name} ({requirement})")
        say((system.root / server / name).read_text(encoding="utf-8").rstrip())

    say("\n=== What must hold")
    tokens = {row[0]: row[2] for row in system.record("gateway", "PaymentTokensData.txt")}
    demo.check(
        "TX-1001 is paid, all others unpaid", [tokens.pop("TX-1001"), *set(tokens.values())] == ["paid", "unpaid"]
    )
    outcomes = [row[6] for row in system.record("gateway", "GatewayTransaction.txt")]
    demo.check(
        "three attempts reached the bank: paid, declined, declined", outcomes == ["paid", "declined", "declined"]
    )
    utrs = [row[0] for row in system.record("bank", "TransactionID.txt")]
    demo.check("one UTR was registered, the one the customer has", utrs == [utr])
    passwords = [row[2] for row in system.record("bank", "NetbankingUsers.txt")]
    demo.check("no plain password is left at the bank", all(p.startswith("verifier:") for p in passwords))
    codes = (system.gateway.end(), system.bank.end())
    demo.check("SIGTERM drained both servers, exit 0", codes == (0, 0))
    events = [row[1] for row in system.record("gateway", "LogFiles.txt")]
    demo.check("every connect has its disconnect", events.count("connected") == events.count("disconnected") == 5)
    show_capture(demo, system.record("gateway", "GatewayTransaction.txt")[0][1])

    say("")
    if demo.failures:
        say(f"demo: FAILED: {'; '.join(demo.failures)}")
        return 1
    say("demo: all came out as it should")
    return 0


def show_capture(demo: Demo, payment_id: str) -> None:
    """The first payment, drawn from what the gateway sent and received, and what must hold of that."""
    say("\n=== The first payment, as the gateway's own capture tells it")
    drawing = subprocess.run(
        [*DUMP, "--ladder", "--follow", payment_id, CAPTURE], timeout=COMMAND_TIMEOUT_S, check=False
    )
    demo.check("paygate-dump drew it", drawing.returncode == 0)
    kinds = [line["kind"] for line in dumped("--follow", payment_id) if line["type"] == "frame"]
    demo.check("it leads from the credentials over the bank to the answer", kinds[-4:] == PAYMENT_KINDS)
    findings = [line["counts"]["findings"] for line in dumped() if line["type"] == "end"]
    demo.check("nothing is amiss in any of the five exchanges", findings == [0])
    data = CAPTURE.read_bytes()
    shown = [secret for secret in ("asha", "correct horse battery") if secret.encode() in data]
    demo.check("neither user ID nor password stands in it", bool(data) and not shown)
    say(f"\n  All of it: paygate-dump {os.path.relpath(CAPTURE)}, with -v every field, with --stats the latencies")


def dumped(*options: str) -> list[dict[str, Any]]:
    """What `paygate-dump --json` tells of the capture, a line each."""
    command = [*DUMP, "--json", *options, str(CAPTURE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_interactive(system: LocalSystem) -> int:
    """Leave the servers up and hand the terminal to the client, as often as the person likes."""
    system.start_bank(15001)
    system.start_gateway(15000)
    say("bank on 127.0.0.1:15001, gateway on 127.0.0.1:15000. Tokens you may pay:")
    say("    TX-1001 passcode 4711, TX-1002 passcode 8086, TX-1003 passcode 6502, TX-1004 passcode 68000")
    say("Users: asha / correct horse battery, ravi / monsoon-in-mumbai, meera / seven brass lamps")
    say(f"The records are below {system.root}/gateway and {system.root}/bank.")
    say(f"Watch the frames from another terminal: tail -c +1 -f {CAPTURE} | paygate-dump -")
    try:
        while True:
            say("")
            pay(system)
            if input("Pay again? [y/N] ").strip().lower() != "y":
                return 0
    except (EOFError, KeyboardInterrupt):
        return 0


def pay(system: LocalSystem) -> None:
    """Hand the terminal to the client. Ctrl-C is the client's affair meanwhile (R11), and must not end us with it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        subprocess.run(
            system.client_command("pay"),
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # we have one thread
        )
    finally:
        signal.signal(signal.SIGINT, before)


def mark(is_right: bool) -> str:
    """How a check is shown."""
    return "ok" if is_right else "WRONG"


def say(text: str) -> None:
    """Print at once, so that the order with the programs' own output holds."""
    print(text, flush=True)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactive", action="store_true", help="pay yourself; the servers stay up meanwhile")
    arguments = parser.parse_args()
    ROOT.parent.mkdir(exist_ok=True)
    lock_fd = os.open(ROOT.parent / "demo.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"demo: another demo uses {ROOT}; end it first")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that the servers are ended below, which ignore SIGHUP
    system = LocalSystem(ROOT, gateway_options=["--capture", str(CAPTURE)])
    system.remove()
    started = time.monotonic()
    try:
        system.create()
        code = run_interactive(system) if arguments.interactive else run_demo(system)
    except StartFailed as error:
        say(f"demo: {error}")
        code = 1
    finally:
        system.stop()
    if not arguments.interactive:
        say(f"demo: took {time.monotonic() - started:.1f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
