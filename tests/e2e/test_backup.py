"""Backups of running servers, their loss, and what is made of an older backup, with real programs (PG-TRF-6, R9)."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw
import pytest
from local_system import ClientRun, LocalSystem, program, start_client, wait_until

from paygate.bank.backup import UTR_JUMP
from paygate.cli import ExitCode

ASHA: Final = ("asha", "correct horse battery")
GATEWAY: Final = "demo-gateway"
TOKENS: Final = tuple(f"TX-{number}" for number in range(1, 9))


@pytest.fixture
def system(stopped_system: LocalSystem) -> Iterator[LocalSystem]:
    with (stopped_system.root / "gateway" / "PaymentTokensData.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{token} | 2468 | unpaid | 10.00 | M-100 | INR | | | Books\n" for token in TOKENS)
    stopped_system.start_bank()
    stopped_system.start_gateway()
    yield stopped_system
    stopped_system.stop()


def pay(system: LocalSystem, token: str, state: str = "client") -> ClientRun:
    return system.pay(token, "2468", *ASHA, state=state)


def paid(system: LocalSystem, token: str) -> str:
    run = pay(system, token)
    assert run.exit_code == ExitCode.OK, run.errors
    return str(run.answer["utr"])


def lose(system: LocalSystem, server: str) -> Path:
    """A server's machine is gone; what is left of its state directory."""
    process = {"bank": system.bank, "gateway": system.gateway}[server]
    assert process is not None
    process.end(signal.SIGKILL)
    left = system.root / f"{server}-lost"
    (system.root / server).rename(left)
    return left


def restore(system: LocalSystem, server: str, folder: Path, *options: str) -> str:
    return system.command(server, "restore", str(folder), *options).stdout


def expect_clean(system: LocalSystem) -> None:
    """Both audits, each against the other's export, of stopped servers."""
    of_bank, of_gateway = (system.root / f"{name}.jsonl" for name in ("bank", "gateway"))
    for export in (of_bank, of_gateway):
        export.unlink(missing_ok=True)
    system.command("bank", "export-payments", "--gateway", GATEWAY, str(of_bank))
    system.command("gateway", "export-payments", str(of_gateway))
    for server, other in (("bank", of_gateway), ("gateway", of_bank)):
        audit = system.command(server, "audit", "--against", str(other), check=False)
        assert audit.returncode == ExitCode.OK, audit.stdout


def stop_both(system: LocalSystem) -> None:
    for server in (system.gateway, system.bank):
        assert server is not None
        assert server.end() == 0


@pytest.mark.pg("PG-TRF-6", "PG-RES-9")
def test_a_bank_that_lost_its_ledger_is_restored_reconciled_and_gives_out_no_utr_again(system: LocalSystem) -> None:
    folder = system.root / "bank-backup"
    first = paid(system, TOKENS[0])
    paying = [start_client(system, token, "2468", *ASHA) for token in TOKENS[1:3]]
    made = system.command("bank", "backup", "--with-keys", str(folder))  # while the bank serves them
    assert "it is as secret as the bank itself" in made.stdout
    for popen in paying:
        assert popen.wait(60) == ExitCode.OK
    lost = [paid(system, token) for token in TOKENS[3:5]]
    utrs = [row[0] for row in system.record("bank", "TransactionID.txt")]
    assert {first, *lost} < set(utrs)
    left = lose(system, "bank")
    assert system.gateway is not None
    assert system.gateway.end() == 0

    told = restore(system, "bank", folder, "--transactions", str(left / "TransactionID.txt"))
    assert f"payments made since the backup are missing; 'reconcile' with an export of each gateway: {GATEWAY}" in told
    export = system.root / "export.jsonl"
    system.command("gateway", "export-payments", str(export))
    behind = system.command("bank", "audit", "--against", str(export), check=False)
    assert behind.returncode == ExitCode.FINDINGS
    reconciled = system.command("bank", "reconcile", str(export)).stdout
    assert all(f"UTR {utr}" in reconciled for utr in lost)
    assert " 0 left to people" in reconciled
    expect_clean(system)

    bank = system.start_bank()
    system.start_gateway(bank_port=bank.port)
    for token in TOKENS[:5]:
        assert pay(system, token, "other").exit_code == ExitCode.ALREADY_PAID
    new = [paid(system, token) for token in TOKENS[5:7]]
    assert not set(new) & set(utrs)
    assert all(int(utr[-8:]) > UTR_JUMP for utr in new)
    rows = system.record("bank", "TransactionID.txt")
    assert sorted(row[0] for row in rows) == sorted([*utrs, *new])
    assert len({row[5] for row in rows}) == len(rows) == 7  # no token twice
    assert system.status().exit_code == ExitCode.OK
    stop_both(system)
    expect_clean(system)


def test_without_the_old_transactions_people_are_told_and_still_nothing_happens_twice(system: LocalSystem) -> None:
    folder = system.root / "bank-backup"
    system.command("bank", "backup", "--with-keys", str(folder))
    lost = paid(system, TOKENS[0])
    lose(system, "bank")
    restore(system, "bank", folder)
    bank = system.start_bank()
    # The gateway has proof and never sends it again; another payment of the token does not reach the bank.
    assert system.gateway is not None
    assert system.gateway.end() == 0
    system.start_gateway(bank_port=bank.port)
    assert pay(system, TOKENS[0], "other").exit_code == ExitCode.ALREADY_PAID
    new = paid(system, TOKENS[1])
    assert new != lost
    stop_both(system)
    export = system.root / "export.jsonl"
    system.command("gateway", "export-payments", str(export))
    done = system.command("bank", "reconcile", str(export), check=False)
    assert done.returncode == ExitCode.FINDINGS
    assert f"UTR {lost}, 10.00 INR to merchant M-100" in done.stdout
    assert "proven, but who paid is not known" in done.stdout
    # Somebody finds it out: it is entered as it was, also behind later ones.
    found = system.root / "found.txt"
    found.write_text(f"{lost} | C-1 | M-100 | 10.00 | INR | TX-1 | 2026-01-01T00:00:00.000Z\n", encoding="ascii")
    customers = {row[1]: row[0] for row in system.record("bank", "NetbankingUsers.txt")}
    found.write_text(found.read_text(encoding="ascii").replace("C-1", customers[ASHA[0]]), encoding="ascii")
    again = system.command("bank", "reconcile", str(export), "--transactions", str(found))
    assert "1 known, 1 entered again, 0 left to people" in again.stdout
    expect_clean(system)


@pytest.mark.pg("PG-TRF-3")
def test_a_gateway_restored_from_an_older_backup_pays_no_token_twice_and_learns_what_is_paid(
    system: LocalSystem,
) -> None:
    folder = system.root / "gateway-backup"
    system.command("gateway", "backup", str(folder))
    utr = paid(system, TOKENS[0])
    left = lose(system, "gateway")
    options = ("--link-key", str(left / "link.key"), "--tokens", str(left / "PaymentTokensData.txt"))
    restore(system, "gateway", folder, *options)
    gateway = system.start_gateway()
    # It takes the token for unpaid. The bank does not, and proves it.
    run = pay(system, TOKENS[0], "other")
    assert run.exit_code == ExitCode.DECLINED
    assert run.answer["reason"] == "TOKEN_ALREADY_PAID"
    log = gateway.log_path.read_text(encoding="utf-8")
    assert f"the bank says that transaction {TOKENS[0]} is paid, by a payment not known here" in log
    # Who paid it is told nothing wrong, and keeps the receipt.
    assert system.status().exit_code == ExitCode.OK
    stop_both(system)

    export = system.root / "export.jsonl"
    system.command("bank", "export-payments", "--gateway", GATEWAY, str(export))
    done = system.command("gateway", "reconcile", str(export))
    assert f"of {TOKENS[0]}, POSTED, UTR {utr}" in done.stdout
    assert "1 known, 1 entered, 0 left to people" in done.stdout
    expect_clean(system)
    bank = system.start_bank()
    system.start_gateway(bank_port=bank.port)
    again = pay(system, TOKENS[0], "third")
    assert (again.exit_code, again.answer["utr"]) == (ExitCode.ALREADY_PAID, utr)
    assert [row[0] for row in system.record("bank", "TransactionID.txt")] == [utr]


def test_a_backup_of_a_server_that_does_not_answer_is_given_up_and_leaves_nothing(system: LocalSystem) -> None:
    assert system.bank is not None
    popen = system.bank.popen
    popen.send_signal(signal.SIGSTOP)
    folder = system.root / "backup"
    command = [*program("bank"), "backup", "--state", str(system.root / "bank"), str(folder)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((system.root / "bank" / "backup.request").exists, "the request")
        popen.send_signal(signal.SIGKILL)
        popen.wait()
        _, errors = asking.communicate(timeout=60)
    finally:
        asking.kill()
        asking.wait()
    assert asking.returncode == ExitCode.USAGE
    assert "ended before it had made a copy; try again" in errors
    assert not folder.exists()
    assert not [p.name for p in system.root.iterdir() if p.name.startswith(".")]
    assert not list((system.root / "bank").glob("backup.*"))
    assert system.command("bank", "backup", str(folder)).returncode == ExitCode.OK  # of the stopped bank


def test_backups_under_load_are_each_whole_and_hold_up_no_payment(tmp_path: Path) -> None:
    payment_count = 300
    system = LocalSystem(tmp_path / "system", data=tmp_path / "data")
    make_data(system.data, payment_count)
    system.create()
    system.start_bank()
    gateway = system.start_gateway()
    try:
        load = subprocess.Popen(
            [
                *(*program("bench"), "load", "--gateway", gateway.address, "--payments", str(payment_count)),
                *("--connections", "16", "--clients", "sealing", "--bank-root", str(system.root / "bank-root.txt")),
                *("--tokens", str(system.data / "PaymentTokensData.txt")),
                *("--customers", str(system.data / "customers.txt"), "--directory", str(tmp_path)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        counts: dict[str, list[int]] = {"bank": [], "gateway": []}
        while load.poll() is None or not counts["gateway"]:
            for server, found in counts.items():
                folder = system.root / f"{server}-{len(found)}"
                system.command(server, "backup", str(folder))  # which checks every row of the copy
                found.append(payments_in(folder))
        output, _ = load.communicate(timeout=60)
        assert load.returncode == 0, output
    finally:
        system.stop()
    for found in counts.values():
        assert found == sorted(found)
    assert len(system.record("bank", "TransactionID.txt")) == payment_count
    expect_clean(system)


def make_data(data: Path, payment_count: int) -> None:
    """Tokens for a load, and customers whose passwords it is told."""
    data.mkdir()
    customers = [f"C-{n} | user-{n} | password-{n} | 100000.00\n" for n in range(4)]
    (data / "NetbankingUsers.txt").write_text("".join(customers), encoding="ascii")
    (data / "customers.txt").write_text("".join(customers), encoding="ascii")
    (data / "Merchant.txt").write_text("M-100 | Books | 0.00\n", encoding="ascii")
    tokens = [f"T-{n} | 2468 | unpaid | 1.00 | M-100 | INR | | | Books\n" for n in range(payment_count)]
    (data / "PaymentTokensData.txt").write_text("".join(tokens), encoding="ascii")


def payments_in(folder: Path) -> int:
    """How many payments a backup holds."""
    (path,) = folder.glob("*.sqlite")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(connection.execute("SELECT count(*) FROM payment").get)
    finally:
        connection.close()
