"""`paygate-bank audit` and `paygate-bank export-payments`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from paygate.arguments import identifier
from paygate.audit.command import add_audit_options, compare, store_to_read, tell, with_files
from paygate.audit.exports import ExportHeader, read_export, write_export
from paygate.audit.findings import all_findings
from paygate.bank.audit import LEDGER_NAME, audit_ledger, ledger_payments
from paygate.bank.backup import KIND
from paygate.bank.keys import gateway_ids, load_identity, load_key_list, load_signed_key_list
from paygate.bank.ledger_tables import MADE_AS
from paygate.bank.record_audit import record_checks
from paygate.cli import ExitCode, PaygateExit


def add_audit_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Make both known to the command line."""
    audit = add(
        "audit",
        _audit,
        "Check the ledger and records of a stopped bank, or a backup (--state FOLDER), row by row; changes nothing.",
    )
    add_audit_options(audit, "gateway")
    export = add("export-payments", _export, "Write a gateway's payments for its audit: no customer is named.")
    export.add_argument("--gateway", required=True, type=identifier, metavar="ID", help="whose payments")
    export.add_argument("file", type=Path, metavar="FILE", help="where to write them (JSON lines)")


def _audit(options: argparse.Namespace) -> int:
    identity, key_list = load_identity(options.state), load_key_list(options.state)
    with store_to_read(options.state, LEDGER_NAME, **MADE_AS) as connection:
        of_ledger = audit_ledger(connection, identity, key_list)
        checks = with_files(
            options.state, KIND, of_ledger, lambda: record_checks(options.state, connection, identity.currency)
        )
        if options.against is not None and not all_findings(of_ledger):
            gateway_id = read_export(options.against, "gateway")[0].gateway_id
            header = ExportHeader("bank", identity.bank_id, gateway_id)
            checks += compare(header, list(ledger_payments(connection, gateway_id)), options.against, key_list)
    return tell(checks, as_json=options.json)


def _export(options: argparse.Namespace) -> int:
    identity, signed_key_list = load_identity(options.state), load_signed_key_list(options.state)
    if options.gateway not in gateway_ids(options.state):
        raise PaygateExit(f"--gateway: there is no gateway {options.gateway}; add-gateway made others", ExitCode.USAGE)
    with store_to_read(options.state, LEDGER_NAME, **MADE_AS) as connection:
        header = ExportHeader("bank", identity.bank_id, options.gateway, signed_key_list)
        write_export(options.file, header, ledger_payments(connection, options.gateway))
    return ExitCode.OK
