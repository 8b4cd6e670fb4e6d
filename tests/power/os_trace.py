"""What a program asks of the file system below one directory, in order: each change and sync, as in `disk_model`.

Seen are the functions of `os`, and our own exchange of two names, which paygate's files are written with. What is
written in another way is found by `check`, since then the files are not what the recorded operations make of them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from disk_model import Files, Image, Operation

from paygate.files import open_file
from paygate.files.durable import exchange


@dataclass
class _Open:
    name: str
    position: int
    appends: bool


@dataclass
class OsTrace:
    """One recording. Begin with a directory whose files `image_of` gives."""

    root: Path
    operations: list[Operation] = field(default_factory=list)
    on_operation: Callable[[], None] = lambda: None
    """Called after each."""
    _open: dict[int, _Open] = field(default_factory=dict)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While this lasts, all calls are done and kept."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "close", "write", "pwrite", "fsync", "ftruncate", "rename", "link", "unlink", "mkdir"):
                patch.setattr(os, name, self._recorded(name, getattr(os, name)))
            for name, same in (("replace", "rename"), ("remove", "unlink"), ("fdatasync", "fsync")):
                patch.setattr(os, name, getattr(os, same))
            patch.setattr(open_file, "exchange", self._recorded("exchange", exchange))
            yield

    def check(self, before: Image) -> None:
        """Raises AssertionError if anything was changed in a way that is not recorded."""
        files = Files(before)
        for operation in self.operations:
            files.do(operation)
        assert files.contents() == contents_of(self.root)

    def _recorded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        keep = getattr(self, f"_{name}_done")

        def recorded(*args: Any, **options: Any) -> Any:
            assert options.get("dir_fd") is None, f"os.{name} with dir_fd is not recorded"
            is_new = name == "open" and not Path(args[0]).exists()
            result = call(*args, **options)
            keep(result, is_new, *args)
            return result

        return recorded

    def _name(self, path: Any) -> str | None:
        absolute = Path(path).absolute()
        return str(absolute.relative_to(self.root)) if absolute.is_relative_to(self.root) else None

    def _keep(self, kind: str, name: str, offset: int = 0, data: bytes = b"", new_name: str = "") -> None:
        self.operations.append(Operation(kind, name, offset, data, new_name))
        self.on_operation()

    def _open_done(self, fd: int, is_new: bool, path: Any, flags: int, *_: Any) -> None:
        name = self._name(path)
        if name is None:
            return
        self._open[fd] = _Open(name, 0, bool(flags & os.O_APPEND))
        if is_new:
            self._keep("create", name)
        elif flags & os.O_TRUNC:
            self._keep("truncate", name)

    def _close_done(self, _: None, __: bool, fd: int) -> None:
        self._open.pop(fd, None)

    def _write_done(self, size: int, _: bool, fd: int, data: bytes) -> None:
        file = self._open.get(fd)
        if file is not None:
            offset = os.fstat(fd).st_size - size if file.appends else file.position
            file.position = offset + size
            self._keep("write", file.name, offset, bytes(data[:size]))

    def _pwrite_done(self, size: int, _: bool, fd: int, data: bytes, offset: int) -> None:
        if fd in self._open:
            self._keep("write", self._open[fd].name, offset, bytes(data[:size]))

    def _ftruncate_done(self, _: None, __: bool, fd: int, size: int) -> None:
        if fd in self._open:
            self._keep("truncate", self._open[fd].name, size)

    def _fsync_done(self, _: None, __: bool, fd: int) -> None:
        if fd in self._open:
            name = self._open[fd].name
            is_directory = Path(self.root, name).is_dir()
            self._keep("sync names" if is_directory else "sync", name.removeprefix(".") if is_directory else name)

    def _rename_done(self, _: None, __: bool, path: Any, new_path: Any) -> None:
        name, new_name = self._name(path), self._name(new_path)
        if name is not None and new_name is not None:
            self._keep("rename", name, new_name=new_name)
            for file in self._open.values():
                file.name = new_name if file.name == name else file.name

    def _exchange_done(self, is_done: bool, _: bool, path: Any, other_path: Any) -> None:
        name, other_name = self._name(path), self._name(other_path)
        if is_done and name is not None and other_name is not None:
            self._keep("exchange", name, new_name=other_name)
            other = {name: other_name, other_name: name}
            for file in self._open.values():
                file.name = other.get(file.name, file.name)

    def _link_done(self, _: None, __: bool, path: Any, new_path: Any, **___: Any) -> None:
        name, new_name = self._name(path), self._name(new_path)
        if name is not None and new_name is not None:
            self._keep("link", name, new_name=new_name)

    def _unlink_done(self, _: None, __: bool, path: Any) -> None:
        name = self._name(path)
        if name is not None:
            self._keep("delete", name)

    def _mkdir_done(self, _: None, __: bool, path: Any, *___: Any) -> None:
        name = self._name(path)
        if name is not None:
            self._keep("make directory", name)


def contents_of(root: Path) -> dict[str, bytes]:
    """All files below a directory, as `Files.contents` gives them."""
    found = sorted(root.rglob("*"))
    return {
        f"{path.relative_to(root)}/" if path.is_dir() else str(path.relative_to(root)): b""
        if path.is_dir()
        else path.read_bytes()
        for path in found
    }


def image_of(root: Path) -> Image:
    """All files below a directory, synced."""
    return Image.of(contents_of(root))


def write_out(contents: dict[str, bytes], root: Path) -> None:
    """Make these files below a directory that is not there yet, private as paygate's are."""
    root.mkdir(mode=0o700)
    for name in sorted(contents):
        if name.endswith("/"):
            (root / name).mkdir(mode=0o700)
    for name, content in contents.items():
        if not name.endswith("/"):
            (root / name).write_bytes(content)
            (root / name).chmod(0o600)
