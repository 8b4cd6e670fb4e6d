"""Writes the function that makes a record of its bytes."""

import struct
from collections.abc import Callable
from functools import cache
from itertools import groupby
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
from paygate.codec.lines import Function, Writers, fixed_format, is_fixed_text, outside, writer_of
from paygate.codec.remembered import Remembered, keep_lines, keeps, kept
from paygate.codec.text_lines import charset_of, check_ascii, check_shape, check_text, shapes_of

Decode = Callable[[bytes, int, int], Any]


@cache
def _texts_of(*texts: Text) -> Remembered[bytes, Any]:
    """What adjacent texts that recur say, by their bytes, lengths included: a tuple, or a `str` if it is one text."""
    decode = Decoding("decode_texts").texts_function(texts)
    return Remembered(lambda data: decode(data, 0, len(data)))


def _recurs(field: Field) -> bool:
    return isinstance(field, Text) and field.recurs and not is_fixed_text(field)


class Decoding:
    """Writes `decode(data, at, end)`.

    `_run` collects what one struct will unpack, `_after` the lines that use it. `_ahead` is how far the place that
    is read next lies behind `at`, so that `at` is not moved at every step.
    """

    def __init__(self, name: str = "decode") -> None:
        self._function = Function(name, "data, at, end")
        self._run: list[tuple[str, str]] = []
        self._after: list[Callable[[], None]] = []
        self._ahead = 0
        self._keeping: list[str] = []
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
        self._function.add(*self._keeping)
        self._function.add(f"return {decoded}")
        return self._function.compiled(cls.__name__)

    def texts_function(self, texts: tuple[Text, ...]) -> Decode:
        """Decodes adjacent texts to a tuple, or one text to a `str`."""
        targets = [self._function.variable("text") for _ in texts]
        for text, target in zip(texts, targets, strict=True):
            self._any_text(text, target)
        self._function.refuse_if(f"{self._at(0)} != end")
        self._function.add(f"return {', '.join(targets)}")
        return self._function.compiled(", ".join(text.words for text in texts))[0]

    def _fields(self, cls: type[Record], path: str) -> dict[str, str]:
        """Read a record's fields; the variables that will hold them, by the fields' names."""
        variables = {f.name: self._function.variable(path + f.name) for f in fields_of(cls)}
        for is_recurring, group in groupby(fields_of(cls), lambda f: _recurs(f.type)):
            if is_recurring:
                targets = {variables[f.name]: f.type for f in group}
                self._recurring(list(targets), list(targets.values()))
            else:
                for f in group:
                    self._field(f.type, variables[f.name])
        return variables

    def _field(self, field: Field, target: str) -> None:
        writer_of(self._writers, field)(field, target)

    def _place(self) -> str:
        """Behind all that was read or is in the run."""
        return self._at(sum(struct.calcsize(">" + letter) for letter, _ in self._run))

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
        if is_fixed_text(field):
            texts = self._function.object("texts", _texts_of(field))
            self._fixed(field, target)
            self._after.append(lambda: self._function.add(f"{target} = {texts}[{target}]"))
        elif field.recurs:
            self._recurring([target], [field])
        else:
            self._any_text(field, target)

    def _recurring(self, targets: list[str], fields: list[Any]) -> None:
        """Read adjacent texts as one piece, lengths included, to find it among those that were read before."""
        start = self._function.variable(f"{targets[0]}_at")
        texts = self._function.object("texts", _texts_of(*fields))
        self._flush()
        self._function.add(f"{start} = {self._at(0)}", f"at = {start} + 1 + data[{start}]")
        self._function.add(*["at += 1 + data[at]"] * (len(targets) - 1))
        self._function.add(f"{', '.join(targets)} = {texts}[data[{start}:at]]")
        self._ahead = 0

    def _any_text(self, field: Text, target: str) -> None:
        shapes, charset = shapes_of(field), charset_of(field.charset)
        # Shapes have their size, so that only what is not checked by them needs a check of its length.
        minimum, maximum = (field.minimum, field.maximum) if shapes is None else (0, 255)
        taken = self._counted_bytes("B", target, minimum, maximum)
        self._function.add(f"{target} = {taken}")
        if shapes is not None:
            check_shape(self._function, shapes, target)
        elif charset is not None:
            check_ascii(self._function, charset, field, target, f"{target}_size")
        self._function.add(f"{target} = {target}.decode()")
        if shapes is None and charset is None:
            check_text(self._function, field, target)

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
        keeping = self._keeping
        is_kept = keeps(field.record)
        if is_kept:
            start = self._function.variable(f"{target}_at")
            self._function.add(f"{start} = {self._place()}")
        variables = self._fields(field.record, f"{target}_")
        if is_kept:
            # Only at the end, when all is accepted; what is within is then part of it, and not kept by itself.
            encoded = self._function.variable(f"{target}_bytes")
            taking = f"{encoded} = data[{start} : {self._place()}]"
            self._after.append(lambda: self._function.add(taking))
            name = self._function.object("kept", kept)
            self._keeping = [*keeping, *keep_lines(name, f"id({target})", target, encoded)]
        self._after.append(lambda: self._function.make(field.record, target, variables))
        self._after.append(lambda: self._function.check_rules(field.record, target, variables))
