"""A Python function that is being written line by line: names, objects, refusals, and the making of frozen objects."""

import builtins
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from paygate.codec.fields import Boolean, Choice, Field, Opaque, Record, Text, Uint, fields_of
from paygate.codec.rule_lines import line_of
from paygate.making import compiled_function, draft_of

_FORMATS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}  # struct's letters for unsigned integers, by width
_BUILTINS: Final = (
    "any",
    "bool",
    "bytes",
    "id",
    "int",
    "len",
    "range",
    "str",
    "tuple",
)  # what the functions call by name


def fixed_format(field: Field) -> str:
    """struct's format of a field of fixed size. Raises TypeError for one of another size."""
    match field:
        case Uint() | Choice():
            return _FORMATS[field.width]
        case Boolean():
            return "B"
        case Opaque():
            return f"{field.size}s"
        case Text() if is_fixed_text(field):
            return f"{field.size_max}s"
    raise TypeError(f"{type(field).__name__} has no fixed size")


def is_fixed_text(field: Text) -> bool:
    """Whether a text is read and written as a whole, its length included, as bytes of fixed size are."""
    return field.recurs and field.size_min == field.size_max


class Function:
    """The text of a function that is being written, and the objects that it names."""

    def __init__(self, name: str, parameters: str) -> None:
        self.name = name
        self.depth = 1
        self.lines = [f"def {name}({parameters}):"]
        self.objects: dict[str, Any] = {}
        self._taken = {*parameters.split(", "), *_BUILTINS}

    def add(self, *lines: str) -> None:
        """Write lines, within the loop that is open now."""
        self.lines += ["    " * self.depth + line for line in lines]

    def refuse_if(self, condition: str) -> None:
        """Write that the function refuses on this condition: by None."""
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
        self.add(f"{target} = {self.object(f'{cls.__name__}Draft', draft_of(cls))}()")
        self.add(*(f"{target}.{name} = {variable}" for name, variable in values.items()))
        self.add(f"{target}.__class__ = {self.object(cls.__name__, cls)}")

    def check_rules(self, cls: type[Record], target: str, variables: dict[str, str]) -> None:
        """Check the rules between the fields of `target`, whose checked values the variables hold by field name."""
        types = {f.name: f.type for f in fields_of(cls)}
        lines = []
        for rule in cls.rules:
            line = line_of(rule, types, variables, self.object)
            lines.append(line or f"{self.object(f'{rule.field}_holds', rule.holds)}({target})")
        # What several rules look up in a table is looked up once.
        for lookup, count in Counter(re.findall(r"\w+_of\[\w+\]", " ".join(lines))).items():
            if count > 1:
                found = self.variable(lookup.partition("[")[0].removesuffix("_of"))
                self.add(f"{found} = {lookup}")
                lines = [line.replace(lookup, found) for line in lines]
        for line in lines:
            self.refuse_if(f"not ({line})")

    def compiled(self, of: str) -> tuple[Callable[..., Any], str]:
        source = "\n".join(self.lines) + "\n"
        return compiled_function(self.name, source, self.objects, of), source


Writers = dict[type[Field], Callable[[Any, str], None]]


def writer_of(writers: Writers, field: Field) -> Callable[[Any, str], None]:
    # By the exact type: a subclass may mean more than its base, and has to be written down here first.
    if type(field) not in writers:
        raise TypeError(f"no code is known for fields of type {type(field).__name__}")
    return writers[type(field)]


def outside(variable: str, minimum: int, maximum: int, largest: int | None) -> list[str]:
    """The condition under which a whole number from 0 to `largest` is out of range, if it ever is."""
    if maximum == largest:
        return [f"{variable} < {minimum}"] if minimum else []
    if minimum == 0:
        return [f"{variable} > {maximum}"]
    return [f"not {minimum} <= {variable} <= {maximum}" if minimum < maximum else f"{variable} != {minimum}"]
