"""The library: pay tokens and ask about payments from a program of one's own."""

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from paygate.cli import ExitCode, PaygateExit
from paygate.client.core import Core
from paygate.client.payment import Outcome, Payment, PaymentResult
from paygate.client.payment_id import RANDOMNESS_SIZE, make_payment_id
from paygate.client.pending import OnDamaged, PendingStore
from paygate.client.receipt_file import receipt_file_text, verify_receipt_file, write_new_file
from paygate.client.root import BankRoot, parse_root
from paygate.client.session import ENCODER_ARGV, LoopAlarm, Session, SessionAlarm
from paygate.client.states import State
from paygate.client.verdict import settled_by
from paygate.clock import Now, system_now
from paygate.codec.codes import KemId, TokenStatus
from paygate.codec.errors import LocalProtocolError
from paygate.codec.fields import IDENTIFIER, PASSCODE
from paygate.codec.sealed import ReceiptStatement
from paygate.files.state_dir import StateError
from paygate.net.addresses import parse_host_port
from paygate.net.capture import CaptureFile
from paygate.net.loop import Loop

GATEWAY_DEFAULT: Final = "127.0.0.1:15000"
STATE_DIR_DEFAULT: Final = "var/client"
WAIT_TICK_MS: Final = 200
"""How often `on_wait` is called at least: often enough for a countdown in seconds."""

MakeAlarm = Callable[[Loop, Callable[[], None]], SessionAlarm]


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """R2: what the gateway says of a token. Amount and merchant are what a payment will be bound to."""

    status: TokenStatus
    transaction_id: str
    merchant_id: str
    merchant_name: str
    """For people, from the gateway: escape it before it is shown (T21)."""
    amount_minor: int
    currency: str
    gateway_id: str
    bank_id: str
    utr: str
    """With PAID, by the gateway's word."""
    session_left_ms: int
    """With VALID: the time left to pay, when the answer came (R10)."""
    text: str
    """Why it can't be paid, for people; empty with VALID."""

    @property
    def is_valid(self) -> bool:
        """Whether `pay` may follow."""
        return self.status is TokenStatus.VALID


class SessionFailed(PaygateExit):
    """No answer about the token came, or it can't be trusted. Nothing was sent; `result` says more."""

    def __init__(self, result: PaymentResult) -> None:
        self.result = result
        super().__init__(result.text, result.outcome.exit_code)


class PaygateClient:
    """A customer's end of paygate. Calls block; use it from the main thread.

    >>> with PaygateClient("127.0.0.1:15000", bank_root="DEMOBANK 3f...", state_dir="var/client") as client:
    ...     token = client.query("TX-1001", "4711")
    ...     if token.is_valid:  # show the customer token.merchant_name, token.amount_minor, token.currency
    ...         result = client.pay(user_id="asha", password="...")

    After a valid `query` the session runs 30 seconds (R10). By default a timer ends it and no signal is touched; a
    program that wants SIGALRM gives `make_alarm=paygate.net.signals.Alarm`. Payments are kept in `state_dir` from
    before they are sent, so `status` can ask again, also after a crash. A process may use several clients.

    `state_dir` is made by the first `query`. Whatever asks for earlier payments needs one that is there, and raises
    StateError otherwise: a mistyped directory must not answer that nothing is open. Every call raises
    LocalProtocolError from another thread, since only the main one may start the encoder (it sets what SIGINT does
    to it), and once the client is closed.
    """

    def __init__(
        self,
        gateway: str = GATEWAY_DEFAULT,
        *,
        bank_root: str | BankRoot | None = None,
        state_dir: str | Path = STATE_DIR_DEFAULT,
        kem_id: KemId | None = None,
        make_alarm: MakeAlarm = LoopAlarm,
        clock: Callable[[], Now] = system_now,
        status_command: str = "paygate-client status",
        encoder_argv: Sequence[str] = ENCODER_ARGV,
        capture: CaptureFile | None = None,
    ) -> None:
        """gateway: host and port; loopback only, until there is TLS. bank_root: the pinned root key, needed to pay.

        kem_id: seal for this suite instead of the best one that the bank's list holds. status_command: what texts
        tell the customer to type. encoder_argv: how the encoder child is started. capture: takes down all that is
        sent and received, passcodes too; whoever made it closes it.
        Raises BadRoot, AddressError.
        """
        _check_thread()
        parse_host_port(gateway)
        self._gateway = gateway
        self._root = parse_root(bank_root) if isinstance(bank_root, str) else bank_root
        self._kem_id = kem_id
        self._clock = clock
        self._status_command = status_command
        self._encoder_argv = encoder_argv
        self._capture = capture
        self._randomness = random.Random(int.from_bytes(os.urandom(8)))
        self._transaction_id = ""
        self.store = PendingStore(Path(state_dir))
        """The payments on disk; `query` makes the directory."""
        self.loop = Loop()
        """What everything runs in; a program may watch descriptors of its own with it."""
        self._session: Session | None = None
        self._is_closed = False
        self._alarm = make_alarm(self.loop, self._time_up)

    def __enter__(self) -> "PaygateClient":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs and free everything; twice is harmless. A payment that was sent can be asked for later."""
        if self._is_closed:
            return
        self._is_closed = True
        self._end_session()
        self._alarm.close()
        self.loop.close()

    # -- paying ----------------------------------------------------------------------------------------

    def query(self, transaction_id: str, passcode: str) -> TokenAnswer:
        """R1, R2: ask for a token, and open its session if it is valid.

        Raises SessionFailed if the gateway can't be reached or the bank's keys can't be trusted; ValueError for
        an ID or passcode that no token can have; StateError if the state directory can't be made or used.
        """
        self._check_use()
        for name, field, value in (
            ("transaction ID", IDENTIFIER, transaction_id),
            ("passcode", PASSCODE, passcode),
        ):
            if not field.is_legal(value):
                raise ValueError(f"{name}: expected {field.expected}")
        if self._root is None:
            raise PaygateExit("the bank's root key is needed to pay", ExitCode.USAGE)
        self.store.create()
        self._end_session()
        self._transaction_id = transaction_id
        core = Core(
            root=self._root,
            gateway=self._gateway,
            transaction_id=transaction_id,
            passcode=passcode,
            serial_min=self.store.serial_min(self._root),
            randomness=self._randomness,
            kem_id=self._kem_id,
            status_command=self._status_command,
        )
        session = self._start(core, self._gateway, self._encoder_argv)
        while not session.is_over and core.state is not State.ACKNOWLEDGED:
            session.run_once()
        return self._token_answer(core)

    def pay(
        self,
        user_id: str,
        password: str,
        *,
        on_sending: Callable[[], None] | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> PaymentResult:
        """R3, R4: seal the credentials for the bank, send them, and wait for an answer or the session's end.

        `on_sending` is called once, just before the payment is written down and sent: from then on it can't be
        cancelled, and a program holds its signals (R11). `on_wait` is called several times a second meanwhile.
        Raises BadInput for a user ID or password that can't be sent (the session goes on), LocalProtocolError
        without a valid `query` before. A session that is over gives its result.
        """
        self._check_use()
        session = self._session
        if session is None:
            raise LocalProtocolError("pay needs a valid query before")
        if not session.is_over:
            session.on_sending = on_sending
            now = self._clock()
            payment_id = make_payment_id(now.wall_ms, os.urandom(RANDOMNESS_SIZE))
            session.feed(session.core.authorise(user_id, password, payment_id, now))
        return self._finish(session, on_wait)

    def cancel(self) -> PaymentResult:
        """The customer gives up before `pay`. Nothing was sent."""
        self._check_use()
        if self._session is None:
            raise LocalProtocolError("there is no session to cancel")
        if not self._session.is_over:
            self._session.feed(self._session.core.cancel(self._clock()))
        return self._finish(self._session, None)

    @property
    def result(self) -> PaymentResult | None:
        """How the session ended; None while it runs or when there was none."""
        return self._session.core.result if self._session else None

    @property
    def session_left_ms(self) -> int:
        """Time left of the session; 0 if there is none or it is over."""
        end_ms = self._session.session_end_ms if self._session and not self._session.is_over else None
        return max(0, end_ms - self._clock().mono_ms) if end_ms is not None else 0

    def run_once(self, timeout_ms: int | None = None) -> None:
        """Let the session live while a program waits for something of its own: one tick of `loop`."""
        self._check_use()
        if self._session is None:
            self.loop.run_once(timeout_ms)
        else:
            self._session.run_once(timeout_ms)

    # -- afterwards ------------------------------------------------------------------------------------

    def status(self, payment_id: bytes, *, gateway: str | None = None) -> PaymentResult:
        """Ask what became of an earlier payment, and write it down. It moves no money.

        Asks the gateway and trusts the root key that the payment was made with; `gateway`: ask at this address. A
        payment that is settled is answered from its own record, whose receipt is checked again.
        Raises PaygateExit(USAGE) for an unknown payment, StateError for a record that was changed or a state
        directory that is not there, AddressError.
        """
        self._check_use()
        payment = self.store.load(payment_id)
        result = self._proven_by_another(payment)
        return result or self._ask(Core.question, payment, gateway, None)

    def retry(
        self, payment_id: bytes, *, gateway: str | None = None, on_wait: Callable[[], None] | None = None
    ) -> PaymentResult:
        """Go on with a payment that a crash cut off: ask, and send the very same bytes again if it got lost.

        That is safe however often (T1): payment ID, terms and envelope are those of the first time, so it is posted
        once at most. After its session no gateway takes it any more; then this is `status`. It lasts 30 seconds at
        most, and a program holds its signals meanwhile (R11). Raises as `status` does.
        """
        self._check_use()
        payment = self.store.load(payment_id)
        if payment.credentials(self._clock().wall_ms) is None:
            return self.status(payment_id, gateway=gateway)
        return self._proven_by_another(payment) or self._ask(Core.again, payment, gateway, on_wait)

    def payments(self, *, open_only: bool = False, on_damaged: OnDamaged | None = None) -> list[Payment]:
        """The payments on disk, oldest first. Raises StateError.

        `open_only`: those that were sent and have no receipt, a refused one for a day (`Payment.is_open`).
        `on_damaged` is told of each record that can't be read, which is then left out; without it the first one
        raises, so that nobody takes some payments for all.
        """
        self._check_use()
        now_wall_ms = self._clock().wall_ms
        return [p for p in self.store.load_all(on_damaged) if not open_only or p.is_open(now_wall_ms)]

    def open_payments(self, transaction_id: str, *, on_damaged: OnDamaged | None = None) -> list[Payment]:
        """Earlier payments of this token that were sent and have no receipt, as `payments`. Raises StateError."""
        self._check_use()
        now_wall_ms = self._clock().wall_ms
        payments = self.store.load_of_token(transaction_id, on_damaged)
        return [p for p in payments if p.is_open(now_wall_ms) and self._root in (None, p.root)]

    def forget_envelopes(self) -> None:
        """Take out of the records what a crash left in them for `retry`, once its session is over. Raises StateError.

        The program does it at each start; whoever uses the library does it at theirs.
        """
        self._check_use()
        self.store.forget_envelopes(self._clock().wall_ms)

    def save_receipt(self, payment_id: bytes, path: Path | None = None) -> Path:
        """Write the receipt of a paid or declined payment as a file that stands alone, and give its path.

        `path`: a file that is not there yet; by default it is kept in the state directory.
        Raises StateError, PaygateExit if `path` can't be written (nothing is left there) or there is no receipt.
        """
        self._check_use()
        payment = self.store.load(payment_id)
        data = receipt_file_text(payment)
        if path is None:
            return self.store.save_receipt(payment, data)
        try:
            write_new_file(path, data)
        except OSError as error:
            raise PaygateExit(f"could not write the receipt to {path}: {error.strerror}", ExitCode.BAD_STATE) from None
        return path

    @staticmethod
    def verify(path: str | Path, bank_root: str | BankRoot) -> ReceiptStatement:
        """Check a receipt file offline: what the bank states in it. Raises ReceiptFileError, BadRoot."""
        root = parse_root(bank_root) if isinstance(bank_root, str) else bank_root
        return verify_receipt_file(Path(path), root)

    # -- inside ----------------------------------------------------------------------------------------

    def _check_use(self) -> None:
        _check_thread()
        if self._is_closed:
            raise LocalProtocolError("the client is closed; make another")

    def _ask(
        self,
        make_core: Callable[..., Core],
        payment: Payment,
        gateway: str | None,
        on_wait: Callable[[], None] | None,
    ) -> PaymentResult:
        self._end_session()
        core = make_core(
            payment,
            serial_min=self.store.serial_min(payment.root),
            randomness=self._randomness,
            status_command=self._status_command,
        )
        return self._finish(self._start(core, gateway or payment.gateway, None), on_wait)

    def _proven_by_another(self, payment: Payment) -> PaymentResult | None:
        """What a receipt that this client has for another payment of the token proves of an open one."""
        if payment.is_settled:
            return None
        try:
            # A damaged record proves nothing.
            others = self.store.load_of_token(payment.terms.transaction_id, on_damaged=lambda _: None)
        except StateError:
            return None  # A directory that can't be read is no reason not to ask.
        result = settled_by(payment, others)
        if result is not None:
            self.store.save(payment.after(result, self._clock().wall_ms))
        return result

    def _start(self, core: Core, gateway: str, encoder_argv: Sequence[str] | None) -> Session:
        address = parse_host_port(gateway)
        self._session = Session(
            self.loop,
            core,
            self.store,
            address,
            self._alarm,
            self._clock,
            encoder_argv=encoder_argv,
            capture=self._capture,
        )
        return self._session

    def _finish(self, session: Session, on_wait: Callable[[], None] | None) -> PaymentResult:
        while not session.is_over:
            if on_wait is not None:
                on_wait()
            session.run_once(WAIT_TICK_MS)
        result = session.core.result
        assert result is not None
        return result

    def _token_answer(self, core: Core) -> TokenAnswer:
        token, result = core.token, core.result
        told = (None, Outcome.TOKEN_REFUSED, Outcome.ALREADY_PAID)
        if token is None or (result.outcome if result else None) not in told:
            assert result is not None
            raise SessionFailed(result)
        return TokenAnswer(
            status=token.status,
            transaction_id=self._transaction_id,
            merchant_id=token.merchant_id,
            merchant_name=token.merchant_name,
            amount_minor=token.amount_minor,
            currency=token.currency,
            gateway_id=token.gateway_id,
            bank_id=token.bank_id,
            utr=token.utr,
            session_left_ms=token.session_left_ms,
            text=result.text if result else "",
        )

    def _time_up(self) -> None:
        if self._session is not None:
            self._session.time_up()

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _check_thread() -> None:
    # Nothing of ours knows threads, so the interpreter is asked: it takes signal handlers from the main thread only.
    # Nobody can set SIGKILL's, so nothing changes; OSError comes from the system, and a wrong thread is told before.
    try:
        signal.signal(signal.SIGKILL, signal.SIG_DFL)
    except OSError:
        return
    except ValueError:
        raise LocalProtocolError("use the client from the main thread: only that may start the encoder") from None
