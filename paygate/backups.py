"""What both servers do for a backup while they run: a copy of their database, a little in each tick."""

from collections.abc import Callable
from pathlib import Path

from paygate.clock import Now
from paygate.effects import Effect
from paygate.files.database_copy import BackupDesk, DatabaseCopy
from paygate.net.loop import Loop
from paygate.shell import Server


def backup_desk(
    loop: Loop,
    server: Server,
    directory: Path,
    copy_to: Callable[[Path], DatabaseCopy],
    log: Callable[[str], None],
) -> BackupDesk:
    """The desk of a server; `look` at it once a second. Raises OSError."""

    def later(ms: int, step: Callable[[], None]) -> None:
        def handle(_now: Now) -> list[Effect]:
            step()
            return []

        # In a tick, with signals blocked as for all that a server does (R12).
        loop.call_later(ms, lambda: server.defer(handle))

    return BackupDesk(directory, copy_to, later, log)
