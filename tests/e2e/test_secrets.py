"""R4, T19: a canary password and user ID are nowhere at the gateway: not in memory, files, logs or on its wires."""

import re
from pathlib import Path

import pytest
from e2e.relay import Relay
from local_system import LocalSystem

from paygate.cli import ExitCode

CANARY_USER = "canary-user-5f0c1d"
CANARY_PASSWORD = "canary-password-9a7be2"  # made up for this test


@pytest.mark.pg("PG-PWD-2")
def test_a_canary_is_nowhere_at_the_gateway(stopped_system: LocalSystem) -> None:
    system = stopped_system
    users = system.root / "bank" / "NetbankingUsers.txt"
    with users.open("a", encoding="utf-8") as file:
        file.write(f"C-CANARY | {CANARY_USER} | {CANARY_PASSWORD} | 5000.00\n")
    bank = system.start_bank()
    bank_wire = Relay(bank.port)
    gateway = system.start_gateway(bank_port=bank_wire.port)
    client_wire = Relay(gateway.port)
    gateway_address, gateway.address = gateway.address, f"127.0.0.1:{client_wire.port}"

    for kem in ("X25519", "MLKEM768_X25519"):
        transaction, passcode = ("TX-1001", "4711") if kem == "X25519" else ("TX-1003", "6502")
        run = system.pay(transaction, passcode, CANARY_USER, CANARY_PASSWORD, "--kem", kem)
        assert run.exit_code == ExitCode.OK, run.errors
    declined = system.pay("TX-1004", "68000", CANARY_USER, f"{CANARY_PASSWORD}-wrong")
    assert declined.exit_code == ExitCode.DECLINED

    memory = process_memory(gateway.popen.pid)
    assert b"demo-gateway" in memory, "the memory that was read is not the gateway's"
    gateway.address = gateway_address
    assert gateway.end() == 0
    client_wire.close()
    bank.end()
    bank_wire.close()

    needles = [CANARY_USER.encode(), CANARY_PASSWORD.encode()]
    needles += [needle.hex().encode() for needle in needles]
    places: dict[str, bytes] = {"memory": memory}
    places["client wire"] = bytes(client_wire.seen)
    places["bank wire"] = bytes(bank_wire.seen)
    for path in [*(system.root / "gateway").rglob("*"), *system.root.glob("*.log")]:
        if path.is_file():
            places[str(path)] = path.read_bytes()
    assert b"TX-1001" in places["client wire"], "the relay saw nothing"
    for place, data in places.items():
        for needle in needles:
            assert needle not in data, f"{needle!r} is in {place}"
    # The bank's own files hold no plain password either (R16).
    for path in (system.root / "bank").rglob("*"):
        if path.is_file():
            assert CANARY_PASSWORD.encode() not in path.read_bytes(), path


def process_memory(pid: int) -> bytes:
    """What a process holds in its readable mappings."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or "[v" in line:  # vvar, vdso and vsyscall are the kernel's
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            memory.seek(start)
            try:
                found += memory.read(end - start)
            except OSError:
                continue
    return bytes(found)


def test_secrets_are_private_files(stopped_system: LocalSystem) -> None:
    paths = [path for part in ("bank", "gateway") for path in (stopped_system.root / part).rglob("*")]
    assert len(paths) > 5
    loose = [path for path in paths if path.stat().st_mode & 0o077]
    assert loose == []


def test_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(stopped_system: LocalSystem) -> None:
    system = stopped_system
    key = system.root / "gateway" / "link.key"
    key.chmod(0o644)
    done = system.command("gateway", "serve", "--port", "0", check=False)
    assert done.returncode == ExitCode.BAD_STATE
    assert f"chmod 600 {key}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
