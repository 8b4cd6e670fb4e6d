"""Bugs that a program can be launched with, to see that the campaign finds them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import apsw
from crash.hooks import replace


def reply_before_commit(program: str) -> None:
    """The bank answers from a transaction that it commits only with the next one."""
    if program != "bank":
        return
    open_since: list[apsw.Connection] = []

    def wrap(_real: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def transaction(connection: apsw.Connection) -> Iterator[None]:
            if connection.in_transaction:
                connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            yield
            if open_since:
                return
            # The first one is a start's check, which changes nothing.
            connection.execute("COMMIT")
            open_since.append(connection)

        return transaction

    def commit_at_close(real: Callable[..., Any]) -> Callable[..., Any]:
        def close(self: Any) -> None:
            for connection in open_since:
                if connection.in_transaction:
                    connection.execute("COMMIT")
            real(self)

        return close

    replace("paygate.files.sqlite:transaction", wrap)
    replace("paygate.bank.sqlite_ledger:SqliteLedger.close", commit_at_close)


def release_without_asking(program: str) -> None:
    """The gateway's restart forgets payments in flight, so their tokens can be paid again."""
    if program == "gateway":
        replace("paygate.gateway.token_tables:TokenTables.flights", lambda _real: lambda _self: iter(()))


def send_before_saving(program: str) -> None:
    """The client sends the credentials without having written the payment down."""
    if program == "client":
        replace(
            "paygate.client.pending:PendingStore.save",
            lambda real: lambda self, payment: real(self, payment) if payment.is_settled else None,
        )


def other_payer_on_record(program: str) -> None:
    """The bank writes somebody else beside a UTR in TransactionID.txt."""
    if program == "bank":
        replace("paygate.bank.records:transaction_row", lambda real: lambda posting: _by_another(real(posting)))


def _by_another(row: tuple[str, ...]) -> tuple[str, ...]:
    return row[0], f"{row[1]}0", *row[2:]


MUTANTS: Final[dict[str, Callable[[str], None]]] = {
    "reply-before-commit": reply_before_commit,
    "release-without-asking": release_without_asking,
    "send-before-saving": send_before_saving,
    "other-payer-on-record": other_payer_on_record,
}
"""By name. Each is called in every program that is launched with it, and changes the one that it is about."""
