"""Writes the function that makes a record of its bytes."""

import struct
from collections.abc import Callable
from typing import Any

from paygate.codec.fields import (
    Blob,
    Boolean,
    Choice,
    Counted,
    Field,
    Nested,
    Opaque,
    Record,
    Text,
    Uint,
    fields_of,
)
from paygate.codec.lines import Function, Writers, fixed_format, outside, writer_of
from paygate.codec.text_lines import charset_of, check_ascii, check_text

Decode = Callable[[bytes, int, int], Any]


class Decoding:
    """Writes `decode(data, at, end)`.

    `_run` collects what one struct will unpack, `_after` the lines that use it. `_ahead` is how far the place that
    is read next lies behind `at`, so that `at` is not moved at every step.
    """

    def __init__(self) -> None:
        self._function = Function("decode", "data, at, end")
        self._run: list[tuple[str, str]] = []
        self._after: list[Callable[[], None]] = []
        self._ahead = 0
        self._writers: Writers = {
            Uint: self._uint,
            Choice: self._choice,
            Boolean: self._boolean,
            Opaque: self._opaque,
            Blob: self._blob,
            Text: self._text,
            Counted: self._counted,
            Nested: self._nested,
        }

    def function(self, cls: type[Record]) -> tuple[Decode, str]:
        decoded = self._function.variable("decoded")
        variables = self._fields(cls, "")
        self._flush()
        self._function.refuse_if(f"{self._at(0)} != end")
        self._function.make(cls, decoded, variables)
        self._function.check_rules(cls, decoded, variables)
        self._function.add(f"return {decoded}")
        return self._function.compiled(cls.__name__)

    def _fields(self, cls: type[Record], path: str) -> dict[str, str]:
        """Read a record's fields; the variables that will hold them, by the fields' names."""
        variables = {f.name: self._function.variable(path + f.name) for f in fields_of(cls)}
        for field in fields_of(cls):
            self._field(field.type, variables[field.name])
        return variables

    def _field(self, field: Field, target: str) -> None:
        writer_of(self._writers, field)(field, target)

    def _at(self, distance: int) -> str:
        ahead = self._ahead + distance
        return f"at + {ahead}" if ahead else "at"

    def _flush(self) -> None:
        """Write the reading of the run, and what follows from it."""
        run, self._run = self._run, []
        after, self._after = self._after, []
        if len(run) == 1 and run[0][0] == "B":
            self._function.add(f"{run[0][1]} = data[{self._at(0)}]")
        elif len(run) == 1 and run[0][0].endswith("s"):
            size = int(run[0][0][:-1])
            self._function.add(f"{run[0][1]} = data[{self._at(0)} : {self._at(size)}]")
        elif run:
            whole = struct.Struct(">" + "".join(letter for letter, _ in run))
            unpack = self._function.object(f"unpack_{whole.size}", whole.unpack_from)
            targets = ", ".join(target for _, target in run)
            self._function.add(f"{targets}{',' if len(run) == 1 else ''} = {unpack}(data, {self._at(0)})")
        self._ahead += sum(struct.calcsize(">" + letter) for letter, _ in run)
        for write in after:
            write()

    def _fixed(self, field: Field, target: str, *conditions: str) -> None:
        """Into the run; refused on any of the conditions."""
        self._run.append((fixed_format(field), target))
        for condition in conditions:
            self._after.append(lambda condition=condition: self._function.refuse_if(condition))  # type: ignore[misc]

    def _uint(self, field: Uint, target: str) -> None:
        largest = (1 << 8 * field.width) - 1
        self._fixed(field, target, *outside(target, field.minimum, field.maximum, largest))

    def _choice(self, field: Choice, target: str) -> None:
        codes = self._function.object(f"{field.choices.__name__}_by_code", field.by_code)
        self._fixed(field, target)
        self._after.append(lambda: self._function.add(f"{target} = {codes}[{target}]"))

    def _boolean(self, field: Boolean, target: str) -> None:
        self._fixed(field, target, f"{target} > 1")
        self._after.append(lambda: self._function.add(f"{target} = {target} == 1"))

    def _opaque(self, field: Opaque, target: str) -> None:
        if field.zero_allowed:
            self._fixed(field, target)
        else:
            self._fixed(field, target, f"{target} == {self._function.object(f'zeros_{field.size}', bytes(field.size))}")

    def _counted_bytes(self, letter: str, target: str, minimum: int, maximum: int) -> str:
        """Read a length and move `at` behind the bytes that it counts; the expression that takes those."""
        size, start = self._function.variable(f"{target}_size"), self._function.variable(f"{target}_at")
        self._run.append((letter, size))
        self._flush()
        largest = (1 << 8 * struct.calcsize(letter)) - 1
        for condition in outside(size, minimum, maximum, largest):
            self._function.refuse_if(condition)
        if self._ahead:
            self._function.add(f"{start} = at + {self._ahead}", f"at = {start} + {size}")
        else:
            self._function.add(f"{start} = at", f"at += {size}")
        self._ahead = 0
        return f"data[{start}:at]"

    def _blob(self, field: Blob, target: str) -> None:
        taken = self._counted_bytes("H", target, field.minimum, field.maximum)
        self._function.add(f"{target} = {taken}")

    def _text(self, field: Text, target: str) -> None:
        charset = charset_of(field.charset)
        minimum, maximum = field.minimum, field.maximum
        taken = self._counted_bytes("B", target, minimum, maximum)
        self._function.add(f"{target} = {taken}")
        if charset is None:
            self._function.add(f"{target} = {target}.decode()")
            check_text(self._function, field, target)
        else:
            check_ascii(self._function, charset, field, target, f"{target}_size")
            self._function.add(f"{target} = {target}.decode()")

    def _counted(self, field: Counted, target: str) -> None:
        count, item = self._function.variable(f"{target}_count"), self._function.variable(f"{target}_item")
        self._run.append(("B", count))
        self._flush()
        for condition in outside(count, field.minimum, field.maximum, 255):
            self._function.refuse_if(condition)
        self._settle()
        self._function.add(f"{target} = []", f"for _ in range({count}):")
        self._function.depth += 1
        self._field(field.item, item)
        self._flush()
        self._settle()
        self._function.add(f"{target}.append({item})")
        self._function.depth -= 1
        self._function.add(f"{target} = tuple({target})")

    def _settle(self) -> None:
        """Move `at` to the place that is read next, as the start and the end of a loop's round have to agree on it."""
        if self._ahead:
            self._function.add(f"at += {self._ahead}")
        self._ahead = 0

    def _nested(self, field: Nested, target: str) -> None:
        variables = self._fields(field.record, f"{target}_")
        self._after.append(lambda: self._function.make(field.record, target, variables))
        self._after.append(lambda: self._function.check_rules(field.record, target, variables))
