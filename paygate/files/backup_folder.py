"""A backup as a folder: made whole or not at all, never over another one, and checked before anything is restored.

`manifest.json` says what it is and the SHA-256 of each file, so a file that was changed, cut or left out is named.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from paygate.cli import ExitCode
from paygate.files.database_copy import BackupFailed
from paygate.files.durable import create_file, fsync_directory
from paygate.files.file_errors import check_regular
from paygate.files.layout import FieldProblem, Layout
from paygate.files.state_dir import StateDir, StateError, check_private

MANIFEST_NAME: Final = "manifest.json"
_READ_SIZE: Final = 1 << 20


def make_backup(target: Path, manifest: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
    """Have `fill` put files into a new folder (mode 0700), which gets its name once all of it is on disk.

    Raises BackupFailed if there is something of that name; what `fill` raises, and then leaves nothing.
    """
    if target.exists() or target.is_symlink():
        raise BackupFailed(f"{target} exists; a backup never overwrites anything, so give another name")
    beside = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a backup that was killed
        beside.mkdir(mode=0o700)
        try:
            fill(beside)
            files = sorted(path for path in beside.rglob("*") if path.is_file())
            for path in files:
                _fsync(path)
            sums = {str(path.relative_to(beside)): _sha256(path) for path in files}
            text = json.dumps({**manifest, "sha256": sums}, indent=2)
            create_file(beside / MANIFEST_NAME, [text.encode(), b"\n"])
            for directory in {path.parent for path in files} | {beside}:
                fsync_directory(directory)
            beside.rename(target)
            fsync_directory(target.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise BackupFailed(f"could not write the backup {target}: {error.strerror}") from None


def is_backup(folder: Path) -> bool:
    """Whether a folder is a backup and no state directory."""
    return (folder / MANIFEST_NAME).exists()


def check_backup(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a backup of this kind whose files are all as they were written. Raises StateError."""
    path = folder / MANIFEST_NAME
    try:
        check_private(folder, folder.stat(), 0o700)
        manifest = json.loads(path.read_bytes())
        sums = dict(manifest["sha256"])
        if manifest["backup"] != kind:
            raise StateError(f"{folder} is a backup of another kind: {manifest['backup']}, not {kind}")
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                raise StateError(f"{folder / name} is not what was backed up; take another backup")
    except FileNotFoundError as error:
        raise StateError(f"{folder} is no whole backup: there is no {error.filename}") from None
    except OSError as error:
        raise StateError(f"could not read the backup {folder}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise StateError(f"{path} is no manifest of a backup") from None
    return dict(manifest)


def record_rows(
    path: Path, layout: Layout, is_row: Callable[[tuple[str, ...]], bool], expected: str
) -> Iterator[tuple[str, ...]]:
    """The rows of a text record that an operator names; lines that are none, as a power cut leaves them, are left out.

    Raises StateError for a file that can't be read, and for one that has neither a row nor the head that ours have:
    another file by mistake. `expected` says what a line is to be.
    """
    is_record, refused_number = False, 0
    try:
        check_regular(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.lstrip().startswith(b"#"):
                    is_record = is_record or layout.header.startswith(line)
                elif line.strip():
                    with contextlib.suppress(FieldProblem):
                        fields = layout.parse(line)
                        if is_row(fields):
                            is_record = True
                            yield fields
                            continue
                    refused_number = refused_number or number
    except OSError as error:
        raise StateError(f"could not read {path}: {error.strerror}") from None
    if not is_record:
        problem = f"line {refused_number} is not {expected}" if refused_number else f"it has no line that is {expected}"
        raise StateError(f"{path} is no {layout.file_name}: {problem}; give the path of the right file")


def copy_private(source: Path, target: Path) -> None:
    """Copy one file into a new one of mode 0600. Raises OSError."""
    with source.open("rb") as file:
        create_file(target, iter(lambda: file.read(_READ_SIZE), b""))


def empty_state(directory: Path) -> StateDir:
    """The state directory to restore into, locked: a new or empty one. Raises StateError."""
    with contextlib.suppress(OSError):
        if any(directory.iterdir()):
            text = "a restore never overwrites anything, so give a new one, or move this one away"
            raise StateError(f"{directory} is not empty; {text}", ExitCode.BAD_STATE)
    state = StateDir(directory)
    state.create()
    state.open()
    return state


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy files, and the folders that they are in (mode 0700). Raises OSError."""
    for name in names:
        (target / name).parent.mkdir(mode=0o700, exist_ok=True)
        copy_private(source / name, target / name)
        fsync_directory((target / name).parent)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
