"""A record's declaration turned into Python that does what its layout says: the fast way in and out.

Strategy
--------
construct walks a tree of objects at every message. Here the same declaration (`fields_of`, the field types with their
limits, `rules`) is read once, at the first use of a record, and written out as two plain functions: one `struct` for
each run of fields of fixed size, a length in front of what it counts included, and slices for the rest; every check in
its place; nested records in line. `source_of` shows them, and so does a traceback.

The functions only say *that* something is wrong, by None or by one of REFUSALS: `frame.py` then asks construct, which
stays the reference, what it is. So both can differ in one way only, in what they accept, and
tests/codec/test_compiled.py holds them together there. Three things keep the functions short:

* Slices past the end are not looked for: they come out short, the place behind them is past the end, and every record
  has to end exactly at `end`. Whatever a check made of the short slice, the bytes are refused.
* Values are taken as they are or not at all: a subclass of `bytes`, or of a nested record, is left to construct.
* A frozen record is filled in while it still is of another class, its *draft*: a subclass with the same slots that
  may be written to. Then its class is set. This takes a seventh of the time of the frozen `__init__`.
"""

import builtins
import linecache
import re
import struct
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

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
    is_plain_text,
)
from paygate.codec.rule_lines import line_of

REFUSALS: Final = (struct.error, IndexError, KeyError, UnicodeError)
"""What the functions may raise instead of returning None. Its text may hold values: nobody shows it or chains to it."""

_FORMATS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}  # struct's letters for unsigned integers, by width
_BUILTINS: Final = ("any", "bool", "bytes", "int", "len", "range", "str", "tuple")  # what the functions call by name
_ONE_BYTE: Final = tuple(bytes([number]) for number in range(256))
# A charset of this form is checked by `bytes.translate`, in less than half the time of the expression.
_CLASS: Final = r"\[([^\]\[\\^]+)\]"
_CLASSES: Final = rf"(?:{_CLASS})?{_CLASS}(\*|\+|\{{(\d+)\}})"

Decode = Callable[[bytes, int, int], Any]
Encode = Callable[[Any], bytes | None]
T = TypeVar("T")


class Compiled(NamedTuple):
    """`decode(data, at, end)` makes the record that lies there, `encode(value)` its bytes; see REFUSALS."""

    decode: Decode
    encode: Encode
    source: str


def compile_record(cls: type[Record]) -> Compiled:
    """Write and compile the two functions of a record."""
    decoding, encoding = _Decoding(), _Encoding()
    decode, decode_source = decoding.function(cls)
    encode, encode_source = encoding.function(cls)
    return Compiled(decode, encode, f"{decode_source}\n\n{encode_source}")


def struct_of(cls: type[Record]) -> struct.Struct:
    """The one struct of a record that consists of integers and opaque bytes only, checks apart."""
    return struct.Struct(">" + "".join(_fixed_format(f.type) for f in fields_of(cls)))


def maker_of(cls: type[T]) -> Callable[..., T]:
    """A function that makes a frozen, slotted dataclass of its fields' values in order, by way of a draft."""
    function = _Function("make", ", ".join(f.name for f in fields(cls)))  # type: ignore[arg-type]  # a dataclass
    function.make(cls, "made", {f.name: f.name for f in fields(cls)})  # type: ignore[arg-type]
    function.add("return made")
    made: Callable[..., T]
    made, _ = function.compiled(cls.__name__)
    return made


def _draft_of(cls: type) -> type:
    return type(
        f"{cls.__name__}Draft",
        (cls,),
        {
            "__slots__": (),
            # Both of object's own, or a write would take the slow way through Python's dispatch.
            "__setattr__": object.__setattr__,
            "__delattr__": object.__delattr__,
            "__init__": object.__init__,
        },
    )


def _fixed_format(field: Field) -> str:
    match field:
        case Uint() | Choice():
            return _FORMATS[field.width]
        case Boolean():
            return "B"
        case Opaque():
            return f"{field.size}s"
    raise TypeError(f"{type(field).__name__} has no fixed size")


class _Charset(NamedTuple):
    """A charset of the form [first][later]{count}: sets of ASCII characters, and what lengths it has."""

    first: bytes
    later: bytes
    size_min: int
    size_max: int | None


@cache
def _charset_of(charset: str | None) -> _Charset | None:
    """The charset's parts, or None for a charset of another form."""
    found = re.fullmatch(_CLASSES, charset) if charset is not None and charset.isascii() else None
    if found is None:
        return None
    first, later, count, exact = found.groups()
    # What a class holds is asked of `re` itself.
    allowed_first, allowed_later = (
        bytes(code for code in range(128) if re.fullmatch(f"[{one}]", chr(code))) for one in (first or later, later)
    )
    if not set(allowed_first) <= set(allowed_later):
        return None
    before = 1 if first else 0
    if exact is not None:
        return _Charset(allowed_first, allowed_later, before + int(exact), before + int(exact))
    return _Charset(allowed_first, allowed_later, before + (1 if count == "+" else 0), None)


class _Function:
    """The text of a function that is being written, and the objects that it names."""

    def __init__(self, name: str, parameters: str) -> None:
        self.name = name
        self.depth = 1
        self.lines = [f"def {name}({parameters}):"]
        self.objects: dict[str, Any] = {}
        self._taken = {*parameters.split(", "), *_BUILTINS}

    def add(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def refuse_if(self, condition: str) -> None:
        self.add(f"if {condition}:", "    return None")

    def variable(self, name: str) -> str:
        """A name like this one that nothing else in the function has."""
        chosen, count = name, 1
        while chosen in self._taken:
            count += 1
            chosen = f"{name}_{count}"
        self._taken.add(chosen)
        return chosen

    def object(self, name: str, value: Any) -> str:
        """The name under which the function finds an object."""
        if name in _BUILTINS and value is getattr(builtins, name):
            return name
        for known, other in self.objects.items():
            if other is value or (type(other) is type(value) is bytes and other == value):
                return known
        chosen = self.variable(name)
        self.objects[chosen] = value
        return chosen

    def make(self, cls: type, target: str, values: dict[str, str]) -> None:
        """Make an object of a frozen class: `values` are its fields' names and the variables that hold them."""
        self.add(f"{target} = {self.object(f'{cls.__name__}Draft', _draft_of(cls))}()")
        self.add(*(f"{target}.{name} = {variable}" for name, variable in values.items()))
        self.add(f"{target}.__class__ = {self.object(cls.__name__, cls)}")

    def check_rules(self, cls: type[Record], target: str, variables: dict[str, str]) -> None:
        """Check the rules between the fields of `target`, whose checked values the variables hold by field name."""
        types = {f.name: f.type for f in fields_of(cls)}
        for rule in cls.rules:
            line = line_of(rule, types, variables, self.object)
            if line is None:
                line = f"{self.object(f'{rule.field}_holds', rule.holds)}({target})"
            self.refuse_if(f"not ({line})")

    def compiled(self, of: str) -> tuple[Callable[..., Any], str]:
        source = "\n".join(self.lines) + "\n"
        file_name = f"<{self.name} of {of}>"
        # So that a traceback, a debugger and a profiler show the lines.
        linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
        exec(compile(source, file_name, "exec"), self.objects)  # noqa: S102  # our own declarations' text, no peer's
        made: Callable[..., Any] = self.objects[self.name]
        return made, source


_Writers = dict[type[Field], Callable[[Any, str], None]]


def _writer(writers: _Writers, field: Field) -> Callable[[Any, str], None]:
    # By the exact type: a subclass may mean more than its base, and has to be written down here first.
    if type(field) not in writers:
        raise TypeError(f"no code is known for fields of type {type(field).__name__}")
    return writers[type(field)]


class _Decoding:
    """Writes `decode(data, at, end)`.

    `_run` collects what one struct will unpack, `_after` the lines that use it. `_ahead` is how far the place that
    is read next lies behind `at`, so that `at` is not moved at every step.
    """

    def __init__(self) -> None:
        self._function = _Function("decode", "data, at, end")
        self._run: list[tuple[str, str]] = []
        self._after: list[Callable[[], None]] = []
        self._ahead = 0
        self._writers: _Writers = {
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
        _writer(self._writers, field)(field, target)

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
        self._run.append((_fixed_format(field), target))
        for condition in conditions:
            self._after.append(lambda condition=condition: self._function.refuse_if(condition))  # type: ignore[misc]

    def _uint(self, field: Uint, target: str) -> None:
        largest = (1 << 8 * field.width) - 1
        self._fixed(field, target, *_outside(target, field.minimum, field.maximum, largest))

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
        for condition in _outside(size, minimum, maximum, largest):
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
        charset = _charset_of(field.charset)
        minimum, maximum = field.minimum, field.maximum
        taken = self._counted_bytes("B", target, minimum, maximum)
        self._function.add(f"{target} = {taken}")
        if charset is None:
            self._function.add(f"{target} = {target}.decode()")
            _check_text(self._function, field, target)
        else:
            _check_ascii(self._function, charset, field, target, f"{target}_size")
            self._function.add(f"{target} = {target}.decode()")

    def _counted(self, field: Counted, target: str) -> None:
        count, item = self._function.variable(f"{target}_count"), self._function.variable(f"{target}_item")
        self._run.append(("B", count))
        self._flush()
        for condition in _outside(count, field.minimum, field.maximum, 255):
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


class _Encoding:
    """Writes `encode(value)`: the run becomes one `pack`, and all pieces are joined at the end."""

    def __init__(self) -> None:
        self._function = _Function("encode", "value")
        self._run: list[tuple[str, str]] = []
        self._pieces: list[str] = []
        self._writers: _Writers = {
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
        self._record(cls, "value", "")
        self._flush()
        self._function.add(f"return {self._joined()}")
        return self._function.compiled(cls.__name__)

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
            _writer(self._writers, field.type)(field.type, variable)
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
        self._run.append((_fixed_format(field), variable))

    def _uint(self, field: Uint, variable: str) -> None:
        whole = f"{variable}.__class__ is not int"
        self._fixed(field, variable, f"{whole} or not {field.minimum} <= {variable} <= {field.maximum}")

    def _choice(self, field: Choice, variable: str) -> None:
        choices = self._function.object(field.choices.__name__, field.choices)
        self._fixed(field, variable, f"{variable}.__class__ is not {choices}")

    def _boolean(self, field: Boolean, variable: str) -> None:
        self._fixed(field, variable, f"{variable}.__class__ is not bool")

    def _opaque(self, field: Opaque, variable: str) -> None:
        condition = f"{variable}.__class__ is not bytes or len({variable}) != {field.size}"
        if not field.zero_allowed:
            condition += f" or {variable} == {self._function.object(f'zeros_{field.size}', bytes(field.size))}"
        self._fixed(field, variable, condition)

    def _blob(self, field: Blob, variable: str) -> None:
        size = self._function.variable(f"{variable}_size")
        self._function.refuse_if(f"{variable}.__class__ is not bytes")
        self._function.add(f"{size} = len({variable})")
        for condition in _outside(size, field.minimum, field.maximum, None):
            self._function.refuse_if(condition)
        self._counted_bytes("H", size, variable)

    def _counted_bytes(self, letter: str, size: str, variable: str) -> None:
        self._run.append((letter, size))
        self._flush()
        self._pieces.append(variable)

    def _text(self, field: Text, variable: str) -> None:
        size, encoded = self._function.variable(f"{variable}_size"), self._function.variable(f"{variable}_bytes")
        self._function.refuse_if(f"{variable}.__class__ is not str")
        self._function.add(f"{encoded} = {variable}.encode()", f"{size} = len({encoded})")
        for condition in _outside(size, field.minimum, field.maximum, None):
            self._function.refuse_if(condition)
        charset = _charset_of(field.charset)
        if charset is None:
            _check_text(self._function, field, variable)
        else:
            _check_ascii(self._function, charset, field, encoded, size)
        self._counted_bytes("B", size, encoded)

    def _counted(self, field: Counted, variable: str) -> None:
        item, pieces = self._function.variable(f"{variable}_item"), self._function.variable(f"{variable}_pieces")
        count = self._function.variable(f"{variable}_count")
        self._function.refuse_if(f"{variable}.__class__ is not tuple")
        self._function.add(f"{count} = len({variable})")
        for condition in _outside(count, field.minimum, field.maximum, None):
            self._function.refuse_if(condition)
        self._run.append(("B", count))
        self._flush()
        outer, self._pieces = self._pieces, []
        self._function.add(f"{pieces} = []", f"for {item} in {variable}:")
        self._function.depth += 1
        _writer(self._writers, field.item)(field.item, item)
        self._flush()
        self._function.add(f"{pieces}.append({self._joined()})")
        self._function.depth -= 1
        self._pieces = [*outer, f"{self._function.object('join', b''.join)}({pieces})"]

    def _nested(self, field: Nested, variable: str) -> None:
        record = self._function.object(field.record.__name__, field.record)
        self._function.refuse_if(f"{variable}.__class__ is not {record}")
        self._record(field.record, variable, f"{variable}_")


def _outside(variable: str, minimum: int, maximum: int, largest: int | None) -> list[str]:
    """The condition under which a whole number from 0 to `largest` is out of range, if it ever is."""
    if maximum == largest:
        return [f"{variable} < {minimum}"] if minimum else []
    if minimum == 0:
        return [f"{variable} > {maximum}"]
    return [f"not {minimum} <= {variable} <= {maximum}" if minimum < maximum else f"{variable} != {minimum}"]


def _check_text(function: _Function, field: Text, variable: str) -> None:
    """Check a `str` against a charset of any form, or for being plain text."""
    if field.matches is not None:
        matches = function.object("matches", field.matches)
        wrong = f"{matches}({variable}) is None"
        function.refuse_if(f"{variable} and {wrong}" if field.minimum == 0 else wrong)
        return
    # Among ASCII, printable is what is no control character, and all of it is in normal form C; most texts are ASCII.
    plain = function.object("is_plain_text", is_plain_text)
    function.refuse_if(
        f"not ({variable}.isascii() and {variable}.isprintable()) and not {plain}({variable})",
    )


def _check_ascii(function: _Function, charset: _Charset, field: Text, variable: str, size: str) -> None:
    """Check `bytes` against a charset of classes; their number is within the field's range already."""
    # The table changes every byte that is not allowed, and so does the translation differ from the text.
    table = bytes(byte if byte in charset.later else (byte + 1) % 256 for byte in range(256))
    conditions = [f"{variable}.translate({function.object('allowed', table)}) != {variable}"]
    if charset.first != charset.later:
        conditions = [f"{variable}[0] not in {function.object('allowed_first', charset.first)}", *conditions]
    if charset.size_min > field.minimum:
        conditions = [f"{size} < {charset.size_min}", *conditions]
    if charset.size_max is not None and charset.size_max < field.maximum:
        conditions = [f"{size} > {charset.size_max}", *conditions]
    wrong = " or ".join(conditions)
    # An empty text that may be empty is legal whatever the charset says.
    function.refuse_if(f"{variable} and ({wrong})" if field.minimum == 0 else wrong)
