"""Every outcome of a payment, with three real processes (R1 to R9)."""

import subprocess
from pathlib import Path

import pytest
from local_system import LocalSystem, program, start_client, wait_until

from paygate.cli import ExitCode

ASHA = ("asha", "correct horse battery")


def token_states(system: LocalSystem) -> dict[str, str]:
    return {row[0]: row[2] for row in system.record("gateway", "PaymentTokensData.txt")}


def balances(system: LocalSystem) -> dict[str, str]:
    return {row[1]: row[3] for row in system.record("bank", "NetbankingUsers.txt")}


def issue(system: LocalSystem, transaction: str, *options: str, merchant: str = "M-100", currency: str = "INR") -> None:
    system.command(
        "gateway",
        "issue",
        *("--transaction", transaction, "--passcode", "2468", "--amount", "10.00"),
        *("--merchant", merchant, "--currency", currency, *options),
    )


def test_a_payment_is_made_once_and_recorded_everywhere(system: LocalSystem) -> None:
    before = balances(system)["asha"]
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.OK, run.errors
    utr = run.answer["utr"]
    assert len(utr) == 22

    again = system.pay("TX-1001", "4711", "meera", "seven brass lamps")
    assert again.exit_code == ExitCode.ALREADY_PAID
    assert again.answer["utr"] == utr

    assert token_states(system)["TX-1001"] == "paid"
    assert [row[6] for row in system.record("gateway", "GatewayTransaction.txt")] == ["paid"]
    (registered,) = system.record("bank", "TransactionID.txt")
    assert registered[0] == utr
    assert "TX-1001" in registered
    assert float(before) - float(balances(system)["asha"]) == 1250.0
    merchant = {row[0]: row[2] for row in system.record("bank", "Merchant.txt")}
    assert float(merchant["M-100"]) >= 1250.0


@pytest.mark.parametrize("kem", ["X25519", "MLKEM768_X25519"])
def test_both_suites_pay(system: LocalSystem, kem: str) -> None:
    run = system.pay("TX-1001", "4711", *ASHA, "--kem", kem)
    assert run.exit_code == ExitCode.OK, run.errors


def test_declines_name_their_reason_and_leave_the_token_unpaid(system: LocalSystem) -> None:
    issue(system, "TX-NOBODY", merchant="M-UNKNOWN")
    issue(system, "TX-EURO", currency="EUR")
    cases = [
        ("TX-1002", "8086", ("ravi", "monsoon-in-mumbai"), "FUNDS"),
        ("TX-1002", "8086", ("asha", "wrong"), "CREDENTIALS"),
        ("TX-1002", "8086", ("nobody", "wrong"), "CREDENTIALS"),
        ("TX-NOBODY", "2468", ASHA, "MERCHANT_UNKNOWN"),
        ("TX-EURO", "2468", ASHA, "CURRENCY"),
    ]
    before = balances(system)
    for transaction, passcode, (user, password), reason in cases:
        run = system.pay(transaction, passcode, user, password)
        assert run.exit_code == ExitCode.DECLINED, (reason, run.errors)
        assert run.answer["reason"].upper().replace(" ", "_") == reason
        assert token_states(system)[transaction] == "unpaid"
    assert balances(system) == before
    assert system.record("bank", "TransactionID.txt") == []
    # A decline is not the token's end: with the right credentials it is paid.
    assert system.pay("TX-1002", "8086", *ASHA).exit_code == ExitCode.OK


def test_a_token_that_may_not_be_paid_asks_for_no_credentials(system: LocalSystem) -> None:
    path = system.root / "gateway" / "PaymentTokensData.txt"
    with path.open("a", encoding="utf-8") as file:
        file.write("TX-LATE|2468|unpaid|10.00|M-100|INR||2020-01-01T00:00:00Z\n")
    wait_until(lambda: "TX-LATE|2468" not in path.read_text(encoding="utf-8"), "the gateway to take the line in")
    issue(system, "TX-GONE")
    system.command("gateway", "cancel", "TX-GONE")
    for transaction, passcode in (("TX-1001", "wrong"), ("TX-NONE", "2468"), ("TX-LATE", "2468"), ("TX-GONE", "2468")):
        run = system.pay(transaction, passcode, *ASHA)
        assert run.exit_code == ExitCode.TOKEN_REFUSED, (transaction, run.output, run.errors)
    assert system.record("gateway", "GatewayTransaction.txt") == []


def test_five_wrong_passcodes_lock_a_token_and_an_unknown_one_alike(system: LocalSystem) -> None:
    for transaction in ("TX-1001", "TX-NONE"):
        said = [system.pay(transaction, "wrong", *ASHA).answer for _ in range(6)]
        assert [a["token_status"] for a in said] == ["INVALID"] * 5 + ["LOCKED"], said
    right = system.pay("TX-1001", "4711", *ASHA)
    assert right.answer["token_status"] == "LOCKED"


def test_a_token_line_that_a_merchant_adds_is_paid_without_a_restart(system: LocalSystem) -> None:
    path = system.root / "gateway" / "PaymentTokensData.txt"
    with path.open("a", encoding="utf-8") as file:
        file.write("TX-BAD|1|unpaid|12.345|M-100|INR\nTX-NEW|1357|unpaid|99.95|M-200|INR\n")
    wait_until(lambda: "TX-NEW|1357" not in path.read_text(encoding="utf-8"), "the gateway to take the line in")
    run = system.pay("TX-NEW", "1357", *ASHA)
    assert run.exit_code == ExitCode.OK, run.errors
    assert "TX-BAD|1|unpaid|12.345|M-100|INR" in path.read_text(encoding="utf-8")
    log = (system.root / "gateway.log").read_text(encoding="utf-8")
    assert "PaymentTokensData.txt line" in log
    assert "amount" in log


def test_two_clients_race_for_one_token_and_exactly_one_pays(system: LocalSystem) -> None:
    racers = [
        start_client(system, "TX-1001", "4711", "asha", "correct horse battery", state="first"),
        start_client(system, "TX-1001", "4711", "meera", "seven brass lamps", state="second"),
    ]
    codes = []
    for racer in racers:
        with racer:
            racer.communicate(timeout=60)
            codes.append(racer.returncode)
    assert codes.count(ExitCode.OK) == 1, codes
    assert set(codes) - {ExitCode.OK} <= {ExitCode.ALREADY_PAID, ExitCode.REFUSED, ExitCode.TOKEN_REFUSED}
    assert len(system.record("bank", "TransactionID.txt")) == 1


def test_no_gateway_is_said_in_one_line(system: LocalSystem) -> None:
    assert system.gateway is not None
    system.gateway.end()
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.NO_CONNECTION
    assert len(run.errors.strip().splitlines()) == 1


def test_no_bank_is_a_refusal_before_anything_is_sent(stopped_system: LocalSystem) -> None:
    system = stopped_system
    bank = system.start_bank()
    system.start_gateway()
    system.pay("TX-1003", "6502", *ASHA)  # by then the gateway has the key list
    bank.end()
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.REFUSED, run.errors
    assert token_states(system)["TX-1001"] == "unpaid"


def test_a_wrong_root_key_is_refused_before_a_password_is_sealed(system: LocalSystem) -> None:
    (system.root / "bank-root.txt").write_text(f"DEMOBANK {'ab' * 32}\n", encoding="ascii")
    run = system.pay("TX-1001", "4711", *ASHA)
    assert run.exit_code == ExitCode.UNTRUSTED
    assert system.record("gateway", "GatewayTransaction.txt") == []


def test_a_receipt_verifies_offline_and_not_when_altered(system: LocalSystem, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    run = system.pay("TX-1001", "4711", *ASHA, "--receipt", str(receipt))
    assert run.exit_code == ExitCode.OK, run.errors
    system.stop()
    command = [*program("client"), "verify", str(receipt), "--bank-root", str(system.root / "bank-root.txt")]
    good = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert good.returncode == ExitCode.OK, good.stderr
    assert run.answer["utr"] in good.stdout
    utr = run.answer["utr"]
    other = utr[:-1] + ("1" if utr[-1] != "1" else "2")
    text = receipt.read_text(encoding="utf-8")
    receipt.write_text(text.replace(utr.encode().hex(), other.encode().hex()), encoding="utf-8")
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == ExitCode.UNTRUSTED
