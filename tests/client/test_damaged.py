"""A record that can't be used hides no other: what the commands say then, and their exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import TRANSACTION_ID, UTR, build_terms
from client_program import PROGRAM, Shop, run
from scripted_gateway import ALWAYS_VALID_KEYS, TEST_ROOT, unproven

from paygate.cli import ExitCode
from paygate.client.payment import Payment
from paygate.client.pending import PendingStore
from paygate.client.root import BankRoot
from paygate.clock import system_now
from paygate.codec.codes import Kind, PaymentStatus
from paygate.codec.messages import Message, StatusAck
from paygate.codec.seal import envelope_hash


@pytest.fixture
def payments(shop: Shop) -> list[Payment]:
    """Three that wait for their outcome; the record of the second is spoiled."""
    payments = []
    store = PendingStore(shop.state)
    store.create()
    now_ms = system_now().wall_ms
    for number in (1, 2, 3):
        terms = build_terms(payment_id=bytes([number]) * 16, authorised_at_ms=now_ms + number)
        payments.append(
            Payment(terms, envelope_hash(b"envelope"), "4321", "", shop.server.address, TEST_ROOT, ALWAYS_VALID_KEYS)
        )
        store.save(payments[-1])
    record(shop, payments[1]).write_bytes(b"{")
    return payments


def record(shop: Shop, payment: Payment) -> Path:
    return shop.state / "payments" / f"{payment.payment_id.hex()}.json"


def told(shop: Shop, payment: Payment) -> str:
    return f"paygate-client: {record(shop, payment)} was changed or damaged: the object: expected JSON; restore it"


def answers(shop: Shop, payments: list[Payment]) -> None:
    """The gateway has a receipt for the payments that it is asked for."""

    def answer(message: Message) -> Message:
        shop.server.payment = next(p for p in payments if p.payment_id == message.payment_id)  # type: ignore[attr-defined]
        return shop.server.paid(message)

    shop.server.script[Kind.STATUS_QUERY] = answer


def test_the_others_are_listed_and_the_bad_one_is_named(shop: Shop, payments: list[Payment]) -> None:
    done = run("list", "--state", str(shop.state))
    assert done.returncode == ExitCode.BAD_STATE
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["01" * 16, "03" * 16]
    (line,) = done.stderr.splitlines()
    assert line.startswith(told(shop, payments[1]))
    assert record(shop, payments[1]).read_bytes() == b"{"
    as_json = run("list", "--json", "--state", str(shop.state))
    assert as_json.returncode == ExitCode.BAD_STATE
    assert [json.loads(line)["payment_id"] for line in as_json.stdout.splitlines()] == ["01" * 16, "03" * 16]


def test_the_others_are_asked_for_and_have_their_receipts(shop: Shop, payments: list[Payment]) -> None:
    # Of another token, since of one token the bank posts one payment.
    payments[2] = replace(payments[2], terms=replace(payments[2].terms, transaction_id="TX-1003"))
    PendingStore(shop.state).save(payments[2])
    answers(shop, payments)
    done = shop.run([*PROGRAM, "status", "all", "--state", str(shop.state)])
    assert done.returncode == ExitCode.BAD_STATE, done.stderr
    for payment in (payments[0], payments[2]):
        assert f"{payment.payment_id.hex()}: Paid 1250.00 INR" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(told(shop, payments[1]))
    # Nothing waits now but perhaps the one that nobody can read, so nobody is reassured.
    again = shop.run([*PROGRAM, "status", "--state", str(shop.state)])
    assert again.returncode == ExitCode.BAD_STATE
    assert again.stdout == "No payment whose record could be read waits for an outcome.\n"
    receipts = run("receipts", "--state", str(shop.state))
    assert receipts.returncode == ExitCode.BAD_STATE
    assert [line.split()[0] for line in receipts.stdout.splitlines()] == ["01" * 16, "03" * 16]
    record(shop, payments[1]).rename(shop.directory / "kept.json")
    assert run("list", "--state", str(shop.state)).returncode == ExitCode.OK


def test_a_retry_after_the_session_says_that_nothing_was_sent_again(shop: Shop, payments: list[Payment]) -> None:
    pending = unproven(payments[0], PaymentStatus.PENDING, cls=StatusAck)
    shop.server.script[Kind.STATUS_QUERY] = lambda _: pending
    retry = [*PROGRAM, "retry", payments[0].payment_id.hex(), "--state", str(shop.state)]
    late = shop.run(retry)
    assert late.returncode == ExitCode.OUTCOME_UNKNOWN
    words = "Its session is over, so nothing was sent again and it was only asked for."
    assert f"{words} The payment was sent; the bank has not answered" in late.stdout
    answers(shop, payments)
    assert words in shop.run(retry).stdout
    settled = shop.run(retry)
    assert settled.returncode == ExitCode.OK
    assert words not in settled.stdout


def test_what_can_not_be_mended_by_asking_again_is_the_exit_code(shop: Shop, payments: list[Payment]) -> None:
    pending = [unproven(payment, PaymentStatus.PENDING, cls=StatusAck) for payment in payments]
    by_id = {message.payment_id: message for message in pending}  # type: ignore[attr-defined]
    shop.server.script[Kind.STATUS_QUERY] = lambda query: by_id[query.payment_id]  # type: ignore[attr-defined]
    status = [*PROGRAM, "status", "--state", str(shop.state)]
    done = shop.run(status)
    assert done.returncode == ExitCode.BAD_STATE
    assert done.stdout.count("the bank has not answered the gateway yet") == 2
    record(shop, payments[1]).unlink()
    assert shop.run(status).returncode == ExitCode.OUTCOME_UNKNOWN


def test_one_banks_damaged_serial_keeps_nobody_from_asking_for_payments_of_another(
    shop: Shop, payments: list[Payment]
) -> None:
    answers(shop, payments)
    store = PendingStore(shop.state)
    record(shop, payments[1]).unlink()
    other = replace(payments[0], root=BankRoot("BANK2", b"o" * 32))
    store.keep_serial(other.root, 7)
    (serial,) = (shop.state / "serials").iterdir()
    serial.write_text("seven\n", encoding="ascii")
    record(shop, other).unlink()
    store.save(other)
    done = shop.run([*PROGRAM, "status", "--state", str(shop.state)])
    assert done.returncode == ExitCode.BAD_STATE
    assert f"{payments[2].payment_id.hex()}: Paid 1250.00 INR" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"paygate-client: {other.payment_id.hex()}: {serial} does not hold a serial number")


def test_whoever_pays_is_told_of_all_earlier_payments_of_the_token(shop: Shop, payments: list[Payment]) -> None:
    record(shop, payments[1]).chmod(0o644)
    done = shop.run(shop.full_command())
    assert done.returncode == ExitCode.OK, done.stderr
    assert UTR in done.stdout
    damaged, first, third = done.stderr.splitlines()
    assert f"{record(shop, payments[1])} is open to other users (mode 0644): chmod 600" in damaged
    for line, payment in ((first, payments[0]), (third, payments[2])):
        assert f"an earlier payment of this token is pending: {payment.payment_id.hex()}" in line
    assert payments[0].terms.transaction_id == TRANSACTION_ID
