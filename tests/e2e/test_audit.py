"""Audits of a real system's state, and servers that refuse a store that is not what was written (T32)."""

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_system import COMMAND_TIMEOUT_S, GATEWAY_ID, LocalSystem, StartFailed, program

from paygate.cli import ExitCode

ASHA = ("asha", "correct horse battery")
STORES = {"bank": "ledger.sqlite", "gateway": "tokens.sqlite"}


def contents(directory: Path) -> dict[str, str]:
    """Every file but the lock, by its contents."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def audit(system: LocalSystem, name: str, *options: str) -> tuple[int, str]:
    done = system.command(name, "audit", *options, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def export_both(system: LocalSystem) -> tuple[str, str]:
    """The bank's and the gateway's exports, in this order."""
    files = str(system.root / "bank.jsonl"), str(system.root / "gateway.jsonl")
    system.command("bank", "export-payments", "--gateway", GATEWAY_ID, files[0])
    system.command("gateway", "export-payments", files[1])
    return files


@pytest.fixture(scope="module")
def used_once(created: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system that was paid through and is stopped: one payment paid, one declined. Made once."""
    root = tmp_path_factory.mktemp("used") / "system"
    shutil.copytree(created, root)
    system = LocalSystem(root)
    try:
        system.start_bank()
        system.start_gateway()
        assert system.pay("TX-1001", "4711", *ASHA).exit_code == ExitCode.OK
        assert system.pay("TX-1002", "8086", "asha", "a wrong password").exit_code == ExitCode.DECLINED
    finally:
        system.stop()
    return root


@pytest.fixture
def used(used_once: Path, tmp_path: Path) -> Iterator[LocalSystem]:
    """A copy of it."""
    shutil.copytree(used_once, tmp_path / "system")
    system = LocalSystem(tmp_path / "system")
    yield system
    system.stop()


def test_a_system_that_is_whole_has_nothing_wrong_and_its_audit_changes_nothing(used: LocalSystem) -> None:
    before = contents(used.root)
    bank_code, bank_told = audit(used, "bank")
    gateway_code, gateway_told = audit(used, "gateway")
    assert (bank_code, gateway_code) == (ExitCode.OK, ExitCode.OK), bank_told + gateway_told
    assert contents(used.root) == before
    for line in (
        "payments 2: chain whole",
        "lines of NetbankingUsers.txt 3: say what the database says",
        "receipts 2:",
    ):
        assert line in bank_told, bank_told
    for line in ("payments 2: chain whole", "lines of GatewayTransaction.txt 2: say", "lines of LogFiles.txt 4: each"):
        assert line in gateway_told, gateway_told
    assert gateway_told.endswith("nothing is wrong\n")

    at_bank, at_gateway = export_both(used)
    assert (
        audit(used, "bank", "--against", at_gateway)[1].count("payments against gateway.jsonl 2: both sides say") == 1
    )
    assert audit(used, "gateway", "--against", at_bank)[0] == ExitCode.OK
    words = Path(at_bank).read_text() + Path(at_gateway).read_text()
    assert "asha" not in words
    assert "4711" not in words
    checks = [json.loads(line) for line in audit(used, "bank", "--json")[1].splitlines()]
    assert {check["name"]: check["count"] for check in checks}["transfers"] == 1


def test_both_sides_name_the_payment_that_they_do_not_agree_on(used: LocalSystem) -> None:
    at_bank, at_gateway = export_both(used)
    for path, own, name, other in (
        (at_gateway, at_bank, "bank", "gateway"),
        (at_bank, at_gateway, "gateway", "bank"),
    ):
        first, paid, declined, _ = Path(path).read_text().splitlines()
        payment_id = json.loads(paid)["payment_id"]
        Path(path).write_text("\n".join((first, declined, '{"payment_count": 1}')) + "\n")
        code, told = audit(used, name, "--against", path)
        assert code == ExitCode.FINDINGS
        assert f"the {other}'s payments: payment {payment_id} is missing, and POSTED at the {name}" in told
        assert f"the {name} has proof" in told
        Path(path).write_text(f"{first}\n{declined}\n")  # cut short
        done = used.command(name, "audit", "--against", path, check=False)
        assert done.returncode == ExitCode.USAGE
        assert "line 2: expected" in done.stderr
        assert used.command(name, "audit", "--against", own, check=False).returncode == ExitCode.USAGE
    nobody = used.command("bank", "export-payments", "--gateway", "nobody", at_bank, check=False)
    assert (nobody.returncode, "there is no gateway nobody" in nobody.stderr) == (ExitCode.USAGE, True)


def test_a_text_record_that_says_otherwise_is_named_with_its_line(used: LocalSystem) -> None:
    for name, file, old, new, expected in (
        (
            "bank",
            "TransactionID.txt",
            b"1250.00",
            b"1250.01",
            "says another amount than the database (expected: 1250.00)",
        ),
        ("bank", "Merchant.txt", b"Books", b"Bookz", "says another name than the database"),
        ("gateway", "GatewayTransaction.txt", b"declined ", b"refused  ", "file has no line of payment ID"),
        ("gateway", "LogFiles.txt", b"disconnected", b"connected   ", "which is open"),
    ):
        path = used.root / name / file
        whole = path.read_bytes()
        assert old in whole
        at = whole.rindex(old)  # the first is in the header
        path.write_bytes(whole[:at] + new + whole[at + len(old) :])
        code, told = audit(used, name)
        assert code == ExitCode.FINDINGS
        assert f"{file}: " in told
        assert expected in told, told
        path.write_bytes(whole)
        assert audit(used, name)[0] == ExitCode.OK


@pytest.mark.parametrize(
    ("name", "row", "named"),
    [("bank", b"C-1001asha", "customer 2"), ("gateway", b"4711M-100Asha's Books", "token 1")],
    ids=["bank", "gateway"],
)
def test_a_flipped_byte_is_named_by_the_audit_and_by_a_server_that_refuses_to_serve(
    used: LocalSystem, name: str, row: bytes, named: str
) -> None:
    path = used.root / name / STORES[name]
    data = bytearray(path.read_bytes())
    data[data.index(row) + len(row) // 2] ^= 1
    path.write_bytes(data)
    code, told = audit(used, name)
    assert code == ExitCode.FINDINGS
    with pytest.raises(StartFailed) as refused:
        used._start(name, "--port", "0")
    said = str(refused.value)
    assert said.startswith(f"{name} ended with {int(ExitCode.BAD_STATE)}: ")
    assert f"{path.name} is damaged: {named} is not what was written; restore it from a backup" in said
    assert f"{path.name}: {named} is not what was written" in told


def test_an_audit_of_a_running_server_says_how(system: LocalSystem) -> None:
    for name in ("bank", "gateway"):
        done = system.command(name, "audit", check=False)
        assert done.returncode == ExitCode.STATE_IN_USE
        assert "stop it (SIGTERM); while it runs, 'backup' checks every row of its copy" in done.stderr


def test_what_a_kill_left_is_audited_as_it_lies(system: LocalSystem) -> None:
    assert system.pay("TX-1001", "4711", *ASHA).exit_code == ExitCode.OK
    for server in (system.bank, system.gateway):
        assert server is not None
        server.popen.send_signal(signal.SIGKILL)
        server.popen.wait(COMMAND_TIMEOUT_S)
    before = contents(system.root)
    assert any(file.endswith("-wal") for file in before)
    for name in ("bank", "gateway"):
        done = subprocess.run(
            [*program(name), "audit", "--state", str(system.root / name)],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert "payments 1: chain whole" in done.stdout, done.stdout + done.stderr
    assert contents(system.root) == before


def test_a_backup_is_audited_before_it_is_restored(used: LocalSystem) -> None:
    for name in STORES:
        folder = used.root / f"{name}-backup"
        used.command(name, "backup", str(folder))  # without keys
        before = sorted(path.name for path in folder.iterdir()), contents(folder)
        done = used.command(name, "audit", "--state", str(folder), check=False)
        assert (done.returncode, done.stderr) == (ExitCode.OK, ""), done.stdout
        assert f"files of the backup {len(before[1]) - 1}: each as it was written" in done.stdout
        assert ", without keys\n" in done.stdout
        assert "payments 2: chain whole" in done.stdout
        assert "text records 0: none in a backup: a restore makes them anew" in done.stdout
        assert (sorted(path.name for path in folder.iterdir()), contents(folder)) == before
        other = "gateway" if name == "bank" else "bank"
        export = used.root / f"{other}.jsonl"
        used.command(other, "export-payments", *(["--gateway", GATEWAY_ID] if other == "bank" else []), str(export))
        compared = used.command(name, "audit", "--state", str(folder), "--against", str(export), check=False)
        assert f"payments against {export.name} 2: both sides say the same" in compared.stdout, compared.stderr
        settings = folder / f"{name}.json"
        settings.write_bytes(settings.read_bytes() + b" ")
        damaged = used.command(name, "audit", "--state", str(folder), check=False)
        assert damaged.returncode == ExitCode.FINDINGS
        assert f"{settings.name} is not what was backed up; take another backup" in damaged.stdout
