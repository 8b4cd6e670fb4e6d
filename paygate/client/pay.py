"""`paygate-client pay`: from the token to the receipt, on a terminal or without one (R1-R3, R7, R10, R11)."""

import argparse
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from paygate.arguments import capturing
from paygate.cli import ExitCode, PaygateExit
from paygate.client.args import PASSWORD_FILE_VARIABLE
from paygate.client.client import STATE_DIR_DEFAULT, PaygateClient, SessionFailed, TokenAnswer
from paygate.client.order import BadInput
from paygate.client.payment import Outcome, PaymentResult
from paygate.client.receipt_file import check_can_be_written
from paygate.client.root import read_root
from paygate.client.secret_input import read_line_from_fd, read_line_from_file
from paygate.client.show import complain, earlier_text, put, put_json, result_fields, token_text
from paygate.client.terminal import Terminal
from paygate.client.verdict import NOTHING_SENT
from paygate.codec.codes import KemId
from paygate.codec.fields import IDENTIFIER
from paygate.escape import escape_line
from paygate.files.state_dir import StateError
from paygate.hardening import protect_process
from paygate.net.signals import Alarm, hold_signals

PROGRAM: Final = "paygate-client"
_STDIN: Final = 0


def status_command(state: Path) -> str:
    """What a customer types to ask again."""
    default = Path(STATE_DIR_DEFAULT)
    return "paygate-client status" + ("" if state == default else f" --state {shlex.quote(str(state))}")


def pay(options: argparse.Namespace) -> int:
    """Run the command. Raises PaygateExit, EndedBySignal."""
    protect_process()  # T20: the password is typed into this process
    root = read_root(options.bank_root)
    if options.receipt is not None:
        _check_receipt_path(options.receipt)
    with (
        _terminal_fd() as fd,
        capturing(options.capture, PROGRAM) as capture,
        PaygateClient(
            options.gateway,
            bank_root=root,
            state_dir=options.state,
            kem_id=KemId[options.kem] if options.kem else None,
            make_alarm=Alarm,
            status_command=status_command(options.state),
            capture=capture,
        ) as client,
    ):
        terminal = None if fd is None else Terminal(fd, client.loop)
        return _Pay(options, client, terminal).run()


class _Pay:
    """One payment at the command line."""

    def __init__(self, options: argparse.Namespace, client: PaygateClient, terminal: Terminal | None) -> None:
        self._options = options
        self._client = client
        self._terminal = terminal
        self._token: TokenAnswer | None = None

    def run(self) -> int:
        """Ask, pay, tell."""
        # Before there is a session, so that a descriptor that nobody writes to costs none of its time.
        passcode, password = _given_secrets(self._options)
        if self._terminal is None:
            self._refuse_gaps(passcode, password)
        self._client.store.create()  # before anybody types for a state that can't be used
        with self._terminal.quiet() if self._terminal else nullcontext(), ExitStack() as held:
            try:
                result = self._pay(passcode, password, held)
            except KeyboardInterrupt:
                # Only before sending: from then on SIGINT is ignored (R11).
                result = PaymentResult(Outcome.CANCELLED, f"Cancelled. {NOTHING_SENT}")
            except SessionFailed as error:
                result = error.result
            # Inside, since a signal that was held may end us as soon as it is let go.
            return self._tell(result)

    def _pay(self, passcode: str | None, password: str | None, held: ExitStack) -> PaymentResult:
        client, options = self._client, self._options
        transaction_id = options.transaction or self._ask("Transaction ID: ")
        if transaction_id and not IDENTIFIER.is_legal(transaction_id):
            # Told before a passcode is typed for nothing.
            raise PaygateExit(f"transaction ID: expected {IDENTIFIER.expected}", ExitCode.USAGE)
        if transaction_id:
            self._tell_earlier(transaction_id)
        if transaction_id and not passcode:
            passcode = self._ask("Passcode: ", is_hidden=True)
        if not transaction_id or not passcode:
            return PaymentResult(Outcome.CANCELLED, f"Cancelled. {NOTHING_SENT}")
        try:
            token = self._token = client.query(transaction_id, passcode)
        except ValueError as error:
            raise PaygateExit(str(error), ExitCode.USAGE) from None
        if not token.is_valid:
            assert client.result is not None
            return client.result
        self._say(token_text(token))
        user_id, password = self._credentials(password)
        if not user_id or not password:
            return client.cancel()  # or the session's own end, if its time was up
        try:
            return client.pay(
                user_id,
                password,
                on_sending=lambda: held.enter_context(hold_signals()),
                on_wait=partial(self._draw_countdown, "Paying ..."),
            )
        except BadInput as error:
            raise PaygateExit(str(error), ExitCode.USAGE) from None

    def _tell_earlier(self, transaction_id: str) -> None:
        """What a crash or a lost link left open of this token, before anybody pays it again."""
        damaged: list[StateError] = []
        try:
            self._client.forget_envelopes()
            earlier = self._client.open_payments(transaction_id, on_damaged=damaged.append)
        except StateError as error:
            complain(PROGRAM, str(error))  # Of a directory or a record that is not this payment's.
            return
        for trouble in damaged:
            complain(PROGRAM, str(trouble))
        for payment in earlier:
            text = earlier_text(payment, status_command(self._options.state))
            if self._terminal is not None:
                self._terminal.say(escape_line(text))
            else:
                complain(PROGRAM, text)

    def _credentials(self, password: str | None) -> tuple[str | None, str | None]:
        user_id = self._options.user
        if user_id and password and self._terminal and not self._options.yes:
            # Nobody has typed anything since the amount was shown.
            answer = self._ask("Pay this? [y/N] ")
            return (user_id, password) if (answer or "").strip().lower() in ("y", "yes") else (None, None)
        user_id = user_id or self._ask("User ID: ")
        if not user_id:
            return None, None
        return user_id, password or self._ask("Password: ", is_hidden=True)

    def _ask(self, prompt: str, *, is_hidden: bool = False) -> str | None:
        assert self._terminal is not None, "gaps were refused before"
        return self._terminal.ask(
            lambda: f"{self._countdown()}{prompt}",
            is_hidden=is_hidden,
            run_once=self._client.run_once,
            is_over=lambda: self._client.result is not None,
        )

    def _countdown(self) -> str:
        left_ms = self._client.session_left_ms
        return f"[{-(-left_ms // 1_000):>2} s] " if left_ms else ""

    def _draw_countdown(self, words: str) -> None:
        if self._terminal is not None:
            self._terminal.draw(f"{self._countdown()}{words}")

    def _say(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.say(text)
        elif not self._options.json:
            put(text)

    def _refuse_gaps(self, passcode: str | None, password: str | None) -> None:
        gaps = {
            "--transaction": self._options.transaction,
            "--passcode-fd or --passcode-file": passcode,
            "--user": self._options.user,
            "--password-fd or --password-file": password,
        }
        for flag, value in gaps.items():
            if not value:
                raise PaygateExit(f"there is no terminal to ask on: give {flag}", ExitCode.USAGE)

    def _tell(self, result: PaymentResult) -> int:
        if self._terminal is not None:
            self._terminal.end_line()
        path, trouble = None, ""
        if result.outcome is Outcome.PAID:
            path, trouble = self._save_receipt(result.payment_id)
        told = replace(result, text=f"{result.text} ({trouble})") if trouble else result
        if self._options.json:
            put_json(result_fields(told, token=self._token, receipt_file=path))
        elif path is not None:
            put(f"{escape_line(result.text)}\nReceipt: {escape_line(str(path))}")
        if path is None:
            complain(PROGRAM, told.text)
        elif trouble:
            complain(PROGRAM, trouble)
        return result.outcome.exit_code

    def _save_receipt(self, payment_id: bytes) -> tuple[Path | None, str]:
        """Where the receipt is, and what went wrong. Paid is paid: no trouble here changes the outcome."""
        troubles = []
        # R7: --receipt could be written before anything was sent; if it can't any more, the state can.
        for wanted in (self._options.receipt, None) if self._options.receipt else (None,):
            try:
                path = self._client.save_receipt(payment_id, wanted)
            except PaygateExit as error:
                troubles.append(str(error))
            else:
                return path, f"{'; '.join(troubles)}; it is in {path} instead" if troubles else ""
        return None, f"{'; '.join(troubles)}; the payment's record holds it, and `receipts` writes it from there"


def _check_receipt_path(path: Path) -> None:
    """Raises PaygateExit(USAGE): now nothing was sent, and later it would be too late to give another name."""
    try:
        check_can_be_written(path)
    except FileExistsError:
        raise PaygateExit(f"--receipt {path}: the file exists; give another name", ExitCode.USAGE) from None
    except OSError as error:
        raise PaygateExit(f"--receipt {path}: could not write there: {error.strerror}", ExitCode.USAGE) from None


def _given_secrets(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Passcode and password as far as they were given without a prompt. Raises PaygateExit."""
    passcode = password = None
    if options.passcode_fd is not None:
        passcode = read_line_from_fd(options.passcode_fd, "--passcode-fd")
    elif options.passcode_file is not None:
        passcode = read_line_from_file(options.passcode_file, "--passcode-file")
    if options.password_fd is not None:
        password = read_line_from_fd(options.password_fd, "--password-fd")
    elif options.password_file is not None:
        password = read_line_from_file(options.password_file, "--password-file")
    elif options.password_file_default is not None:
        password = read_line_from_file(options.password_file_default, PASSWORD_FILE_VARIABLE)
    return passcode, password


@contextmanager
def _terminal_fd() -> Iterator[int | None]:
    """A descriptor of the customer's terminal, if stdin is one: our own, since stdin may be open for reading only."""
    if not os.isatty(_STDIN):
        yield None
        return
    try:
        fd = os.open(os.ttyname(_STDIN), os.O_RDWR | os.O_NOCTTY)
    except OSError:
        fd = os.dup(_STDIN)  # a terminal of another container has no name here
    try:
        yield fd
    finally:
        os.close(fd)
