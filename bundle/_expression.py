"""Compiles the expressions of validations: every node of the tree is looked up in the tables below, nothing is
executed.

A compiled piece maps whole columns, rows first, to an array with rows first. Shapes are checked when compiling, as
far as the schema fixes them. Rows whose values cannot be looked at are noted on the way (`Look.blind`).
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np

from bundle._columnwise import (
    Look,
    Operation,
    at,
    compared,
    computed,
    fold,
    lengths,
    reduced,
    safe,
    spread,
    wide,
)
from columns.schema import Schema
from columns.types import ListOf, Scalar, Type
from edgepack.errors import BadInput

LONGEST = 1000  # characters; also bounds the depth of the tree

Kind = Literal["number", "bool", "string"]
_NAMES = "in, out, min, max, sum, mean, abs, len, any, all"

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "min": np.min,
    "max": np.max,
    "sum": np.sum,
    "mean": np.mean,
    "any": np.any,
    "all": np.all,
}


Value = Callable[[Look], Any]


@dataclass(frozen=True)
class Seen:
    """What an expression sees of a column in each row: values of a `kind`, in lists of `shape`."""

    kind: Kind
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Term(Seen):
    """A compiled piece. `value` maps columns, rows first, to an array with rows first, or to a plain constant."""

    value: Value


class Compiler:
    """Turns the tree of one expression into terms; `fields` gathers what it sees of the columns it reads."""

    def __init__(self, name: str, sides: dict[str, Schema]) -> None:
        self.name = name
        self.sides = sides
        self.fields: dict[str, Seen] = {}

    def compile(self, expression: str) -> Value:
        term = self.term(self.parse(expression))
        if term.kind != "bool" or term.shape:
            self.refuse(f"gives {_told(term)}, expected one boolean a row: compare something, as in out.score[0] > 0.9")
        return lambda look: wide(term.value(look))

    def parse(self, expression: str) -> ast.expr:
        if len(expression) > LONGEST:
            self.refuse(f"is longer than {LONGEST} characters")
        try:
            return ast.parse(_without_keyword(expression), mode="eval").body
        except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
            self.refuse(f"does not parse: '{expression}'")

    def term(self, node: ast.expr) -> _Term:
        for kind, compiled in _NODES.items():
            if isinstance(node, kind):
                return compiled(self, node)
        self.refuse(
            f"uses '{_source(node)}', which is not part of the language: {_NAMES}, arithmetic and comparisons are"
        )

    def refuse(self, why: str) -> NoReturn:
        raise BadInput(f"validation '{self.name}' {why}", field=f"validations.{self.name}")

    def constant(self, node: ast.Constant) -> _Term:
        value = node.value
        if isinstance(value, bool):
            return _Term("bool", (), lambda _: value)
        if isinstance(value, str):
            return _Term("string", (), lambda _: value)
        if isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
            return _Term("number", (), lambda _: value)
        self.refuse(f"has the constant '{_source(node)}', expected a number, a string, True or False")

    def name_alone(self, node: ast.Name) -> _Term:
        self.refuse(f"names '{node.id.removeprefix('_')}', expected in.<field> or out.<field>")

    def attribute(self, node: ast.Attribute) -> _Term:
        if isinstance(node.value, ast.Name):
            return self.field(node.value.id, node.attr)
        self.refuse(f"uses '{_source(node)}', expected in.<field> or out.<field>")

    def field(self, side: str, name: str) -> _Term:
        side = "in" if side == "_in" else side
        if side not in self.sides:
            self.refuse(f"names '{side}.{name}', expected in.<field> or out.<field>")
        if name not in self.sides[side].names:
            there = ", ".join(f"{side}.{each}" for each in self.sides[side].names)
            self.refuse(f"names '{side}.{name}', which does not exist: there is {there}")
        column = f"{side}.{name}"
        kind, shape = self.kind_of(column, self.sides[side][name].type)
        self.fields[column] = Seen(kind, shape)
        return _Term(kind, shape, lambda look: look.arrays[column])

    def kind_of(self, column: str, type_: Type) -> tuple[Kind, tuple[int | None, ...]]:
        shape: list[int | None] = []
        while isinstance(type_, ListOf):
            shape.append(type_.size)
            type_ = type_.item
        if isinstance(type_, Scalar):
            if type_.name in ("bool", "string"):
                return ("bool" if type_.name == "bool" else "string"), tuple(shape)
            if type_.name.startswith(("int", "uint", "float")):
                return "number", tuple(shape)
        self.refuse(f"reads '{column}' of type {type_}, expected numbers, booleans or strings")

    def subscript(self, node: ast.Subscript) -> _Term:
        index = node.slice
        if isinstance(node.value, ast.Name) and isinstance(index, ast.Constant) and isinstance(index.value, str):
            return self.field(node.value.id, index.value)
        position = _integer(index)
        if position is None:
            self.refuse(f"has the index '{_source(index)}', expected a whole number")
        term = self.term(node.value)
        if not term.shape:
            self.refuse(f"takes an index of '{_source(node.value)}', which is {_told(term)}")
        size = term.shape[0]
        if size is not None and not -size <= position < size:
            self.refuse(f"takes index {position} of '{_source(node.value)}', which has {size} values")
        return _Term(term.kind, term.shape[1:], lambda look: at(term.value(look), position))

    def arithmetic(self, node: ast.BinOp) -> _Term:
        if type(node.op) not in _ARITHMETIC:
            self.refuse(f"uses '{_source(node)}', expected one of + - * / // %")
        left, right = self.number(node.left), self.number(node.right)
        operation = computed(_ARITHMETIC[type(node.op)], divides=isinstance(node.op, _DIVISIONS))
        return _Term("number", self.joined(left, right, node), _both(operation, left, right))

    def number(self, node: ast.expr) -> _Term:
        term = self.term(node)
        if term.kind != "number":
            self.refuse(f"computes with '{_source(node)}', which is {_told(term)}, expected a number")
        return term

    def unary(self, node: ast.UnaryOp) -> _Term:
        if isinstance(node.op, ast.Not):
            operand = self.condition(node.operand)
            return _Term("bool", (), lambda look: np.logical_not(wide(operand.value(look))))
        operand = self.number(node.operand)
        if isinstance(node.op, ast.USub):
            return _Term("number", operand.shape, lambda look: safe(np.negative, wide(operand.value(look))))
        if isinstance(node.op, ast.UAdd):
            return operand
        self.refuse(f"uses '{_source(node)}', expected not, + or -")

    def condition(self, node: ast.expr) -> _Term:
        term = self.term(node)
        if term.kind != "bool" or term.shape:
            self.refuse(
                f"uses '{_source(node)}' as a condition, which is {_told(term)}: compare it, or use any() or all()"
            )
        return term

    def logic(self, node: ast.BoolOp) -> _Term:
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        terms = [self.condition(value) for value in node.values]
        return _Term("bool", (), lambda look: fold(join, [wide(term.value(look)) for term in terms]))

    def comparison(self, node: ast.Compare) -> _Term:
        operands = [self.term(each) for each in (node.left, *node.comparators)]
        steps: list[_Term] = []
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if type(operator) not in _COMPARISONS:
                self.refuse(f"uses '{_source(node)}', expected one of == != < <= > >=")
            if left.kind != right.kind:
                self.refuse(f"compares {_told(left)} with {_told(right)} in '{_source(node)}'")
            shape = self.joined(left, right, node)
            steps.append(_Term("bool", shape, _both(compared(_COMPARISONS[type(operator)]), left, right)))
        if len(steps) == 1:
            return steps[0]
        if any(step.shape for step in steps):
            self.refuse(f"chains comparisons of lists in '{_source(node)}': compare twice, joined by and")
        return _Term("bool", (), lambda look: fold(np.logical_and, [step.value(look) for step in steps]))

    def joined(self, left: _Term, right: _Term, node: ast.expr) -> tuple[int | None, ...]:
        """The shape of two terms taken together: the same, or one of them is a single value."""
        if not left.shape or not right.shape:
            return left.shape or right.shape
        same = all(a is None or b is None or a == b for a, b in zip(left.shape, right.shape, strict=False))
        if len(left.shape) != len(right.shape) or not same:
            self.refuse(f"joins {_told(left)} and {_told(right)} in '{_source(node)}'")
        return left.shape

    def call(self, node: ast.Call) -> _Term:
        name = node.func.id if isinstance(node.func, ast.Name) else _source(node.func)
        if node.keywords or not node.args or name not in (*_REDUCTIONS, "abs", "len"):
            self.refuse(
                f"calls '{_source(node)}', expected one of min max sum mean abs len any all with values in brackets"
            )
        terms = [self.term(argument) for argument in node.args]
        if len(terms) > 1:
            return self.extreme(name, terms, node)
        return self.reduction(name, terms[0], node)

    def extreme(self, name: str, terms: list[_Term], node: ast.Call) -> _Term:
        if name not in ("min", "max") or any(term.kind != "number" or term.shape for term in terms):
            self.refuse(f"calls '{_source(node)}': only min and max take several values, and each must be one number")
        join = np.minimum if name == "min" else np.maximum
        return _Term("number", (), lambda look: fold(join, [wide(term.value(look)) for term in terms]))

    def reduction(self, name: str, term: _Term, node: ast.Call) -> _Term:
        if name == "abs":
            if term.kind != "number":
                self.refuse(f"calls '{_source(node)}' with {_told(term)}, expected a number")
            return _Term("number", term.shape, lambda look: safe(np.abs, wide(term.value(look))))
        if not term.shape:
            self.refuse(f"calls '{_source(node)}' with {_told(term)}, expected a list")
        if name == "len":
            return _Term("number", (), lambda look: lengths(term.value(look)))
        wanted = ("bool",) if name in ("any", "all") else ("number", "bool") if name == "sum" else ("number",)
        if term.kind not in wanted:
            self.refuse(f"calls '{_source(node)}' with {_told(term)}, expected a list of {wanted[0]}s")
        reduce = _REDUCTIONS[name]
        kind: Kind = "bool" if name in ("any", "all") else "number"
        return _Term(kind, (), lambda look: reduced(reduce, term.value(look)))


_NODES: dict[type[ast.expr], Callable[[Compiler, Any], _Term]] = {
    ast.Constant: Compiler.constant,
    ast.Name: Compiler.name_alone,
    ast.Attribute: Compiler.attribute,
    ast.Subscript: Compiler.subscript,
    ast.BinOp: Compiler.arithmetic,
    ast.UnaryOp: Compiler.unary,
    ast.BoolOp: Compiler.logic,
    ast.Compare: Compiler.comparison,
    ast.Call: Compiler.call,
}


def _without_keyword(expression: str) -> str:
    """Rewrite `in.` and `in[` to a name that Python's grammar takes; `in` inside strings stays."""
    tokens = list(tokenize.generate_tokens(io.StringIO(expression.strip()).readline))
    spelled = []
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        is_side = token.type == tokenize.NAME and token.string == "in" and following.string in (".", "[")
        spelled.append("_in" if is_side else token.string)
    return " ".join(text for text in spelled if text.strip())


def _both(operation: Operation, left: _Term, right: _Term) -> Value:
    """Apply an operation to two terms; a single value is spread over a list's axes."""
    axes = max(len(left.shape), len(right.shape))

    def compute(look: Look) -> Any:
        return operation(look, *(spread(wide(term.value(look)), axes) for term in (left, right)))

    return compute


def _integer(node: ast.expr) -> int | None:
    sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
    inner = node.operand if isinstance(node, ast.UnaryOp) and sign < 0 else node
    if isinstance(inner, ast.Constant) and type(inner.value) is int:
        return sign * inner.value
    return None


def _told(term: _Term) -> str:
    return f"a {term.kind}" if not term.shape else f"a list of {term.kind}s"


def _source(node: ast.AST) -> str:
    return ast.unparse(node).replace("_in.", "in.").replace("_in[", "in[")
