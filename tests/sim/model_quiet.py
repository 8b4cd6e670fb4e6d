"""What is left of a run that has come to rest: nothing that grows (I10), stores that open again and balance (I8)."""

from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

from builders import RECEIPT_KEY, build_key_list
from disk_model import Image
from memory_disk import MemoryDisk
from sim.invariants import Invariant, Violation

from paygate.audit.findings import Finding, all_findings
from paygate.audit.reconcile import Reconciliation
from paygate.bank.sqlite_ledger import SqliteLedger
from paygate.files.sqlite import StoreError
from paygate.gateway.sqlite_tokens import SqliteTokens

HANDLE_COUNT_MAX = 2
"""A database and its write-ahead log."""
_BANK_TABLES = ("_awaited", "_decoding", "_under_way", "_resolves")
_SESSION_TABLES = ("_sessions", "_order", "_ids_of")
_FLIGHT_TABLES = ("_flights", "_due", "_due_ms")
_LINK_TABLES = ("_links", "_reasons", "_touched", "_armed")


def check_quiet(bank: Any, gateways: Iterable[Any]) -> None:
    """I10 for all servers' machines of a run."""
    check_bank_core(bank.process.core, len(bank.process._connections))
    for gateway in gateways:
        check_gateway_core(gateway.name, gateway.process.core, len(gateway.process._connections))
    for machine in (bank, *gateways):
        check_disk(machine.name, machine.disk)


def check_audit(bank: Any, gateways: Iterable[Any]) -> None:
    """I8 for all servers' machines of a run: each store's audit, and the two sides of every payment held together."""
    key_list = build_key_list()  # all of a run's lists have its receipt key
    check_opens_again(bank.name, bank.disk.files, bank.store)
    refuse_findings(bank.name, all_findings(bank.store.audit(key_list)))
    for gateway in gateways:
        check_opens_again(gateway.name, gateway.disk.files, None)
        refuse_findings(gateway.name, all_findings(gateway.store.audit()))
        at_bank, at_gateway = bank.store.exported_payments(gateway.name), gateway.store.exported_payments()
        both = Reconciliation(at_bank, at_gateway, key_list)
        refuse_findings(f"{bank.name} and {gateway.name}", list(both.findings()))


def refuse_findings(name: str, findings: Sequence[Finding]) -> None:
    """I8: an audit that found something."""
    if findings:
        raise Violation(Invariant.I8, f"the audit of {name} has {len(findings)} findings; the first: {findings[0]}")


def check_bank_core(core: Any, connection_count: int) -> None:
    """I10: nothing waits, and there is a link for each connection and no more."""
    _check_empty("the bank", core, _BANK_TABLES)
    _check_links("the bank", core, connection_count)
    if len(core._failed) > connection_count:
        raise Violation(Invariant.I10, "the bank remembers failed links that are gone")


def check_gateway_core(gateway_id: str, core: Any, connection_count: int) -> None:
    """I10: no session, no flight, and nobody who waits."""
    _check_empty(f"gateway {gateway_id}'s sessions", core._sessions, _SESSION_TABLES)
    _check_empty(f"gateway {gateway_id}'s flights", core._flights, _FLIGHT_TABLES)
    _check_empty(f"gateway {gateway_id}'s clients", core._clients, ("_awaited",))
    _check_links(f"gateway {gateway_id}", core, connection_count)
    if len(core._client_addresses) > connection_count:
        raise Violation(Invariant.I10, f"gateway {gateway_id} remembers addresses of clients that are gone")


def check_disk(name: str, disk: MemoryDisk) -> None:
    """I10: no file is open twice."""
    if len(disk._handles) > HANDLE_COUNT_MAX:
        raise Violation(Invariant.I10, f"{name} has {len(disk._handles)} files open")


def check_opens_again(name: str, files: dict[str, bytes], ledger: SqliteLedger | None) -> None:
    """I8: the files as they lie there open, and every chain, balance and counter in them holds.

    `ledger`: the one that has them open, if they are the bank's.
    """
    disk = MemoryDisk(f"{name}-looked-at", Image.of(files))
    path = Path(next(file for file in files if not file.endswith("-wal")))
    try:
        if ledger is None:
            SqliteTokens(path, vfs=disk.name).close()
        else:
            SqliteLedger(path, ledger._identity, RECEIPT_KEY, vfs=disk.name).close()
    except StoreError as error:
        raise Violation(Invariant.I8, f"{name}'s store does not open again: {error}") from None
    finally:
        disk.close()


def _check_links(name: str, core: Any, connection_count: int) -> None:
    for table in _LINK_TABLES:
        if len(getattr(core._links, table)) > connection_count:
            text = f"{name} keeps {len(getattr(core._links, table))} of its links' {table}"
            raise Violation(Invariant.I10, f"{text}, and has {connection_count} connections")


def _check_empty(name: str, holder: Any, tables: tuple[str, ...]) -> None:
    for table in tables:
        held: Sized = getattr(holder, table)
        if len(held):
            raise Violation(Invariant.I10, f"all is quiet, and {name} still holds {len(held)} of {table}")
