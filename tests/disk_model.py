"""Files of a machine whose power may go: what is written is seen at once, and is kept only once it is synced.

The model. A file is what its last sync left, and the writes and truncations since then. A directory is what its last
sync left, and the names made, moved and taken away since then. When the power goes, of everything that is not synced

* each write is kept, lost, or torn: then each of its 512-byte sectors is new or as it was, in no order;
* each truncation has happened or has not;
* a file that has grown may be short of what was kept, or long, with zeros or garbage where nothing was kept;
* each new, moved or deleted name has happened or has not, whatever became of the others and of the file's bytes.

No order is kept, between files or within one, and a sync of a file says nothing of its name: POSIX promises no more.
What the model does leave alone is what https://www.sqlite.org/psow.html calls powersafe overwrite, on which SQLite
relies by default on every Unix: bytes next to those that are written are never harmed. What was synced never rots.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

SECTOR_SIZE: Final = 512
"""What a disk writes whole: of a torn write each such piece, counted from the file's start, is new or old."""

_KEEP_CHANCES: Final = (0.0, 0.1, 0.5, 0.5, 0.9, 1.0)
_TEAR_CHANCES: Final = (0.0, 0.2, 0.6, 1.0)


class Operation(NamedTuple):
    """What a program asks of the disk."""

    kind: str
    """create, write, truncate, sync, delete, rename, exchange, link, make directory, or sync names (of a directory)."""
    file: str
    offset: int = 0
    """Of a write, in bytes; of a truncation it is the new size."""
    data: bytes = b""
    """Of a write."""
    new_name: str = ""
    """Of a renaming, an exchange or a link."""

    @property
    def size(self) -> int:
        """How many bytes are written."""
        return len(self.data)


@dataclass(slots=True)
class CutReport:
    """What became of all that was not synced when the power went."""

    kept: int = 0
    """Writes and truncations."""
    lost: int = 0
    torn: int = 0
    names_kept: int = 0
    """Files made, renamed or deleted."""
    names_lost: int = 0
    sizes_wrong: int = 0
    """Files that are shorter or longer than what was kept of them."""

    def add(self, other: "CutReport") -> None:
        """Count another cut too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class FileImage(NamedTuple):
    """One file at one time."""

    content: bytes
    durable: bytes
    unsynced: tuple[tuple[int, bytes | None], ...]


class Image(NamedTuple):
    """All files at one time; it never changes, and costs next to nothing to start from."""

    files: tuple[FileImage, ...]
    names: Mapping[str, int]
    """Which of the files a name stands for."""
    durable_names: Mapping[str, int]
    name_changes: tuple[tuple[tuple[str, int | None], ...], ...]

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> "Image":
        """These files, all of them synced."""
        names = {name: number for number, name in enumerate(contents)}
        return cls(tuple(FileImage(bytes(c), bytes(c), ()) for c in contents.values()), names, names, ())


@dataclass(slots=True, eq=False)
class File:
    """One file, whatever its name. `bytes` are shared with an image, and copied when they are to change."""

    content: bytes | bytearray = b""
    """As every program sees it."""
    durable: bytes | bytearray = b""
    """As the last sync left it."""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Since then: writes at an offset, and truncations (None) to a size."""

    def write(self, offset: int, data: bytes) -> None:
        """Seen by all from now on."""
        if self.content.__class__ is bytes:
            self.content = bytearray(self.content)
        _put(self.content, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        """To this size, with zeros if it was less."""
        self.content = _truncated(self.content, size)
        self.unsynced.append((size, None))

    def sync(self) -> None:
        """What was done to the file's bytes is kept from now on."""
        if not self.unsynced:
            return
        durable = bytearray(self.durable) if self.durable.__class__ is bytes else self.durable
        for offset, data in self.unsynced:
            if data is None:
                durable = _truncated(durable, offset)
            else:
                _put(durable, offset, data)
        self.durable = durable
        self.unsynced.clear()

    def fail_to_sync(self) -> None:
        """As Linux does: all go on seeing what was written, it isn't on disk, and no later sync will put it there."""
        self.unsynced.clear()

    def image(self) -> FileImage:
        """As it is; the bytes are shared until one side writes."""
        content = self.content = bytes(self.content)
        if not self.unsynced and self.durable == content:
            self.durable = content
        durable = self.durable = bytes(self.durable)
        return FileImage(content, durable, tuple(self.unsynced))

    def after_cut(self, randomness: Random, report: CutReport) -> bytes:
        """What the disk holds when the power has gone."""
        if not self.unsynced:
            return bytes(self.durable)
        keep_chance, tear_chance = randomness.choice(_KEEP_CHANCES), randomness.choice(_TEAR_CHANCES)
        size_before = len(self.durable)
        size_max = max([size_before, *(offset + len(data or b"") for offset, data in self.unsynced)])
        size_fate = randomness.randrange(4) if size_max > size_before else 0
        # 1: the new size did not reach the disk, so what lies beyond is lost, whatever was written there.
        size_limit = randomness.randrange(size_before, size_max + 1) if size_fate == 1 else size_max
        held = bytearray(self.durable)
        for offset, data in self.unsynced:
            if data is None:
                if randomness.random() < keep_chance:
                    report.kept += 1
                    held = bytearray(_truncated(held, min(offset, size_limit)))
                else:
                    report.lost += 1
                continue
            fitting = data[: max(0, size_limit - offset)]
            if fitting and randomness.random() < tear_chance:
                pieces = [p for p in _sectors(offset, fitting) if randomness.random() < keep_chance]
            else:
                pieces = [(offset, fitting)] if fitting and randomness.random() < keep_chance else []
            written_size = sum(len(piece) for _, piece in pieces)
            for piece_offset, piece in pieces:
                if piece_offset > len(held):
                    # Nothing was kept of what lies between.
                    held += _filler(randomness, piece_offset - len(held))
                held[piece_offset : piece_offset + len(piece)] = piece
            if written_size == len(data):
                report.kept += 1
            elif written_size:
                report.torn += 1
            else:
                report.lost += 1
        size_kept = len(held)
        if size_fate == 2 or (size_fate == 1 and randomness.random() < 0.5):
            # The new size reached the disk, and not what was written there.
            held += _filler(randomness, max(0, size_limit - size_kept))
        report.sizes_wrong += size_fate == 1 or len(held) > size_kept
        return bytes(held)


NameChange = tuple[tuple[str, File | None], ...]
"""What happens to names in one step: each stands for this file from then on, or for none."""


class Files:
    """All files of a machine, by name; that of a directory ends with a slash, and one that nobody made is there."""

    def __init__(self, image: Image | None = None) -> None:
        """Empty, or as the image."""
        files = [File(content, durable, list(unsynced)) for content, durable, unsynced in image.files] if image else []
        self.names: dict[str, File] = {}
        self._durable_names: dict[str, File] = {}
        self._name_changes: list[NameChange] = []
        if image is not None:
            self.names = {name: files[number] for name, number in image.names.items()}
            self._durable_names = {name: files[number] for name, number in image.durable_names.items()}
            self._name_changes = [
                tuple((name, None if number is None else files[number]) for name, number in change)
                for change in image.name_changes
            ]

    def create(self, name: str) -> File:
        """A new file, in place of one of that name."""
        file = self.names[name] = File()
        self._name_changes.append(((name, file),))
        return file

    def delete(self, name: str) -> None:
        """Take the name away. Raises KeyError if there is none."""
        del self.names[name]
        self._name_changes.append(((name, None),))

    def rename(self, name: str, new_name: str) -> None:
        """In place of a file of the new name, in one step. Raises KeyError if there is none to rename."""
        assert parent_of(name) == parent_of(new_name), "from one directory to another is another matter"
        file = self.names[new_name] = self.names.pop(name)
        self._name_changes.append(((name, None), (new_name, file)))

    def exchange(self, name: str, other_name: str) -> None:
        """Each file gets the other's name, in one step. Raises KeyError if one is missing."""
        file, other = self.names[name], self.names[other_name]
        self.names[name], self.names[other_name] = other, file
        self._name_changes.append(((name, other), (other_name, file)))

    def link(self, name: str, new_name: str) -> None:
        """A second name for the same file. Raises KeyError if there is none."""
        file = self.names[new_name] = self.names[name]
        self._name_changes.append(((new_name, file),))

    def make_directory(self, directory: str) -> None:
        """A new one."""
        self.create(f"{directory}/")

    def sync_names(self, directory: str = "") -> None:
        """What was made, moved and taken away in this directory is kept from now on."""
        kept = []
        for change in self._name_changes:
            if parent_of(change[0][0]) == directory:
                _apply(change, self._durable_names)
            else:
                kept.append(change)
        self._name_changes = kept

    def do(self, operation: Operation) -> None:
        """Do again what was recorded of another run."""
        kind, name, offset, data, new_name = operation
        if kind == "write":
            self.names[name].write(offset, data)
        elif kind == "sync":
            self.names[name].sync()
        elif kind == "truncate":
            self.names[name].truncate(offset)
        elif kind == "create":
            self.create(name)
        elif kind == "delete":
            self.delete(name)
        elif kind == "rename":
            self.rename(name, new_name)
        elif kind == "exchange":
            self.exchange(name, new_name)
        elif kind == "link":
            self.link(name, new_name)
        elif kind == "make directory":
            self.make_directory(name)
        else:
            assert kind == "sync names", kind
            self.sync_names(name)

    def contents(self) -> dict[str, bytes]:
        """What a look from outside sees."""
        return {name: bytes(file.content) for name, file in self.names.items()}

    def image(self) -> Image:
        """All as it is now, synced or not."""
        files: dict[File, int] = {}
        changed = (file for change in self._name_changes for _, file in change if file is not None)
        for file in (*self.names.values(), *self._durable_names.values(), *changed):
            files.setdefault(file, len(files))
        return Image(
            tuple(file.image() for file in files),
            {name: files[file] for name, file in self.names.items()},
            {name: files[file] for name, file in self._durable_names.items()},
            tuple(
                tuple((name, None if file is None else files[file]) for name, file in change)
                for change in self._name_changes
            ),
        )

    def after_cut(self, randomness: Random) -> tuple[Image, CutReport]:
        """What the machine finds when it starts again; this one stays as it is, for another cut of the same moment."""
        report = CutReport()
        names = dict(self._durable_names)
        keep_chance = randomness.choice(_KEEP_CHANCES) if self._name_changes else 0.0
        for change in self._name_changes:
            if randomness.random() >= keep_chance:
                report.names_lost += 1
                continue
            report.names_kept += 1
            _apply(change, names)
        made = {name for change in self._name_changes for name, _ in change if name.endswith("/")}
        for lost in made - set(names):
            names = {name: file for name, file in names.items() if not name.startswith(lost)}
        held: dict[File, bytes] = {file: file.after_cut(randomness, report) for file in dict.fromkeys(names.values())}
        return Image.of({name: held[file] for name, file in names.items()}), report


def parent_of(name: str) -> str:
    """The directory that a name is in; of those that say nothing of one, the empty name."""
    return name.rstrip("/").rpartition("/")[0]


def _apply(change: NameChange, names: dict[str, "File"]) -> None:
    for name, file in change:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def _put(content: bytes | bytearray, offset: int, data: bytes) -> None:
    assert isinstance(content, bytearray)
    if offset > len(content):
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data


def _truncated(content: bytes | bytearray, size: int) -> bytes | bytearray:
    return content[:size] + bytes(max(0, size - len(content)))


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """A write in the pieces that fall into one sector each."""
    start = 0
    while start < len(data):
        end = start + SECTOR_SIZE - (offset + start) % SECTOR_SIZE
        yield offset + start, data[start:end]
        start = end


def _filler(randomness: Random, size: int) -> bytes:
    return bytes(size) if randomness.random() < 0.5 else randomness.randbytes(size)
