"""T30 with three real programs: on a full disk new payments are refused in words, all else works, and it heals itself.

A server whose whole state is on a full disk stands on a real file system of three megabytes; where only its records or
only its store is full, the preloaded library says so, since they are in one directory.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faults.shim import Plan, build, environment
from faults.small_disk import SmallDisk, can_mount, mounted
from local_system import LocalSystem, wait_until

from paygate.cli import ExitCode

ASHA = ("asha", "correct horse battery")
needs_mount = pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State directories of servers that ran once, so that their logs hold no room for a payment more."""
    root = tmp_path_factory.mktemp("created")
    system = LocalSystem(root)
    system.create()
    start(system)
    system.stop()
    return root


@pytest.fixture
def system(created: Path, tmp_path: Path) -> Iterator[LocalSystem]:
    """A system that is made but not started."""
    root = tmp_path / "system"
    shutil.copytree(created, root)
    system = LocalSystem(root)
    system.gateway_options = ["--session-seconds", "12"]
    yield system
    system.stop()


@pytest.fixture
def small(system: LocalSystem, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """The state of one program, given by name, on a small disk."""
    state = system.root / request.param
    aside = state.with_name("aside")
    if state.exists():
        state.rename(aside)
    with mounted(state) as disk:
        if aside.exists():
            shutil.copytree(aside, state, dirs_exist_ok=True)
        yield disk
        system.stop()


def start(system: LocalSystem) -> None:
    system.start_bank()
    system.start_gateway()


def has_said(system: LocalSystem, program: str, text: str) -> bool:
    return text in (system.root / f"{program}.log").read_text(encoding="utf-8")


def forget_the_answer(system: LocalSystem, payment_id: str) -> None:
    """The client's record of a payment as a client has it that was killed before the answer came."""
    path = system.root / "client" / "payments" / f"{payment_id}.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields |= {"state": "pending", "reason": "NONE", "utr": "", "receipt": "", "ended": ""}
    path.write_text(json.dumps(fields), encoding="utf-8")


def paid_at_last(system: LocalSystem, token: str, passcode: str) -> None:
    """A payment goes through, at once or when the one before it is settled. No restart."""
    assert system.bank is not None
    assert system.gateway is not None
    run = system.pay(token, passcode, *ASHA)
    assert run.exit_code == ExitCode.OK, run.output + run.errors
    assert (system.bank.popen.poll(), system.gateway.popen.poll()) == (None, None)


@needs_mount
@pytest.mark.parametrize("small", ["bank", "gateway"], indirect=True)
def test_a_server_on_a_full_disk_refuses_payments_answers_questions_and_recovers(
    system: LocalSystem, small: SmallDisk
) -> None:
    start(system)
    first = system.pay("TX-1001", "4711", *ASHA)
    assert first.exit_code == ExitCode.OK, first.errors
    small.fill()
    refused = system.pay("TX-1002", "8086", *ASHA)
    assert refused.exit_code in (ExitCode.REFUSED, ExitCode.OUTCOME_UNKNOWN), refused.output
    assert refused.answer["token_status"] == "VALID"  # the token was told, and nothing else
    assert refused.answer["outcome"] in ("refused", "unknown")
    # Who asks is answered: of the token, and of the payment, with the bank's proof.
    assert system.pay("TX-1001", "4711", *ASHA, state="other").exit_code == ExitCode.ALREADY_PAID
    forget_the_answer(system, first.answer["payment_id"])
    status = system.status(first.answer["payment_id"])
    assert (status.exit_code, status.answer["utr"]) == (ExitCode.OK, first.answer["utr"])
    assert has_said(system, small.path.name, "no room on the disk")
    small.make_room()
    paid_at_last(system, "TX-1003", "6502")
    assert len(system.record("bank", "TransactionID.txt")) == 2
    assert (system.gateway and system.gateway.end(), system.bank and system.bank.end()) == (0, 0)


@needs_mount
@pytest.mark.parametrize("small", ["client"], indirect=True)
def test_a_client_on_a_full_disk_sends_nothing_and_says_so(system: LocalSystem, small: SmallDisk) -> None:
    start(system)
    assert system.pay("TX-1001", "4711", *ASHA).exit_code == ExitCode.OK
    small.fill()
    run = system.pay("TX-1002", "8086", *ASHA)
    assert run.exit_code == ExitCode.BAD_STATE, run.output + run.errors
    assert "No space left on device" in run.answer["text"]
    assert "Nothing was sent to the bank; no money has moved." in run.answer["text"]
    assert [row[2] for row in system.record("gateway", "GatewayTransaction.txt")] == ["TX-1001"]
    small.make_room()
    paid_at_last(system, "TX-1002", "8086")


@pytest.mark.parametrize("full", ["records", "store"])
def test_records_and_stores_that_are_full_one_without_the_other(
    system: LocalSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    switch = tmp_path / "is-full"
    switch.write_bytes(b"\0")
    names = "*.txt*" if full == "records" else "*.sqlite*"
    plan = Plan("@(write|pwrite|create)", names, 1, errno.ENOSPC, True)
    with monkeypatch.context() as patch:
        for name, value in environment(build(tmp_path), system.root, tmp_path / "trace", plan, switch).items():
            patch.setenv(name, value)
        start(system)
    switch.write_bytes(b"\1")
    run = system.pay("TX-1001", "4711", *ASHA)
    add(system.root / "bank" / "Merchant.txt", "M-300 | Third | 0.00")
    add(system.root / "gateway" / "PaymentTokensData.txt", "TX-2001 | 4711 | unpaid | 1.00 | M-100 | INR")
    if full == "records":
        # Nobody waits for the files: the money moves, and they follow.
        assert run.exit_code == ExitCode.OK, run.output
        assert system.record("bank", "TransactionID.txt") == []
        told = "the text records could not be "
    else:
        assert run.exit_code == ExitCode.REFUSED, run.output
        told = "no room on the disk"
    for program in ("bank", "gateway"):
        wait_until(partial(has_said, system, program, told), f"the {program} to tell of it")
    switch.write_bytes(b"\0")
    utrs = [run.answer["utr"]] if full == "records" else []
    wait_until(lambda: [row[0] for row in system.record("bank", "TransactionID.txt")] == utrs, "the bank's records")
    wait_until(lambda: rows_of(system, "bank", "Merchant.txt", "M-300") == [["M-300", "Third", "0.00"]], "the merchant")
    paid_at_last(system, "TX-2001", "4711")
    states = {"TX-1001": "paid" if utrs else "unpaid", "TX-2001": "paid"}
    for token, state in states.items():
        assert [row[2] for row in rows_of(system, "gateway", "PaymentTokensData.txt", token)] == [state]


def add(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def rows_of(system: LocalSystem, server: str, name: str, key: str) -> list[list[str]]:
    return [row for row in system.record(server, name) if row[0] == key]
