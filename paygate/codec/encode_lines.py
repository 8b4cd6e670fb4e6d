"""Writes the function that makes the bytes of a record."""

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

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

_ONE_BYTE: Final = tuple(bytes([number]) for number in range(256))

Encode = Callable[[Any], bytes | None]


@cache
def encoder_of(cls: type[Record]) -> tuple[Encode, str]:
    """The function that encodes a record, and its source."""
    return Encoding("encode", "value").function(cls)


@cache
def _texts_of(field: Text) -> Remembered[str, bytes]:
    """The bytes of texts that recur, their length included."""
    return Remembered(Encoding("encode_text", "text").text_function(field))


class Encoding:
    """Writes `encode(value)`: the run becomes one `pack`, and all pieces are joined at the end."""

    def __init__(self, name: str, parameter: str) -> None:
        self._function = Function(name, parameter)
        self._run: list[tuple[str, str]] = []
        self._pieces: list[str] = []
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

    def function(self, cls: type[Record]) -> tuple[Encode, str]:
        function = self._function
        if keeps(cls):
            name, key, found = function.object("kept", kept), function.variable("key"), function.variable("found")
            function.add(f"{key} = id(value)", f"{found} = {name}.get({key})")
            function.add(f"if {found} is not None:", f"    return {found}[1]")
        self._record(cls, "value", "")
        self._flush()
        if keeps(cls):
            encoded = function.variable("encoded")
            function.add(f"{encoded} = {self._joined()}", *keep_lines(name, key, "value", encoded))
            function.add(f"return {encoded}")
        else:
            function.add(f"return {self._joined()}")
        return function.compiled(cls.__name__)

    def text_function(self, field: Text) -> Encode:
        """Encodes a text of one field, its length included."""
        self._any_text(field, "text")
        self._flush()
        self._function.add(f"return {self._joined()}")
        return self._function.compiled(field.words)[0]

    def _joined(self) -> str:
        pieces, self._pieces = self._pieces, []
        if len(pieces) == 1:
            return pieces[0]
        join = self._function.object("join", b"".join)
        return f"{join}(({', '.join(pieces)}))"

    def _record(self, cls: type[Record], source: str, path: str) -> None:
        variables = {f.name: self._function.variable(path + f.name) for f in fields_of(cls)}
        for field in fields_of(cls):
            variable = variables[field.name]
            self._function.add(f"{variable} = {source}.{field.name}")
            writer_of(self._writers, field.type)(field.type, variable)
        self._function.check_rules(cls, source, variables)

    def _flush(self) -> None:
        run, self._run = self._run, []
        if len(run) == 1 and run[0][0] == "B":
            self._pieces.append(f"{self._function.object('one_byte', _ONE_BYTE)}[{run[0][1]}]")
        elif len(run) == 1 and run[0][0].endswith("s"):
            self._pieces.append(run[0][1])
        elif run:
            whole = struct.Struct(">" + "".join(letter for letter, _ in run))
            pack = self._function.object(f"pack_{whole.size}", whole.pack)
            self._pieces.append(f"{pack}({', '.join(variable for _, variable in run)})")

    def _fixed(self, field: Field, variable: str, condition: str) -> None:
        self._function.refuse_if(condition)
        self._run.append((fixed_format(field), variable))

    def _uint(self, field: Uint, variable: str) -> None:
        whole = f"{variable}.__class__ is not int"
        self._fixed(field, variable, f"{whole} or not {field.minimum} <= {variable} <= {field.maximum}")

    def _choice(self, field: Choice, variable: str) -> None:
        choices = self._function.object(field.choices.__name__, field.choices)
        self._fixed(field, variable, f"{variable}.__class__ is not {choices}")

    def _boolean(self, field: Boolean, variable: str) -> None:
        self._fixed(field, variable, f"{variable}.__class__ is not bool")

    def _opaque(self, field: Opaque, variable: str) -> None:
        self._fixed(field, variable, self._not_opaque(field, variable))

    def _not_opaque(self, field: Opaque, variable: str) -> str:
        condition = f"{variable}.__class__ is not bytes or len({variable}) != {field.size}"
        if not field.zero_allowed:
            condition += f" or {variable} == {self._function.object(f'zeros_{field.size}', bytes(field.size))}"
        return condition

    def _blob(self, field: Blob, variable: str) -> None:
        size = self._function.variable(f"{variable}_size")
        self._function.refuse_if(f"{variable}.__class__ is not bytes")
        self._function.add(f"{size} = len({variable})")
        for condition in outside(size, field.minimum, field.maximum, None):
            self._function.refuse_if(condition)
        self._counted_bytes("H", size, variable)

    def _counted_bytes(self, letter: str, size: str, variable: str) -> None:
        self._run.append((letter, size))
        self._flush()
        self._pieces.append(variable)

    def _text(self, field: Text, variable: str) -> None:
        self._function.refuse_if(f"{variable}.__class__ is not str")
        if field.recurs:
            piece = self._function.variable(f"{variable}_bytes")
            self._function.add(f"{piece} = {self._function.object('texts', _texts_of(field))}[{variable}]")
            if is_fixed_text(field):
                self._run.append((fixed_format(field), piece))
            else:
                self._flush()
                self._pieces.append(piece)
        else:
            self._any_text(field, variable)

    def _any_text(self, field: Text, variable: str) -> None:
        size, encoded = self._function.variable(f"{variable}_size"), self._function.variable(f"{variable}_bytes")
        self._function.add(f"{encoded} = {variable}.encode()", f"{size} = len({encoded})")
        shapes, charset = shapes_of(field), charset_of(field.charset)
        if shapes is not None:
            check_shape(self._function, shapes, encoded)
        else:
            for condition in outside(size, field.minimum, field.maximum, None):
                self._function.refuse_if(condition)
            if charset is not None:
                check_ascii(self._function, charset, field, encoded, size)
            else:
                check_text(self._function, field, variable)
        self._counted_bytes("B", size, encoded)

    def _counted(self, field: Counted, variable: str) -> None:
        item, pieces = self._function.variable(f"{variable}_item"), self._function.variable(f"{variable}_pieces")
        count = self._function.variable(f"{variable}_count")
        self._function.refuse_if(f"{variable}.__class__ is not tuple")
        self._function.add(f"{count} = len({variable})")
        for condition in outside(count, field.minimum, field.maximum, None):
            self._function.refuse_if(condition)
        self._run.append(("B", count))
        self._flush()
        join = self._function.object("join", b"".join)
        outer, self._pieces = self._pieces, []
        if isinstance(field.item, Opaque):  # The items are their own pieces.
            self._function.add(f"for {item} in {variable}:")
            self._function.depth += 1
            self._function.refuse_if(self._not_opaque(field.item, item))
            self._function.depth -= 1
            self._pieces = [*outer, f"{join}({variable})"]
            return
        self._function.add(f"{pieces} = []", f"for {item} in {variable}:")
        self._function.depth += 1
        writer_of(self._writers, field.item)(field.item, item)
        self._flush()
        self._function.add(f"{pieces}.append({self._joined()})")
        self._function.depth -= 1
        self._pieces = [*outer, f"{join}({pieces})"]

    def _nested(self, field: Nested, variable: str) -> None:
        record = self._function.object(field.record.__name__, field.record)
        self._function.refuse_if(f"{variable}.__class__ is not {record}")
        if keeps(field.record):
            encoded = self._function.variable(f"{variable}_bytes")
            encode = self._function.object(f"encode_{field.record.__name__}", encoder_of(field.record)[0])  # type: ignore[arg-type]  # classes can be hashed
            self._function.add(f"{encoded} = {encode}({variable})")
            self._function.refuse_if(f"{encoded} is None")
            self._flush()
            self._pieces.append(encoded)
            return
        self._record(field.record, variable, f"{variable}_")
