"""The program `paygate-client`."""

import argparse
import sys
from dataclasses import replace
from typing import Final

from paygate.arguments import capturing
from paygate.cli import ExitCode, PaygateExit, run
from paygate.client.args import parser
from paygate.client.client import PaygateClient
from paygate.client.pay import PROGRAM, pay, status_command
from paygate.client.payment import Outcome, Payment, PaymentResult, PaymentState
from paygate.client.root import read_root
from paygate.client.show import (
    complain,
    payment_fields,
    payment_text,
    put,
    put_json,
    receipt_fields,
    receipt_text,
    refusal_text,
    result_fields,
    statement_fields,
    statement_text,
)
from paygate.client.terminal import EndedBySignal
from paygate.clock import system_now
from paygate.escape import escape_line
from paygate.files.state_dir import StateError
from paygate.net.signals import Alarm, hold_signals

_NONE_WAITS: Final = "No payment waits for an outcome. What `list` does not show was never sent, so it moved no money."
_NONE_OF_THE_OTHERS_WAITS: Final = "No payment whose record could be read waits for an outcome."
_GRAVEST_FIRST: Final = (
    ExitCode.INTERNAL,
    ExitCode.UNTRUSTED,
    ExitCode.BAD_STATE,
    ExitCode.OUTCOME_UNKNOWN,
    ExitCode.NO_CONNECTION,
    ExitCode.REFUSED,
    ExitCode.DECLINED,
    ExitCode.USAGE,
    ExitCode.OK,
)
"""The exit code of `status all` is the first of these that any payment has: what asking again does not mend, money in
doubt, and OK when all that was asked for is paid."""


def main() -> int:
    """The console script: parses the command line, runs the command, gives the exit code."""
    options = parser().parse_args()
    try:
        return run(PROGRAM, lambda: _command(options))
    except EndedBySignal as ended:
        ended.die()
        raise  # The signal is blocked or ignored by whoever started us; then this ends us.


def _command(options: argparse.Namespace) -> int:
    commands = {
        "pay": pay,
        "status": _status,
        "retry": _retry,
        "list": _list,
        "receipts": _receipts,
        "verify": _verify,
    }
    return commands[options.command](options)


def _status(options: argparse.Namespace) -> int:
    """Asks for one payment, or for all that were sent and have no receipt."""
    with (
        capturing(options.capture, PROGRAM) as capture,
        PaygateClient(state_dir=options.state, status_command=status_command(options.state), capture=capture) as client,
    ):
        _forget_envelopes(client)
        if options.payment == "all":
            return _status_of_all(client, options)
        payment = client.store.load(options.payment)
        _refuse_other_roots([payment], options)
        return _ask(client, payment, options, is_one_of_all=False)


def _status_of_all(client: PaygateClient, options: argparse.Namespace) -> int:
    asked, code = _payments(client, open_only=True)
    _refuse_other_roots(asked, options)
    codes = {code}
    if not asked and not options.json:
        put(_NONE_WAITS if code is ExitCode.OK else _NONE_OF_THE_OTHERS_WAITS)
    for payment in asked:
        try:
            codes.add(_ask(client, payment, options, is_one_of_all=True))
        except PaygateExit as error:
            # What is wrong with one, such as its bank's serial file, keeps nobody from asking for the others.
            complain(PROGRAM, f"{payment.payment_id.hex()}: {error}")
            codes.add(error.code)
    return min(codes, key=_GRAVEST_FIRST.index)


def _retry(options: argparse.Namespace) -> int:
    """Goes on with a payment that a crash or a lost link cut off (PG-CLI-2)."""
    with (
        capturing(options.capture, PROGRAM) as capture,
        PaygateClient(
            state_dir=options.state,
            make_alarm=Alarm,
            status_command=status_command(options.state),
            capture=capture,
        ) as client,
    ):
        _forget_envelopes(client)
        payment = client.store.load(options.payment)
        _refuse_other_roots([payment], options)
        is_too_late = not payment.is_settled and payment.credentials(system_now().wall_ms) is None
        with hold_signals():  # R11: a payment is under way.
            result = client.retry(payment.payment_id, gateway=options.gateway)
            if is_too_late:
                # Whoever typed `retry` would otherwise believe that it was sent once more.
                text = f"Its session is over, so nothing was sent again and it was only asked for. {result.text}"
                result = replace(result, text=text)
            _tell(client, payment, result, options)
    return result.outcome.exit_code


def _forget_envelopes(client: PaygateClient) -> None:
    try:
        client.forget_envelopes()
    except StateError:
        client.store.check()  # A record that is damaged is told when it is asked for.


def _refuse_other_roots(payments: list[Payment], options: argparse.Namespace) -> None:
    root = read_root(options.bank_root) if options.bank_root else None
    for payment in payments:
        if root is not None and payment.root != root:
            which = f"payment {payment.payment_id.hex()}"
            raise PaygateExit(f"{which} was made with another root key than {options.bank_root}", ExitCode.UNTRUSTED)


def _payments(client: PaygateClient, *, open_only: bool = False) -> tuple[list[Payment], ExitCode]:
    """The payments on disk, and BAD_STATE if there is a record that can't be used; each such record is told."""
    damaged: list[StateError] = []
    payments = client.payments(open_only=open_only, on_damaged=damaged.append)
    for error in damaged:
        complain(PROGRAM, str(error))
    return payments, ExitCode.BAD_STATE if damaged else ExitCode.OK


def _ask(client: PaygateClient, payment: Payment, options: argparse.Namespace, *, is_one_of_all: bool) -> ExitCode:
    result = client.status(payment.payment_id, gateway=options.gateway)
    is_no_news = is_one_of_all and payment.state is PaymentState.REFUSED and result.outcome is Outcome.REFUSED
    _tell(client, payment, result, options, refusal_text(payment, system_now().wall_ms) if is_no_news else "")
    return result.outcome.exit_code


def _tell(
    client: PaygateClient, payment: Payment, result: PaymentResult, options: argparse.Namespace, text: str = ""
) -> None:
    """Show a result, with `text` in place of its own words, and see to its receipt."""
    path = None
    if result.outcome is Outcome.PAID:
        try:
            path = client.save_receipt(payment.payment_id)
        except PaygateExit as error:
            # Paid is paid; the receipt is in the payment's own record as well.
            complain(PROGRAM, str(error))
    if options.json:
        put_json(result_fields(result, payment=payment, receipt_file=path))
    else:
        put(f"{payment.payment_id.hex()}: {escape_line(text or result.text)}")
        if path is not None:
            put(f"Receipt: {escape_line(str(path))}")


def _list(options: argparse.Namespace) -> int:
    with PaygateClient(state_dir=options.state) as client:
        payments, code = _payments(client)
    for payment in payments:
        if options.json:
            put_json(payment_fields(payment))
        else:
            put(payment_text(payment))
    return code


def _receipts(options: argparse.Namespace) -> int:
    """Every payment with the bank's receipt, and the file it is in; made from the payment's record if there is none."""
    with PaygateClient(state_dir=options.state) as client:
        payments, code = _payments(client)
        for payment in payments:
            if not payment.receipt:
                continue
            path = client.store.receipt_path(payment)
            if not path.exists():
                client.save_receipt(payment.payment_id)
            if options.json:
                put_json(receipt_fields(payment, path))
            else:
                put(receipt_text(payment, path))
    return code


def _verify(options: argparse.Namespace) -> int:
    statement = PaygateClient.verify(options.file, read_root(options.bank_root))
    if options.json:
        put_json(statement_fields(statement))
    else:
        put(statement_text(statement))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
