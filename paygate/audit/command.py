"""The commands `audit` and `export-payments` as far as both servers' are the same."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import apsw

from paygate.audit.exports import ExportedPayment, ExportHeader, Side, read_export
from paygate.audit.findings import Check, Finding, all_findings, check_of, report_lines
from paygate.audit.reconcile import Reconciliation
from paygate.cli import ExitCode, PaygateExit
from paygate.codec.errors import RemoteProtocolError
from paygate.codec.record_codec import decode_record
from paygate.codec.sealed import KeyList, SignedKeyList
from paygate.files.backup_folder import check_backup, is_backup
from paygate.files.sqlite import open_to_read, reading
from paygate.files.state_dir import StateDir, StateError

EPILOG = (
    f"exit codes: {ExitCode.OK} nothing is wrong · {ExitCode.FINDINGS} something is, as printed · "
    f"{ExitCode.STATE_IN_USE} a server runs · {ExitCode.BAD_STATE} the store can't be opened at all"
)


def add_audit_options(parser: argparse.ArgumentParser, other: Side) -> None:
    """What `audit` takes; `other` is the side whose export may be compared."""
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="one JSON object a check, one a line")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help=f"compare payment by payment with this export: 'paygate-{other} export-payments' writes it",
    )


@contextlib.contextmanager
def store_to_read(state_path: Path, name: str, *, application_id: int, version: int) -> Iterator[apsw.Connection]:
    """The store of a state directory that no server uses meanwhile, or of a backup; nothing of it is changed.

    Raises PaygateExit.
    """
    state = StateDir(state_path)
    # No server uses a backup, and a lock would be one file more in it.
    if not is_backup(state_path) and not state.try_lock():
        raise PaygateExit(
            f"a server runs on {state_path}: stop it (SIGTERM); while it runs, 'backup' checks every row of its copy",
            ExitCode.STATE_IN_USE,
        )
    try:
        connection = open_to_read(state_path / name, application_id=application_id, version=version)
        try:
            with reading(connection):
                yield connection
        finally:
            connection.close()
    finally:
        state.close()


def with_files(
    state_path: Path, kind: str, checks: Sequence[Check], record_checks: Callable[[], Iterable[Check]]
) -> list[Check]:
    """The checks of a store, and those of what is beside it: its text records; of a backup, that all is as written."""
    if is_backup(state_path):
        records = Check("text records", 0, "none in a backup: a restore makes them anew")
        return [_files_check(state_path, kind), *checks, records]
    if all_findings(checks):
        return [*checks, Check("text records", 0, "not looked at, since the database is damaged")]
    return [*checks, *record_checks()]


def _files_check(folder: Path, kind: str) -> Check:
    name = "files of the backup"
    try:
        manifest = check_backup(folder, kind)
    except StateError as error:
        finding = Finding(folder.name, "backup", "", f"does not hold: {error}", "what was written", "do not restore it")
        return Check(name, 0, "", (finding,))
    made = f"made {manifest['made']}, {'with' if manifest['has_keys'] else 'without'} keys"
    return Check(name, len(manifest["sha256"]), "each as it was written", remarks=(made,))


def compare(
    own: ExportHeader, payments: Sequence[ExportedPayment], path: Path, key_list: KeyList | None
) -> Iterator[Check]:
    """Our payments against the export of the other side. A bank gives its key list; a gateway takes the export's.

    Raises PaygateExit for a file that is no such export.
    """
    other: Side = "gateway" if own.side == "bank" else "bank"
    header, others = read_export(path, other)
    if (header.bank_id, header.gateway_id) != (own.bank_id, own.gateway_id):
        raise PaygateExit(
            f"{path} is of bank {header.bank_id} and gateway {header.gateway_id}, not of {own.bank_id} and "
            f"{own.gateway_id}: export it from the right state directory",
            ExitCode.USAGE,
        )
    if key_list is None:
        key_list = key_list_of(path, header)
    at_bank, at_gateway = (payments, others) if own.side == "bank" else (others, payments)
    reconciliation = Reconciliation(at_bank, at_gateway, key_list)
    found = list(reconciliation.findings())
    yield check_of(
        f"payments against {path.name}",
        "both sides say the same",
        found,
        lambda: reconciliation.count,
        reconciliation.remarks,
    )


def key_list_of(path: Path, header: ExportHeader) -> KeyList:
    """The bank's key list in its export. Raises PaygateExit."""
    try:
        return decode_record(KeyList, decode_record(SignedKeyList, header.signed_key_list).key_list)
    except RemoteProtocolError:
        raise PaygateExit(f"{path}, line 1: expected the bank's key list; export it again", ExitCode.USAGE) from None


def tell(checks: Sequence[Check], *, as_json: bool) -> ExitCode:
    """Print what an audit came to; gives the program's exit code."""
    for line in report_lines(checks, as_json=as_json):
        sys.stdout.write(f"{line}\n")
    found = all_findings(checks)
    if not as_json:
        sys.stdout.write(f"{len(found)} findings\n" if found else "nothing is wrong\n")
    return ExitCode.FINDINGS if found else ExitCode.OK
