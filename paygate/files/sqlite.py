"""Opens a server's database so that a commit is on disk when it returns, and names what can go wrong.

Full disk and failed fsync are different worlds: after the first the database is as it was before the
transaction and everything else goes on (T30); after the second nobody knows what is on disk, and asking again
may get a yes that isn't true (T31). So the first is StoreFull, and all the others mean: stop at once.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import apsw

from paygate.cli import ExitCode, PaygateExit
from paygate.files.log_check import log_damage
from paygate.files.state_dir import check_private

CHECKPOINT_PAGE_COUNT = 1000
"""Pages in the write-ahead log after which it is copied into the database; SQLite's own default."""


_LOG_PIECE_SIZE = 1 << 16  # SQLite cuts the size of a write to 17 bits, and calls what is left a full disk


class StoreError(PaygateExit):
    """The database can't be used, or the state of it is unknown. Stop at once, and retry nothing."""

    code = ExitCode.STORE_FAILED


class StoreFull(StoreError):
    """The disk is full; the transaction was rolled back and the database is as before (T30).

    The one error to go on after: refuse new payments, answer the rest, try again later.
    """


class StoreFsyncFailed(StoreError):
    """An fsync failed: the transaction may be on disk or not (T31). Send nothing; the next start finds out."""


class StoreCorrupt(StoreError):
    """The file is damaged or is no database (T32)."""

    code = ExitCode.BAD_STATE


Migrations = Mapping[int, Callable[[apsw.Connection], None]]
"""By version: what is to be done once its script has run, and SQL can't say."""


def open_database(
    path: Path,
    *,
    application_id: int,
    schema: Sequence[str],
    migrations: Migrations = MappingProxyType({}),
    vfs: str | None = None,
) -> apsw.Connection:
    """The one connection to a database, made with mode 0600 if there is none, and brought up to date.

    One that others may read or write is refused (T29).

    `schema` is a list of SQL scripts without transactions; the n-th leads to version n, and scripts that were
    ever used don't change; `migrations` add to them. `application_id` (31 bits) tells whose database it is.
    `vfs` is the name of a registered apsw VFS, for a simulated disk. Raises StoreError; StateError for a loose file.
    """
    assert application_id > 0, "0 means none"
    try:
        if vfs is None:
            _create_or_check(path)
        connection = apsw.Connection(str(path), vfs=vfs)
        try:
            _prepare(connection, path, application_id, schema, migrations)
        except BaseException:
            # Closing would copy the log into the database, and so ask the disk again that has just failed (T31).
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()
            raise
    except apsw.Error as error:
        raise _named(error, path) from None
    return connection


def open_to_read(path: Path, *, application_id: int, version: int) -> apsw.Connection:
    """A database that no server uses, for an audit: nothing of it is changed, not even the log that a kill left.

    Raises StoreError, also for one of another version, which only a server's start takes over.
    """
    try:
        has_log = path.with_name(f"{path.name}-wal").exists()
        # SQLite can't look into a log with a connection that may only read, so this one may write and does not.
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            # A log that was there stays as it is; the empty one that is made if there was none goes again.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(has_log))
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.pragma("trusted_schema", False)
            connection.pragma("query_only", True)
            connection.pragma("locking_mode", "EXCLUSIVE")
            found = connection.pragma("application_id"), connection.pragma("user_version")
            _check_log(connection, path)
        except BaseException:
            connection.close()
            raise
    except apsw.CantOpenError:
        text = f"there is no {path}; is --state right, and was the server ever started?"
        raise StoreError(text, ExitCode.BAD_STATE) from None
    except apsw.Error as error:
        raise _named(error, path) from None
    if found != (application_id, version):
        connection.close()
        text = f"{path} has version {found[1]} of program {found[0]:x}, not {version} of {application_id:x}"
        raise StoreError(f"{text}; an older one is taken over by a start of its server, or a restore")
    return connection


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE; then COMMIT, or ROLLBACK on any exception. One that writes nothing costs no fsync.

    When it ends without an exception, all of it is on disk. Raises StoreFull after a rollback; other kinds of
    StoreError, after which the process must stop.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except apsw.Error as error:
        raise _named(error, Path(connection.filename), connection) from None


@contextlib.contextmanager
def reading(connection: apsw.Connection) -> Iterator[None]:
    """Queries outside of a transaction, for which this process, the only one that writes, needs none.

    Raises StoreError as `transaction` does.
    """
    try:
        yield
    except apsw.Error as error:
        raise _named(error, Path(connection.filename), connection) from None


def read_rows(connection: apsw.Connection, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
    """The rows of a query outside of a transaction, as they are read. Raises StoreError as `transaction` does."""
    try:
        yield from connection.execute(query, values)
    except apsw.Error as error:
        raise _named(error, Path(connection.filename), connection) from None


def _create_or_check(path: Path) -> None:
    """Makes an empty file of mode 0600, if there is none; SQLite gives its log the mode of the database.

    A log that a crash left is checked too: it may hold as much as the database.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        try:
            for file in (path, path.with_name(f"{path.name}-wal")):
                if file.exists():
                    check_private(file, file.stat(), 0o600)
        except OSError as error:
            raise StoreError(f"could not look at {path}: {error.strerror}", ExitCode.BAD_STATE) from None
    except OSError as error:
        raise StoreError(f"could not make {path}: {error.strerror}", ExitCode.BAD_STATE) from None


def _prepare(
    connection: apsw.Connection, path: Path, application_id: int, schema: Sequence[str], migrations: Migrations
) -> None:
    connection.set_busy_timeout(0)  # nobody else is to have it open, so there is nobody to wait for
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.pragma("trusted_schema", False)
    connection.pragma("locking_mode", "EXCLUSIVE")  # before WAL, which then needs no shared memory
    owner, version = connection.pragma("application_id"), connection.pragma("user_version")
    _check_log(connection, path)
    _write_log_anew(connection)  # nobody else has the database open now that it was read
    is_new = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0 and owner == version == 0
    if owner != application_id and not is_new:
        raise StoreError(f"{path} is another program's database; move it away", ExitCode.BAD_STATE)
    if version > len(schema):
        raise StoreError(
            f"{path} has version {version}, made by a newer paygate than this one (which knows "
            f"{len(schema)}); start the newer one, or restore an older copy",
            ExitCode.BAD_STATE,
        )
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")  # WAL's default syncs at checkpoints only
    connection.set_wal_hook(_checkpoint)  # also takes the place of SQLite's own checkpoints
    if version < len(schema):
        # A script may make a table anew that others refer to, so references are checked once all have run
        # (https://www.sqlite.org/lang_altertable.html).
        connection.pragma("foreign_keys", False)
        with transaction(connection):
            for number, script in enumerate(schema[version:], version + 1):
                try:
                    connection.execute(script)
                except apsw.SQLError as error:
                    text = f"it says version {version}, and what leads to {number} does not fit it ({error})"
                    raise StoreCorrupt(f"{path} is damaged: {text}; restore it from a backup") from None
                if number in migrations:
                    migrations[number](connection)
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StoreCorrupt(f"{path} refers to rows that are not there; restore it from a backup")
            connection.pragma("application_id", application_id)
            connection.pragma("user_version", len(schema))
    connection.pragma("foreign_keys", True)


def _check_log(connection: apsw.Connection, path: Path) -> None:
    """Raises StoreCorrupt if SQLite leaves out commits that were on disk: a byte before them has changed (T32)."""
    with _open_log(connection) as log:
        if log is None:
            return
        kept_count, _ = connection.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_NOOP)
        page_size: int = connection.pragma("page_size")

        def read_page(number: int) -> bytes:
            flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
            database = apsw.VFSFile(connection.open_vfs, connection.filename, flags)
            try:
                return database.xRead(page_size, (number - 1) * page_size)
            finally:
                database.xClose()

        damage = log_damage(log.xRead, log.xFileSize(), max(0, kept_count), page_size, read_page)
    if damage is not None:
        text = f"{damage} is not what was written, and commits behind it would be lost"
        raise StoreCorrupt(f"{path}-wal is damaged: {text}; restore it from a backup")


def _write_log_anew(connection: apsw.Connection) -> None:
    """Write the bytes of the write-ahead log that a former process left once more, and sync them (T31).

    A process that was killed between write and fsync leaves a commit that is seen and may not be on disk, and nobody
    may be answered by it until it is. To sync it is not enough: after a failed fsync Linux holds what was written for
    kept. Every process sees it, no later fsync puts it on disk, and a power cut takes it away. A start that answered by
    such a commit would so take back what it told; and one that copied it into the database would leave a log that is
    older than the database, and damages it when it is read.
    """
    with _open_log(connection) as log:
        if log is None:
            return
        # These bytes have their room already. Where even that is not enough, nobody may be answered: there is no start.
        size = log.xFileSize()
        for offset in range(0, size, _LOG_PIECE_SIZE):
            log.xWrite(log.xRead(min(_LOG_PIECE_SIZE, size - offset), offset), offset)
        if size:
            log.xSync(apsw.SQLITE_SYNC_NORMAL)


@contextlib.contextmanager
def _open_log(connection: apsw.Connection) -> Iterator[apsw.VFSFile | None]:
    """The write-ahead log as a file; None if there is none."""
    flags = [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0]
    try:
        log = apsw.VFSFile(connection.open_vfs, connection.filename_wal, flags)
    except apsw.CantOpenError:
        yield None
        return
    try:
        yield log
    finally:
        log.xClose()


def _checkpoint(connection: apsw.Connection, name: str, page_count: int) -> int:
    """Called by SQLite after each commit. SQLite's own checkpoint would hide a failed fsync (T31)."""
    if page_count >= CHECKPOINT_PAGE_COUNT:
        # Committed already, so a full disk here must not look like a transaction that failed: the log just
        # grows on, until there is no room for it either.
        try:
            connection.wal_checkpoint(name)
        except (apsw.FullError, apsw.BusyError):
            pass
        except apsw.IOError as error:
            if not _is_over_quota(error, connection):
                raise
    return apsw.SQLITE_OK


def _is_over_quota(error: apsw.IOError, connection: apsw.Connection) -> bool:
    """Whether this user's share of the disk is full, which SQLite takes for a broken disk (T30).

    Only of a write: one that comes with an fsync may have lost what was written before (T31).
    """
    code = getattr(error, "extendedresult", 0)
    return code == apsw.SQLITE_IOERR_WRITE and connection.system_errno == errno.EDQUOT


def _named(error: apsw.Error, path: Path, connection: apsw.Connection | None = None) -> Exception:
    """The StoreError that says what happened; an error that our own statements made stays what it is."""
    is_over_quota = isinstance(error, apsw.IOError) and connection is not None and _is_over_quota(error, connection)
    if isinstance(error, apsw.FullError) or is_over_quota:
        return StoreFull(f"no room on the disk for {path}; free some")
    if isinstance(error, apsw.IOError):
        if connection is not None:
            # Closing would copy the log into the database, and so ask the disk again.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC):
            return StoreFsyncFailed(f"the disk failed to keep {path} (fsync); check it, then start again")
        return StoreError(f"the disk failed at {path} ({error}); check it, then start again")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreCorrupt(f"{path} is damaged ({error}); restore it from a backup")
    if isinstance(error, apsw.BusyError):
        return StoreError(f"another process has {path} open; end it", ExitCode.STATE_IN_USE)
    if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)):
        return StoreError(f"could not open {path} for writing ({error})", ExitCode.BAD_STATE)
    return error
