"""The rules between fields, as expressions that can stand in the line of a compiled codec.

A rule is a lambda over a whole record. Calling it costs more than most rules' work, so that its expression is taken
from its source, with the codec's own variables in the place of `m.field`, the members of registries in the place of
their names, and a table in the place of what a registry says of its members (`m.outcome.fits(m.reason)`): that never
changes. A rule is called as before wherever this can't be done with certainty: without the source, or if what stands
there does not compile to the very code of the lambda, or if the rule does more with the record than read its fields.
"""

import ast
import builtins
import linecache
from collections.abc import Callable
from enum import Enum
from functools import cache
from itertools import product
from math import prod
from types import CodeType, FunctionType
from typing import Any, Final

from paygate.codec.fields import Choice, Field, Opaque, Rule

_TABLE_SIZE_MAX: Final = 1_000
"""More combinations of members than any two registries have: beyond that a table is no gain."""

_SAME: Final = ("co_code", "co_names", "co_consts", "co_varnames")
"""What two lambdas have to have in common to do the same."""

NameObject = Callable[[str, Any], str]
"""Gives the name under which the compiled function finds an object."""


def line_of(rule: Rule, types: dict[str, Field], variables: dict[str, str], name_object: NameObject) -> str | None:
    """An expression that is as true as `rule.holds`, or None if the rule has to be called.

    `types` and `variables` are the types of the record's fields, and what holds their checked values.
    """
    holds = rule.holds
    if not isinstance(holds, FunctionType):
        return None
    found = _lambda_of(holds.__code__)
    if found is None:
        return None
    try:
        inlined = _Inlining(holds, types, variables, name_object).visit(found)
    except _CallIt:
        return None
    return ast.unparse(inlined)


def _lambda_of(code: CodeType) -> ast.expr | None:
    """The body of the lambda that was compiled to this code."""
    if code.co_argcount != 1 or code.co_freevars or code.co_kwonlyargcount:
        return None
    # Where its instructions come from, in lines and bytes: parsing no more than that keeps the start short.
    places = [(a, b, c, d) for a, b, c, d in code.co_positions() if None not in (a, b, c, d) and (a, c) != (b, d)]
    lines = [line.encode() for line in linecache.getlines(code.co_filename)]
    if not places or not lines:
        return None
    first, start = min((line or 0, column or 0) for line, _, column, _ in places)
    last, end = max((line or 0, column or 0) for _, line, _, column in places)
    taken = b"".join(lines[first - 1 : last])
    taken = taken[start : len(taken) - len(lines[last - 1]) + end] if last <= len(lines) else b""
    try:
        text = f"lambda {code.co_varnames[0]}: ({taken.decode()})"
        node = compile(text, code.co_filename, "eval", ast.PyCF_ONLY_AST)
    except (SyntaxError, UnicodeDecodeError):  # Not all of it, or another text by now.
        return None
    assert isinstance(node, ast.Expression)
    made = next(c for c in compile(node, code.co_filename, "eval").co_consts if isinstance(c, CodeType))
    if any(getattr(made, part) != getattr(code, part) for part in _SAME):
        return None
    assert isinstance(node.body, ast.Lambda)
    return node.body.body


@cache
def _table(called: str, registries: tuple[type[Enum], ...]) -> dict[Any, Any]:
    """What a property of a registry's members, or a method of them with other members, gives for each."""
    if len(registries) == 1:
        return {member: getattr(member, called) for member in registries[0]}
    return {key: getattr(key[0], called)(*key[1:]) for key in product(*registries)}


class _CallIt(Exception):
    """The rule does something that is not known to mean the same in line."""


class _Inlining(ast.NodeTransformer):
    def __init__(
        self, holds: FunctionType, types: dict[str, Field], variables: dict[str, str], name_object: NameObject
    ) -> None:
        self._record = holds.__code__.co_varnames[0]
        self._globals = holds.__globals__
        self._types = types
        self._variables = variables
        self._name_object = name_object

    def _field(self, node: ast.AST) -> str | None:
        """The field that `m.field` reads, or None."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self._record:
            return node.attr if node.attr in self._types else None
        return None

    def _member(self, node: ast.AST) -> Enum | None:
        """The member of a registry that `Registry.NAME` is, or None."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            registry = self._globals.get(node.value.id)
            if isinstance(registry, type) and issubclass(registry, Enum):
                return registry.__members__.get(node.attr)
        return None

    def _choices(self, node: ast.AST) -> Choice | None:
        found = self._types.get(self._field(node) or "")
        return found if isinstance(found, Choice) else None

    def _object(self, name: str, value: Any) -> ast.expr:
        return ast.Name(self._name_object(name, value), ast.Load())

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        name = self._field(node)
        if name is not None:
            return ast.Name(self._variables[name], ast.Load())
        choice = self._choices(node.value)
        if choice is not None:
            if not isinstance(getattr(choice.choices, node.attr, None), property):
                raise _CallIt
            return self._lookup(node.attr, (choice.choices,), [node.value])
        member = self._member(node)
        if member is None:
            raise _CallIt
        return self._object(f"{type(member).__name__}_{member.name}", member)

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        members = [self._member(item) for item in node.elts]
        # Made once, where Python would make it at every call, since it can't know that members never change.
        return self.generic_visit(node) if None in members else self._object("members", tuple(members))

    def _lookup(self, name: str, registries: tuple[type[Enum], ...], fields: list[ast.expr]) -> ast.expr:
        if prod(map(len, registries)) > _TABLE_SIZE_MAX:
            raise _CallIt
        keys = [self.visit(field) for field in fields]
        key = keys[0] if len(keys) == 1 else ast.Tuple(keys, ast.Load())
        return ast.Subscript(self._object(f"{name}_of", _table(name, registries)), key, ast.Load())

    def visit_Call(self, node: ast.Call) -> ast.expr:
        called = node.func
        if node.keywords:
            raise _CallIt
        if isinstance(called, ast.Attribute):
            fields = [called.value, *node.args]
            choices = [choice.choices for choice in map(self._choices, fields) if choice is not None]
            # A method without arguments is left to be called, like everything that is not asked of members alone.
            if len(choices) < len(fields) or len(fields) == 1:
                raise _CallIt
            return self._lookup(called.attr, tuple(choices), fields)
        if isinstance(called, ast.Name) and called.id == "any" and len(node.args) == 1:
            asked = node.args[0]
            whole = asked.value if isinstance(asked, ast.Subscript) else asked
            field = self._types.get(self._field(whole) or "")
            if isinstance(field, Opaque) and self._globals.get("any", any) is any:
                zeros = self._object(f"zeros_{field.size}", bytes(field.size))
                if isinstance(asked, ast.Subscript) and isinstance(asked.slice, ast.Slice):
                    # A part is compared with the same part of as many zeros.
                    part = self.visit(asked)
                    return ast.Compare(part, [ast.NotEq()], [ast.Subscript(zeros, part.slice, ast.Load())])
                if whole is asked:
                    return ast.Compare(self.visit(asked), [ast.NotEq()], [zeros])
        return ast.Call(self.visit(called), [self.visit(argument) for argument in node.args], [])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._globals:
            return self._object(node.id, self._globals[node.id])
        if node.id != self._record and hasattr(builtins, node.id):
            return self._object(node.id, getattr(builtins, node.id))
        raise _CallIt  # the record itself goes somewhere

    def generic_visit(self, node: ast.AST) -> ast.AST:
        # Names that an expression makes itself would have to be kept apart from the function's.
        if isinstance(node, ast.Lambda | ast.NamedExpr | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            raise _CallIt
        return super().generic_visit(node)
