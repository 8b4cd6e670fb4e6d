"""The named failpoints: before and after every step of the programs that changes what a restart finds.

A point is a function of the real program, named from outside; no line of paygate knows of it. Beside functions there
are SQL statements (`sql:` and how the statement begins) and operations on the files of a database (`disk:`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

SQL: Final = "sql"
DISK: Final = "disk"
DISK_OPERATIONS: Final = ("wal-write", "wal-sync", "database-write", "database-sync", "wal-delete")


@dataclass(frozen=True, slots=True)
class Point:
    """A place where a program can be killed."""

    name: str
    program: str
    """Which process dies: bank, gateway, client, decoder or encoder."""
    reached_by: str
    """The command of the program that comes past it."""
    target: str
    """`module:qualified.name`; `sql:BEGINNING`; `disk:OPERATION`."""
    is_after: bool
    within: str
    """Another `module:qualified.name`: the point counts only while that runs; empty for always."""
    meaning: str
    """What is being done there."""


_DURABLE: Final = "paygate.files.durable"
_STATE: Final = "paygate.files.state_dir:StateDir"
_SHARED: Final = "paygate.files.shared_file:SharedFile"
_APPEND: Final = "paygate.files.append_file:AppendFile"
_RENAME: Final = "pathlib:Path.rename"
_LINK: Final = "pathlib:Path.hardlink_to"
_UNLINK: Final = "pathlib:Path.unlink"
_FSYNC: Final = "os:fsync"

_Row = tuple[str, str, str, str]
"""Short name, target, within, meaning."""

_STORE: Final[tuple[_Row, ...]] = (
    ("lock", f"{_STATE}.try_lock", "", "the state directory is locked"),
    ("store-open", "paygate.files.sqlite:open_database", "", "the database is opened and brought up to date"),
    ("wal-write", f"{DISK}:wal-write", "", "a page goes to the write-ahead log"),
    ("wal-sync", f"{DISK}:wal-sync", "", "the write-ahead log is synced"),
    ("database-write", f"{DISK}:database-write", "", "a page goes from the log to the database"),
    ("database-sync", f"{DISK}:database-sync", "", "the database is synced"),
    ("checkpoint", "paygate.files.sqlite:_checkpoint", "", "after COMMIT: the log is copied to the database if due"),
    ("begin", f"{SQL}:BEGIN IMMEDIATE", "", "a transaction begins"),
    ("commit", f"{SQL}:COMMIT", "", "all rows are written, COMMIT is next"),
    ("send", "paygate.net.conn:Connection.flush_output", "", "bytes leave on a socket, after the tick's commit"),
    ("append", f"{_APPEND}.append", "", "rows are added to a text file"),
    ("append-write", f"{_APPEND}._append", "", "the one write of added rows"),
    ("update", f"{_SHARED}.update", "", "fields of a shared file are changed in place"),
    ("take-in-lines", f"{_SHARED}.take_in_all", "", "lines that people added become rows"),
    ("rows-append", f"{_SHARED}._append_rows", "", "rows are added; the raw lines still stand"),
    ("blank", f"{_SHARED}._blank", "", "raw lines become comments"),
    ("rewrite", f"{_SHARED}.rewrite", "", "a shared file is built anew"),
    ("rewrite-copy", f"{_DURABLE}:create_file", f"{_SHARED}.rewrite", "the copy is written and synced"),
    ("rewrite-rename", _RENAME, f"{_SHARED}.rewrite", "the copy gets the name of what a crash leaves"),
    ("rewrite-swap", "paygate.files.open_file:swap_in", "", "the copy and the old file change names"),
    ("rewrite-unlink", _UNLINK, f"{_SHARED}.rewrite", "a left-over or the old file goes"),
    ("rewrite-sync", f"{_DURABLE}:fsync_directory", f"{_SHARED}.rewrite", "the new names are synced"),
    ("drain", "paygate.shell:Server.begin_drain", "", "SIGTERM came; nothing new is taken on"),
    ("close", "paygate.shell:Server.close", "", "the last connections are closed"),
    ("unlock", f"{_STATE}.close", "", "the lock is given back"),
)
"""What bank and gateway share."""

_BANK: Final[tuple[_Row, ...]] = (
    ("heal", "paygate.bank.records:BankRecords.heal", "", "the text files are brought to what the ledger says"),
    ("mend", "paygate.bank.records:BankRecords._mend_transactions", "", "TransactionID.txt gets what it misses"),
    ("take-in", "paygate.bank.records:BankRecords.take_in", "", "accounts of new lines are opened"),
    ("decide", "paygate.bank.ledger_batch:Batch.take", "", "the outcomes of a batch are decided"),
    ("sign", "paygate.codec.seal:sign_receipts", "", "the receipts of a batch are signed"),
    ("row-account", f"{SQL}:INSERT INTO account", "", "the row of a new account"),
    ("row-customer", f"{SQL}:INSERT INTO customer", "", "the row of a new customer"),
    ("row-merchant", f"{SQL}:INSERT INTO merchant", "", "the row of a new merchant"),
    ("row-payment", f"{SQL}:INSERT INTO payment", "", "the row of a payment"),
    ("row-posting", f"{SQL}:INSERT INTO posting", "", "the rows of a transfer of money"),
    ("row-balance", f"{SQL}:UPDATE account", "", "balances"),
    ("row-attempts", f"{SQL}:UPDATE customer", "", "a counted password attempt"),
    ("row-bank", f"{SQL}:UPDATE bank", "", "counters and chains"),
    ("apply", "paygate.bank.sqlite_ledger:SqliteLedger.apply", "", "a batch is decided and committed"),
    ("committed", "paygate.bank.core:BankCore.committed", "", "outcomes become replies, not sent yet"),
    ("note", "paygate.bank.records:BankRecords.note", "", "what the text files are to say is remembered"),
    ("records", "paygate.bank.records:BankRecords.write", "", "the text files are brought up to date"),
    ("records-close", "paygate.bank.records:BankRecords.close", "", "the text files are closed"),
    ("store-close", "paygate.bank.sqlite_ledger:SqliteLedger.close", "", "the ledger is closed"),
)
_GATEWAY: Final[tuple[_Row, ...]] = (
    ("heal", "paygate.gateway.records:GatewayRecords.heal", "", "the text files are brought to what the store says"),
    ("heal-payments", "paygate.gateway.records:GatewayRecords._heal_payments", "", "GatewayTransaction.txt anew"),
    ("heal-copy", f"{_DURABLE}:create_file", f"{_APPEND}.rewrite", "its copy is written and synced"),
    ("heal-rename", _RENAME, f"{_APPEND}.rewrite", "its copy takes its place"),
    ("heal-sync", f"{_DURABLE}:fsync_directory", f"{_APPEND}.rewrite", "its new name is synced"),
    ("heal-log", "paygate.gateway.records:GatewayRecords._heal_connections", "", "orphans in LogFiles.txt are closed"),
    ("take-in", "paygate.gateway.records:GatewayRecords.take_in_tokens", "", "tokens of new lines are issued"),
    ("resume", "paygate.gateway.core:GatewayCore.resume", "", "payments in flight are taken up again"),
    ("row-token", f"{SQL}:INSERT INTO token", "", "the row of a new token"),
    ("row-token-state", f"{SQL}:INSERT OR REPLACE INTO token_state", "", "a token is withdrawn, a passcode counted"),
    ("row-gateway", f"{SQL}:INSERT OR REPLACE INTO gateway", "", "the ends of the chains"),
    ("row-in-flight", f"{SQL}:INSERT OR REPLACE INTO in_flight", "", "a payment is begun, its token is reserved"),
    ("row-payment", f"{SQL}:INSERT INTO payment", "", "a payment with its final outcome"),
    ("row-paid", f"{SQL}:INSERT INTO paid", "", "a token is paid"),
    ("delete-ended", f"{SQL}:DELETE FROM in_flight", "", "at start: places of ended payments are freed"),
    ("store-write", "paygate.gateway.token_tables:TokenTables.write", "", "a batch's rows are committed"),
    ("begun", "paygate.gateway.client_side:ClientSide._payment_begun", "", "a begun payment is durable, not sent"),
    ("ask-bank", "paygate.gateway.bank_side:BankSide.ask", "", "a request to the bank is made"),
    ("settled", "paygate.gateway.client_side:ClientSide._payment_settled", "", "an outcome is durable, not told"),
    ("note", "paygate.gateway.records:GatewayRecords.note", "", "what the text files are to say is remembered"),
    ("records", "paygate.gateway.records:GatewayRecords.write", "", "the text files are brought up to date"),
    ("log", "paygate.gateway.records:GatewayRecords._write_what_stands_nowhere_else", "", "connects and refusals"),
    ("fill-in", "paygate.gateway.records:GatewayRecords._fill_in_outcomes", "", "outcomes go into their rows"),
    ("records-close", "paygate.gateway.records:GatewayRecords.close", "", "the text files are closed"),
    ("store-close", "paygate.gateway.sqlite_tokens:SqliteTokens.close", "", "the store is closed"),
)
_PENDING: Final = "paygate.client.pending:PendingStore"
_SAVE: Final = f"{_PENDING}.save"
_PAY: Final[tuple[_Row, ...]] = (
    ("create", f"{_PENDING}.create", "", "the state directory is made"),
    ("serial", f"{_PENDING}.keep_serial", "", "the key list's serial is kept"),
    ("serial-rename", _RENAME, f"{_PENDING}.keep_serial", "the new serial takes its place"),
    ("send", "paygate.net.conn:Connection.flush_output", "", "bytes leave: hello, queries, credentials"),
    ("sealed", "paygate.client.session:Session._sealed", "", "the envelope came from the encoder"),
    ("save", _SAVE, "", "the payment is written down: pending, later its result"),
    ("save-create", f"{_DURABLE}:create_file", _SAVE, "its file is written and synced beside"),
    ("save-write", f"{_DURABLE}:write_all", _SAVE, "its bytes are written"),
    ("save-fsync", _FSYNC, _SAVE, "its file, then its directory, is synced"),
    ("save-rename", _RENAME, _SAVE, "its file takes its name"),
    ("save-sync", f"{_DURABLE}:fsync_directory", _SAVE, "its name is synced"),
    ("saved", "paygate.client.core:Core.saved", "", "it is on disk, the credentials are next"),
    ("receipt-file", "paygate.client.receipt_file:write_new_file", "", "--receipt FILE, first tried, then written"),
    ("receipt", f"{_PENDING}.save_receipt", "", "the receipt is kept in the state"),
    ("receipt-rename", _RENAME, f"{_PENDING}.save_receipt", "the receipt takes its name"),
    ("told", "paygate.client.show:put_json", "", "the customer is told"),
)
_RETRY: Final[tuple[_Row, ...]] = (
    ("send", "paygate.net.conn:Connection.flush_output", "", "the question leaves, and the envelope again"),
    ("save", _SAVE, "", "the definite answer is written down"),
    ("save-rename", _RENAME, _SAVE, "it takes its name"),
    ("told", "paygate.client.show:put_json", "", "the customer is told"),
)
_STATUS: Final[tuple[_Row, ...]] = (
    ("send", "paygate.net.conn:Connection.flush_output", "", "the question leaves"),
    ("save", _SAVE, "", "the definite answer is written down"),
    ("save-rename", _RENAME, _SAVE, "it takes its name"),
    ("receipt", f"{_PENDING}.save_receipt", "", "the receipt is kept in the state"),
    ("told", "paygate.client.show:put_json", "", "the customer is told"),
)
_SECRET: Final[tuple[_Row, ...]] = (
    ("secret", f"{_STATE}.write_secret", "", "a secret is kept"),
    ("secret-file", f"{_DURABLE}:create_file", f"{_STATE}.write_secret", "its file is written and synced beside"),
    ("secret-link", _LINK, f"{_STATE}.write_secret", "its file gets its name"),
    ("secret-unlink", _UNLINK, f"{_STATE}.write_secret", "its first name goes"),
)
_ATOMIC: Final[tuple[_Row, ...]] = (
    ("file", f"{_STATE}.write_atomic", "", "a file takes its place"),
    ("file-copy", f"{_DURABLE}:create_file", f"{_STATE}.write_atomic", "its copy is written and synced"),
    ("file-rename", _RENAME, f"{_STATE}.write_atomic", "its copy takes its name"),
)
_ADD_LINE: Final[tuple[_Row, ...]] = (
    ("line", "paygate.files.added_line:_append", "", "a line is added to a shared file"),
)
_DIRECTORY: Final = ("directory", f"{_STATE}.create", "", "a directory is made")
_MAKE_BACKUP: Final = "paygate.files.backup_folder:make_backup"
_BACKUP: Final[tuple[_Row, ...]] = (
    ("store", "paygate.files.database_copy:copy_store", "", "the database is copied from under a running server"),
    ("manifest", f"{_DURABLE}:create_file", _MAKE_BACKUP, "copies of small files, the manifest last"),
    ("name", _RENAME, _MAKE_BACKUP, "the whole folder gets its name"),
    ("sync", f"{_DURABLE}:fsync_directory", _MAKE_BACKUP, "folders are synced"),
)
_RESTORE: Final[tuple[_Row, ...]] = (
    ("file", "paygate.files.backup_folder:copy_private", "", "a file is copied"),
    (
        "identity",
        "paygate.files.backup_folder:copy_files",
        "",
        "files are copied; the server's identity is the last",
    ),
)
_COMMANDS: Final[dict[tuple[str, str], tuple[_Row, ...]]] = {
    ("bank", "init"): (
        _DIRECTORY,
        *_SECRET,
        *_ATOMIC,
        ("take-in", "paygate.bank.server:take_in_now", "", "the first accounts are opened"),
        ("schema", f"{SQL}:CREATE TABLE", "", "a table of the ledger is made"),
        ("row-customer", f"{SQL}:INSERT INTO customer", "", "the rows of the first customers"),
        ("rewrite-swap", "paygate.files.open_file:swap_in", "", "the files with plain passwords go"),
    ),
    ("bank", "rotate-keys"): (*_SECRET, *_ATOMIC),
    ("bank", "retire-keys"): (*_ATOMIC, ("destroy", _UNLINK, "paygate.bank.keys:retire_key", "a key is destroyed")),
    ("bank", "add-gateway"): _SECRET,
    ("bank", "backup"): _BACKUP,
    ("bank", "restore"): _RESTORE,
    ("gateway", "backup"): _BACKUP,
    ("gateway", "restore"): _RESTORE,
    ("bank", "add-account"): _ADD_LINE,
    ("bank", "add-merchant"): _ADD_LINE,
    ("gateway", "init"): (
        _DIRECTORY,
        *_SECRET[:2],
        *_ATOMIC,
        ("identity", "paygate.gateway.settings:write_identity", "", "key and settings"),
    ),
    ("gateway", "issue"): (
        *_ADD_LINE,
        ("take-in", "paygate.gateway.server:take_in_now", "", "the token is taken in while no server runs"),
        ("row-token", f"{SQL}:INSERT INTO token", "", "the row of the token"),
    ),
    ("gateway", "cancel"): _ADD_LINE,
}
_DECODER: Final[tuple[_Row, ...]] = (
    ("answer", "paygate.bank.decoder:Decoder.answers", "", "envelopes are opened; the bank starts another decoder"),
)
_ENCODER: Final[tuple[_Row, ...]] = (
    ("answer", "paygate.client.encoder:answer", "", "credentials are sealed; the client says that it can't"),
)


def _points(program: str, reached_by: str, rows: tuple[_Row, ...]) -> Iterator[Point]:
    prefix = program if reached_by == "serve" else f"{program}.{reached_by}"
    for short, target, within, meaning in rows:
        for when in ("before", "after"):
            # A statement has no end of its own that can be seen: what follows it is the next one.
            if when == "before" or not target.startswith(f"{SQL}:"):
                yield Point(f"{prefix}.{short}.{when}", program, reached_by, target, when == "after", within, meaning)


_ALL: Final = (
    *_points("bank", "serve", (*_STORE, *_BANK)),
    *_points("gateway", "serve", (*_STORE, *_GATEWAY)),
    *_points("client", "pay", _PAY),
    *_points("client", "status", _STATUS),
    *_points("client", "retry", _RETRY),
    *_points("decoder", "serve", _DECODER),
    *_points("encoder", "serve", _ENCODER),
    *(point for (program, command), rows in _COMMANDS.items() for point in _points(program, command, rows)),
)
POINTS: Final = {point.name: point for point in _ALL}
"""By name."""
NUMBERS: Final = {name: number for number, name in enumerate(POINTS)}
"""Each point's place in a file of hits."""
assert len(POINTS) == len(_ALL), "each name once"


def points_of(program: str, reached_by: str) -> list[str]:
    """The points that a command of a program comes past."""
    return [p.name for p in POINTS.values() if p.program == program and p.reached_by == reached_by]
