"""Where a run works and what it leaves: checked before it begins, since a run takes minutes."""

import contextlib
import errno
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from paygate.cli import ExitCode, PaygateExit

INSTALL: Final = "pip install 'paygate[bench]'"


def check_installed(*packages: str) -> None:
    """Raises PaygateExit, with the command that installs them, if one is missing."""
    for package in packages:
        try:
            found = importlib.util.find_spec(package)
        except ValueError:
            found = None  # an entry of sys.modules that is none
        if found is None:
            raise PaygateExit(f"the package {package} is not installed; install it with: {INSTALL}", ExitCode.USAGE)


def check_file(option: str, path: Path) -> None:
    """Make the directory of a file that is to be written, and the file. Raises PaygateExit if that can't be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise PaygateExit(f"{option} {path}: {error.strerror}", ExitCode.USAGE) from None


def check_directory(option: str, path: Path) -> None:
    """Make a directory that is to be written into. Raises PaygateExit if that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PaygateExit(f"{option} {path}: {error.strerror}", ExitCode.USAGE) from None


@contextlib.contextmanager
def run_directory(parent: Path) -> Iterator[Path]:
    """A directory for one run below `parent`, which exists; removed at the end, but for the logs of a run that failed.

    Raises PaygateExit instead of what the system says of a full disk or too many files.
    """
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=parent.resolve()))
    directory.chmod(0o711)  # PostgreSQL, which refuses to run as root, must get through to its own directory
    keeps_logs = False
    try:
        yield directory
    except BrokenPipeError:
        raise  # the run itself went well, and nobody reads what it found
    except Exception as error:
        keeps_logs = _keep_logs(directory)
        if keeps_logs:
            sys.stderr.write(f"The logs of servers and peers are kept in {directory}\n")
        raise _told_by_system(error, directory) from error
    finally:
        if not keeps_logs:
            shutil.rmtree(directory, ignore_errors=True)


def _keep_logs(directory: Path) -> bool:
    """Remove all but logs with something in them; gives whether there are any."""
    found = False
    for path in sorted(directory.rglob("*"), reverse=True):  # what is in a directory before the directory
        with contextlib.suppress(OSError):  # a directory with a log in it stays
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path.suffix == ".log" and path.stat().st_size:
                found = True
            else:
                path.unlink()
    return found


def _told_by_system(error: Exception, directory: Path) -> Exception:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return PaygateExit(f"the disk of {directory.parent} is full; choose another with --directory", ExitCode.USAGE)
    if number == errno.EMFILE:
        return too_few_descriptors()
    return error


def too_few_descriptors() -> PaygateExit:
    """What to say when the system gives no more descriptors."""
    text = "too few file descriptors for so many connections; raise the hard limit (ulimit -Hn), or ask for fewer"
    return PaygateExit(text, ExitCode.USAGE)


def text_of(error: BaseException) -> str:
    """Why a run ended, in a line."""
    if isinstance(error, KeyboardInterrupt):
        return "cancelled"
    if isinstance(error, SystemExit):
        return "ended by a signal"
    return str(error) if isinstance(error, PaygateExit | OSError) else type(error).__name__
