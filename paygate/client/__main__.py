"""The program `paygate-client`."""

import argparse
import sys

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
        is_all = options.payment == "all"
        _forget_envelopes(client)
        asked = client.payments(open_only=True) if is_all else [client.store.load(options.payment)]
        _refuse_other_roots(asked, options)
        if not asked and not options.json:
            put("No payment waits for an outcome. What `list` does not show was never sent, so it moved no money.")
        results = [_ask(client, payment, options, is_one_of_all=is_all) for payment in asked]
    return _gravest(results)


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
        with hold_signals():  # R11: a payment is under way.
            result = client.retry(payment.payment_id, gateway=options.gateway)
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


def _ask(client: PaygateClient, payment: Payment, options: argparse.Namespace, *, is_one_of_all: bool) -> PaymentResult:
    result = client.status(payment.payment_id, gateway=options.gateway)
    is_no_news = is_one_of_all and payment.state is PaymentState.REFUSED and result.outcome is Outcome.REFUSED
    _tell(client, payment, result, options, refusal_text(payment, system_now().wall_ms) if is_no_news else "")
    return result


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


def _gravest(results: list[PaymentResult]) -> int:
    """The exit code of the gravest outcome, money in doubt first; 0 when all that was asked for is paid."""
    gravest = (Outcome.UNTRUSTED, Outcome.UNKNOWN, Outcome.NO_CONNECTION, Outcome.REFUSED, Outcome.DECLINED)
    codes = {result.outcome.exit_code for result in results}
    return next((outcome.exit_code for outcome in gravest if outcome.exit_code in codes), ExitCode.OK)


def _list(options: argparse.Namespace) -> int:
    with PaygateClient(state_dir=options.state) as client:
        payments = client.payments()
    for payment in payments:
        if options.json:
            put_json(payment_fields(payment))
        else:
            put(payment_text(payment))
    return ExitCode.OK


def _receipts(options: argparse.Namespace) -> int:
    """Every payment with the bank's receipt, and the file it is in; made from the payment's record if there is none."""
    with PaygateClient(state_dir=options.state) as client:
        for payment in client.payments():
            if not payment.receipt:
                continue
            path = client.store.receipt_path(payment)
            if not path.exists():
                client.save_receipt(payment.payment_id)
            if options.json:
                put_json(receipt_fields(payment, path))
            else:
                put(receipt_text(payment, path))
    return ExitCode.OK


def _verify(options: argparse.Namespace) -> int:
    statement = PaygateClient.verify(options.file, read_root(options.bank_root))
    if options.json:
        put_json(statement_fields(statement))
    else:
        put(statement_text(statement))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
