"""The library over real sockets, with a real encoder child, against a scripted gateway."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from builders import PASSCODE, PASSWORD, TRANSACTION_ID, USER_ID, UTR, build_terms, build_token_ack
from client_world import ROOT
from scripted_gateway import GatewayServer, keys, unproven

from paygate.cli import ExitCode, PaygateExit
from paygate.client import Outcome, PaygateClient, PaymentState, SessionFailed
from paygate.client.order import BadInput
from paygate.codec.codes import Kind, PaymentStatus, Reason, TokenStatus
from paygate.codec.errors import LocalProtocolError
from paygate.codec.messages import Message
from paygate.files.state_dir import StateError
from paygate.net.addresses import AddressError
from paygate.net.loop import Loop

MakeClient = Callable[..., PaygateClient]


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[MakeClient]:
    clients = []

    def make(**settings: object) -> PaygateClient:
        client = PaygateClient(bank_root=str(ROOT), state_dir=tmp_path / "client", **settings)  # type: ignore[arg-type]
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


class Shop:
    """A client and a gateway on one loop."""

    def __init__(self, make_client: MakeClient, **settings: object) -> None:
        # The port is known only when the listener has a loop, and the loop is the client's.
        self.client = make_client(**settings)
        self.server = GatewayServer(self.client.loop)
        self.client._gateway = self.server.address

    def query(self) -> TokenStatus:
        return self.client.query(TRANSACTION_ID, PASSCODE).status


@pytest.fixture
def shop(make_client: MakeClient) -> Iterator[Shop]:
    shop = Shop(make_client)
    yield shop
    shop.server.close()


def test_a_token_is_paid_and_its_receipt_verifies(shop: Shop, tmp_path: Path) -> None:
    token = shop.client.query(TRANSACTION_ID, PASSCODE)
    assert token.is_valid
    assert (token.merchant_id, token.amount_minor, token.currency) == ("M-100", 125_000, "INR")
    assert 0 < shop.client.session_left_ms <= 30_000
    told: list[str] = []
    result = shop.client.pay(
        USER_ID, PASSWORD, on_sending=lambda: told.append("sending"), on_wait=lambda: told.append("waiting")
    )
    assert result.outcome is Outcome.PAID, result.text
    assert result.utr == UTR
    assert told.count("sending") == 1
    assert "waiting" in told
    (payment,) = shop.client.payments()
    assert payment.state is PaymentState.PAID
    assert payment.payment_id == result.payment_id
    assert payment.gateway == shop.server.address
    path = shop.client.save_receipt(result.payment_id)
    assert path == tmp_path / "client" / "receipts" / f"{UTR}.json"
    assert PaygateClient.verify(path, str(ROOT)).terms == payment.terms
    assert shop.client.store.serial_min(ROOT) == 7


@pytest.mark.pg("PG-TRM-2", "PG-TRM-3")
def test_a_second_payment_uses_a_second_payment_id(shop: Shop) -> None:
    for _ in range(2):
        shop.query()
        assert shop.client.pay(USER_ID, PASSWORD).outcome is Outcome.PAID
    first, second = shop.client.payments()
    assert first.payment_id != second.payment_id
    for payment in (first, second):
        assert UUID(bytes=payment.payment_id).version == 7
        assert int.from_bytes(payment.payment_id[:6]) == payment.terms.authorised_at_ms


def test_a_token_that_is_paid_tells_its_utr(shop: Shop) -> None:
    paid = build_token_ack(status=TokenStatus.PAID, session_id=bytes(16), session_left_ms=0, utr=UTR)
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: paid
    token = shop.client.query(TRANSACTION_ID, PASSCODE)
    assert not token.is_valid
    assert token.utr == UTR
    assert shop.client.pay(USER_ID, PASSWORD).outcome is Outcome.ALREADY_PAID


def test_the_loops_timer_ends_the_session_before_sending(shop: Shop) -> None:
    shop.server.script[Kind.TOKEN_QUERY] = lambda _: build_token_ack(session_left_ms=1_000)
    assert shop.query() is TokenStatus.VALID
    while shop.client.result is None:
        shop.client.run_once()
    assert shop.client.result.outcome is Outcome.TIMED_OUT
    assert shop.client.session_left_ms == 0
    assert shop.client.pay(USER_ID, PASSWORD).outcome is Outcome.TIMED_OUT
    assert shop.client.payments() == []


def test_the_session_ends_after_sending_and_status_brings_the_outcome(shop: Shop) -> None:
    def left_open(message: Message) -> None:
        shop.server.paid(message)
        # Brought forward to now, so that however long sealing takes, the time ends after it.
        shop.client._alarm.start(0.05)

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = left_open
    shop.query()
    result = shop.client.pay(USER_ID, PASSWORD)
    assert result.outcome is Outcome.UNKNOWN
    assert result.money_may_have_moved
    assert shop.client.payments(open_only=True)[0].payment_id == result.payment_id
    shop.server.script[Kind.STATUS_QUERY] = shop.server.paid
    assert shop.client.status(result.payment_id).outcome is Outcome.PAID
    assert shop.client.payments(open_only=True) == []


def test_a_link_cut_after_sending_is_made_again_and_asked(shop: Shop) -> None:
    def cut(message: Message) -> None:
        shop.server.paid(message)
        shop.server.cut()

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = cut
    shop.server.script[Kind.STATUS_QUERY] = shop.server.paid
    shop.query()
    assert shop.client.pay(USER_ID, PASSWORD).outcome is Outcome.PAID


def test_a_refused_payment_can_be_asked_for_later(shop: Shop) -> None:
    def refuse(message: Message) -> Message:
        shop.server.paid(message)
        assert shop.server.payment is not None
        return unproven(shop.server.payment, PaymentStatus.REFUSED, Reason.BANK_UNREACHABLE)

    shop.server.script[Kind.ENCRYPTED_CREDENTIALS] = refuse
    shop.query()
    result = shop.client.pay(USER_ID, PASSWORD)
    assert result.outcome is Outcome.REFUSED
    assert result.reason is Reason.BANK_UNREACHABLE
    assert result.money_may_have_moved
    assert [p.payment_id for p in shop.client.payments(open_only=True)] == [result.payment_id]
    # If the gateway lied and the bank posted it after all, the bank's proof wins.
    shop.server.script[Kind.STATUS_QUERY] = shop.server.paid
    assert shop.client.status(result.payment_id).outcome is Outcome.PAID
    assert shop.client.payments(open_only=True) == []
    # Its receipt is here now, whatever a gateway says and whether there is one.
    shop.server.close()
    assert shop.client.status(result.payment_id).utr == UTR


def test_bad_credentials_leave_the_session_as_it_was(shop: Shop) -> None:
    shop.query()
    with pytest.raises(BadInput):
        shop.client.pay(USER_ID, "")
    with pytest.raises(BadInput, match="user ID: expected a str, not NoneType"):
        shop.client.pay(None, PASSWORD)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(BadInput, match="password: expected a str, not bytes") as error:
        shop.client.pay(USER_ID, PASSWORD.encode())  # type: ignore[arg-type]  # the mistake that is tested
    assert PASSWORD not in str(error.value)
    assert shop.client.pay(USER_ID, PASSWORD).outcome is Outcome.PAID


def test_cancelling(shop: Shop) -> None:
    shop.query()
    assert shop.client.cancel().outcome is Outcome.CANCELLED
    assert shop.client.cancel().outcome is Outcome.CANCELLED
    assert shop.client.payments() == []


@pytest.mark.parametrize("argv", [("false",), (sys.executable, "-c", "print('no envelope')")])
def test_an_encoder_that_fails_costs_no_money(make_client: MakeClient, argv: tuple[str, ...]) -> None:
    shop = Shop(make_client, encoder_argv=argv)
    shop.query()
    result = shop.client.pay(USER_ID, PASSWORD)
    assert result.outcome is Outcome.FAILED
    assert "no money has moved" in result.text
    assert shop.client.payments() == []
    shop.server.close()


def test_an_encoder_that_is_not_there(make_client: MakeClient) -> None:
    shop = Shop(make_client, encoder_argv=("no-such-program-anywhere",))
    with pytest.raises(PaygateExit, match="could not start the encoder"):
        shop.query()
    shop.server.close()


def test_untrusted_keys_fail_the_query(shop: Shop) -> None:
    shop.server.script[Kind.BANK_KEYS_QUERY] = lambda _: keys(b"forged")
    with pytest.raises(SessionFailed) as error:
        shop.query()
    assert error.value.code is ExitCode.UNTRUSTED
    assert error.value.result.outcome is Outcome.UNTRUSTED


def test_no_gateway_fails_the_query(make_client: MakeClient) -> None:
    client = make_client(gateway=unused_address())
    with pytest.raises(SessionFailed, match="Nothing was sent") as error:
        client.query(TRANSACTION_ID, PASSCODE)
    assert error.value.code is ExitCode.NO_CONNECTION


def unused_address() -> str:
    loop = Loop()
    server = GatewayServer(loop)
    server.close()
    loop.close()
    return server.address


def test_misuse_is_refused(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    with pytest.raises(LocalProtocolError):
        client.pay(USER_ID, PASSWORD)
    with pytest.raises(LocalProtocolError):
        client.cancel()
    with pytest.raises(ValueError, match="transaction ID: expected"):
        client.query("no spaces", PASSCODE)
    with pytest.raises(ValueError, match="passcode: expected") as error:
        client.query(TRANSACTION_ID, "two words")
    assert "two words" not in str(error.value)
    client.store.create()
    with pytest.raises(PaygateExit, match="no payment"):
        client.status(build_terms().payment_id)
    with pytest.raises(ValueError, match="payment ID: expected 16 bytes"):
        client.status("ab" * 16)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(AddressError):
        make_client(gateway="nowhere")
    with pytest.raises(PaygateExit, match="loopback"):
        make_client(gateway="192.0.2.1:15000").query(TRANSACTION_ID, PASSCODE)
    rootless = PaygateClient(state_dir=tmp_path / "client")
    with rootless, pytest.raises(PaygateExit, match="root key is needed"):
        rootless.query(TRANSACTION_ID, PASSCODE)


def test_only_paying_makes_the_state_directory(shop: Shop, tmp_path: Path) -> None:
    client, state = shop.client, tmp_path / "client"
    payment_id = build_terms().payment_id
    for ask in (client.payments, lambda: client.status(payment_id), lambda: client.save_receipt(payment_id)):
        with pytest.raises(StateError, match="there is no state directory"):
            ask()
    assert not state.exists()
    shop.query()
    assert client.payments() == []
    assert state.stat().st_mode & 0o777 == 0o700


def uses(client: PaygateClient) -> list[Callable[[], object]]:
    payment_id = build_terms().payment_id
    return [
        lambda: client.query(TRANSACTION_ID, PASSCODE),
        lambda: client.pay(USER_ID, PASSWORD),
        client.cancel,
        lambda: client.run_once(0),
        lambda: client.status(payment_id),
        client.payments,
        lambda: client.save_receipt(payment_id),
    ]


def test_a_closed_client_says_so(make_client: MakeClient) -> None:
    client = make_client()
    client.close()
    client.close()
    for use in uses(client):
        with pytest.raises(LocalProtocolError, match="closed"):
            use()
    assert client.result is None
    assert client.session_left_ms == 0


def test_another_thread_is_told_to_use_the_main_one(make_client: MakeClient) -> None:
    calls = [*uses(make_client()), make_client]
    errors: list[Exception] = []

    def work() -> None:
        for call in calls:
            try:
                call()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == len(calls)
    for error in errors:
        assert isinstance(error, LocalProtocolError)
        assert "main thread" in str(error)
