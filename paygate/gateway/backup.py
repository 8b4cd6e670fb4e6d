"""A gateway's backup, and what is made of it (T5, R9).

    tokens.sqlite    tokens with their passcodes, payments with their receipts
    gateway.json     which gateway it is, and its bank
    link.key         only with the key: whoever has it can speak to the bank as this gateway

Of the text records none is in it: those of tokens and payments are made anew, and LogFiles.txt is a log.

A restored gateway takes tokens for unpaid that were paid since the backup. None is paid twice: the bank declines the
second payment, since it posts one payment of a token at most. What the bank has and the store does not, its export
brings back (`reconcile.py`).
"""

from pathlib import Path
from typing import Final

from paygate.audit.findings import all_findings
from paygate.clock import Now, utc_text
from paygate.files.backup_folder import check_backup, copy_files, copy_private, empty_state, make_backup, record_rows
from paygate.files.database_copy import BackupFailed, copy_store
from paygate.files.file_errors import unusable
from paygate.files.layout import FieldProblem
from paygate.files.sqlite import open_to_read
from paygate.files.state_dir import StateDir, StateError
from paygate.gateway.audit import audit_tokens
from paygate.gateway.bank_trouble import LINK_KEY_NAME
from paygate.gateway.record_lines import TOKENS_LAYOUT, parse_token
from paygate.gateway.settings import SETTINGS_NAME, STORE_NAME, read_identity, read_link_key
from paygate.gateway.sqlite_tokens import SqliteTokens
from paygate.gateway.token_schema import MADE_AS

KIND: Final = "paygate-gateway 1"


def back_up(directory: Path, target: Path, now: Now, *, with_keys: bool) -> None:
    """Make a backup of a gateway, running or not. Raises BackupFailed, StateError, StoreError."""
    identity = read_identity(StateDir(directory))
    manifest = {
        "backup": KIND,
        "gateway_id": identity.gateway_id,
        "made": utc_text(now.wall_ms),
        "has_keys": with_keys,
    }

    def fill(folder: Path) -> None:
        copy_store(directory, STORE_NAME, folder / STORE_NAME, **MADE_AS)
        copy_files(directory, folder, [SETTINGS_NAME, *([LINK_KEY_NAME] if with_keys else [])])
        if problem := _store_problem(folder):
            raise BackupFailed(f"the store does not hold, so there is no backup of it: {problem}")

    make_backup(target, manifest, fill)


def _store_problem(folder: Path) -> str:
    """What an audit finds first; nothing is changed."""
    connection = open_to_read(folder / STORE_NAME, **MADE_AS)
    try:
        findings = all_findings(audit_tokens(connection))
    finally:
        connection.close()
    return str(findings[0]) if findings else ""


def _is_token(fields: tuple[str, ...]) -> bool:
    try:
        parse_token(fields)
    except FieldProblem:
        return False
    return True


def restore(backup: Path, directory: Path, *, link_key: Path | None = None, tokens: Path | None = None) -> list[str]:
    """Make a gateway of a backup in a new or empty directory; gives what an operator should know.

    `link_key`: the file with its link key, if that is not in the backup. `tokens`: the old PaymentTokensData.txt, if it
    is left: it has the tokens that were issued since. Raises StateError, StoreError.
    """
    manifest = check_backup(backup, KIND)
    link_key = link_key or backup / LINK_KEY_NAME
    if not link_key.exists():
        raise StateError(
            f"there is no {link_key}; give --link-key FILE: a backup's that was made --with-keys, the old state "
            "directory's, or a new one of 'paygate-bank add-gateway'"
        )
    read_link_key(link_key)
    if tokens is not None:
        next(record_rows(tokens, TOKENS_LAYOUT, _is_token, "a payment token's"), None)
    state = empty_state(directory)
    try:
        copy_private(link_key, directory / LINK_KEY_NAME)
        copy_private(backup / STORE_NAME, directory / STORE_NAME)
        store = SqliteTokens(directory / STORE_NAME)  # takes over one of an older version
        try:
            findings = all_findings(store.audit())
        finally:
            store.close()
        if findings:
            raise StateError(f"the backup's store does not hold: {findings[0]}; take another backup")
        if tokens is None:
            state.write_atomic(TOKENS_LAYOUT.file_name, TOKENS_LAYOUT.header)
        else:
            copy_private(tokens, directory / TOKENS_LAYOUT.file_name)
        # Last, since it says that there is a gateway: what a crash leaves before is refused as none.
        copy_files(backup, directory, [SETTINGS_NAME])
    except OSError as error:
        raise unusable(error, directory) from None
    finally:
        state.close()
    return [
        f"restored gateway {manifest['gateway_id']} as it was at {manifest['made']}",
        "payments made since the backup are missing; 'reconcile' with an export of the bank",
    ]
