"""`paygate-gateway audit` and `paygate-gateway export-payments`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from paygate.audit.command import add_audit_options, compare, store_to_read, tell, with_files
from paygate.audit.exports import ExportHeader, write_export
from paygate.audit.findings import all_findings
from paygate.cli import ExitCode
from paygate.files.state_dir import StateDir
from paygate.gateway.audit import audit_tokens, gateway_payments
from paygate.gateway.backup import KIND
from paygate.gateway.record_audit import record_checks
from paygate.gateway.settings import STORE_NAME, read_ids
from paygate.gateway.token_schema import MADE_AS


def add_audit_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Make both known to the command line."""
    audit = add(
        "audit",
        _audit,
        "Check the store and records of a stopped gateway, or a backup (--state FOLDER), row by row; changes nothing.",
    )
    add_audit_options(audit, "bank")
    export = add("export-payments", _export, "Write all payments for the bank's audit: no passcode is in it.")
    export.add_argument("file", type=Path, metavar="FILE", help="where to write them (JSON lines)")


def _header(state_path: Path) -> ExportHeader:
    gateway_id, bank_id = read_ids(StateDir(state_path))
    return ExportHeader("gateway", bank_id, gateway_id)


def _audit(options: argparse.Namespace) -> int:
    header = _header(options.state)
    with store_to_read(options.state, STORE_NAME, **MADE_AS) as connection:
        of_store = audit_tokens(connection)
        checks = with_files(options.state, KIND, of_store, lambda: record_checks(options.state, connection))
        if options.against is not None and not all_findings(of_store):
            checks += compare(header, list(gateway_payments(connection)), options.against, None)
    return tell(checks, as_json=options.json)


def _export(options: argparse.Namespace) -> int:
    header = _header(options.state)
    with store_to_read(options.state, STORE_NAME, **MADE_AS) as connection:
        write_export(options.file, header, gateway_payments(connection))
    return ExitCode.OK
