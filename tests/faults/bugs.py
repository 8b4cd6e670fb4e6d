"""Bugs put into the programs on purpose: what a campaign must find, or it finds nothing."""

import contextlib
import hmac
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

import paygate.bank.sqlite_ledger
import paygate.codec.frame
import paygate.files.sqlite
import paygate.gateway.token_tables
from paygate.files.sqlite import StoreFsyncFailed, StoreFull, open_database, transaction


class _RetryingDisk(apsw.VFS):
    """Asks again when an fsync fails, and believes the second answer."""

    def __init__(self) -> None:
        super().__init__("retries-fsync", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_RetryingFile":
        """SQLite's name for it."""
        return _RetryingFile(name, flags)


class _RetryingFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:
        """SQLite's name for it."""
        with contextlib.suppress(apsw.IOError):
            super().xSync(flags)
            return
        super().xSync(flags)


_kept: list[apsw.VFS] = []


def _retry_fsync() -> None:
    _kept.append(_RetryingDisk())

    def opened(path: Path, **options: Any) -> apsw.Connection:
        return open_database(path, **{**options, "vfs": "retries-fsync"})

    _in_stores("open_database", opened)


def _full_is_fine() -> None:
    @contextlib.contextmanager
    def forgiving(connection: apsw.Connection) -> Iterator[None]:
        with contextlib.suppress(StoreFull), transaction(connection):
            yield

    _in_stores("transaction", forgiving)


def _send_after_fsync() -> None:
    @contextlib.contextmanager
    def forgiving(connection: apsw.Connection) -> Iterator[None]:
        with contextlib.suppress(StoreFsyncFailed), transaction(connection):
            yield

    _in_stores("transaction", forgiving)


def _believe_any_mac() -> None:
    believing = types.SimpleNamespace(**{**vars(hmac), "compare_digest": lambda _one, _other: True})
    frame: Any = paygate.codec.frame
    frame.hmac = believing


def _in_stores(name: str, stand_in: Any) -> None:
    modules: tuple[Any, ...] = (paygate.bank.sqlite_ledger, paygate.gateway.token_tables)
    for module in modules:
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, stand_in)


BUGS: Final[dict[str, Callable[[], None]]] = {
    "fsync retried": _retry_fsync,
    "full is fine": _full_is_fine,
    "any MAC will do": _believe_any_mac,
    "answered after a failed fsync": _send_after_fsync,
}
