"""Programs that run beside a measurement: started, waited for until they are ready, and always ended."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict

from paygate.bench.peers.peer import PeerFailed
from paygate.children import child_env

START_S_MAX: Final = 60
STOP_S_MAX: Final = 10
_POLL_S: Final = 0.01
_TAIL_SIZE: Final = 500
_FOREIGN_PREFIX: Final = "PG"
"""PGOPTIONS and its kin would change what PostgreSQL's programs do, down to whether a commit waits for the disk."""


class RunAs(TypedDict, total=False):
    """Whom a program runs as, as subprocess takes it; empty for ourselves."""

    user: int
    group: int
    extra_groups: Sequence[int]


OURSELVES: Final = RunAs()


def environment() -> dict[str, str]:
    """Ours, with what would change the output or the meaning of a peer's programs taken out."""
    kept = {name: value for name, value in child_env().items() if not name.startswith(_FOREIGN_PREFIX)}
    # Lines are complete when they are written, in English, and not broken at the width of a terminal.
    return {**kept, "LC_ALL": "C", "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "TERM": "dumb"}


def run(
    argv: Sequence[str | Path], seconds_max: float, *, cwd: Path, stdin: str = "", run_as: RunAs = OURSELVES
) -> str:
    """Run a program to its end and give its output. Raises PeerFailed if it fails, or takes longer."""
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment(),
            cwd=cwd,
            timeout=seconds_max,
            check=False,
            **run_as,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{name} did not end within {seconds_max:.0f} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise PeerFailed(f"{name} ended with {done.returncode}: {said[-_TAIL_SIZE:] or 'it said nothing'}")
    return done.stdout


class Child:
    """A running program, with a pipe to its stdin and a log of what it writes.

    It is ready when its log matches `ready`, and `ready_match` is that match. Raises PeerFailed, with the end of the
    log, if it ends before or is not ready within START_S_MAX.
    """

    def __init__(self, argv: Sequence[str], log_path: Path, ready: bytes, run_as: RunAs = OURSELVES) -> None:
        self.name = Path(argv[0]).name
        self.log_path = log_path
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=log_path.parent,
                **run_as,
            )
        try:
            self.ready_match = self._wait_until(re.compile(ready))
        except BaseException:
            self.process.kill()
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def say(self, line: bytes) -> None:
        """Write to its stdin. Raises PeerFailed if it has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"{self.name} ended early: {self.tail()}") from None

    def wait(self, seconds: float) -> str:
        """Wait until it has ended by itself, and give its log. Raises PeerFailed if it did not, or not with 0."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"{self.name} did not end within {seconds} s") from None
        if code != 0:
            raise PeerFailed(f"{self.name} ended with {code}: {self.tail()}")
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self, ending: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal, and with SIGKILL if that does not. Harmless when repeated."""
        if self.process.poll() is None:
            self.process.send_signal(ending)
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """The last that it wrote."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace").strip()
        return text[-_TAIL_SIZE:] or "it said nothing"

    def _wait_until(self, ready: re.Pattern[bytes]) -> re.Match[bytes]:
        deadline_s = time.monotonic() + START_S_MAX
        while True:
            # Asked before the log is read: what it wrote before its end is not missed.
            has_ended = self.process.poll() is not None
            match = ready.search(self.log_path.read_bytes())
            if match is not None:
                return match
            if has_ended:
                raise PeerFailed(f"{self.name} did not start: {self.tail()}")
            if time.monotonic() > deadline_s:
                raise PeerFailed(f"{self.name} was not ready within {START_S_MAX} s: {self.tail()}")
            time.sleep(_POLL_S)
