"""What newer versions of ADS put beside the functions that users edit, held against what it may do.

A digest of the model and the choice of a device see no data: they may compute as they like, and change nothing outside
themselves. What reads a tensor out of JSON sees the data, and may go by what kind of thing came, never by its values.
What they make of the rows that are asked at packaging shows there.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from packager.dialects.ads_function import (
    CHATTER,
    DEVICE,
    EXPRESSIONS,
    KINDS,
    PARTS,
    PATHS,
    RAISED,
    STATEMENTS,
    TENSOR,
    TENSOR_OF,
    VERIFY,
    Function,
)

_REACHES_OUT = (ast.Global, ast.Nonlocal, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Delete)
_REACHING = ("setattr", "delattr", "exec", "eval", "compile", "globals", "locals", "vars", "__import__")
_CACHES = ("functools.lru_cache", "functools.cache")
_ANYWHERE = (*CHATTER, *RAISED, "FileNotFoundError", "KeyError", "OSError", "TypeError", "str", "type", "isinstance")
_TEXTS = (".encode", ".partition", ".removeprefix", ".replace", ".rpartition", ".split", ".startswith", ".strip")
_MAY_CALL = {
    VERIFY: (
        *("hashlib.sha256", "hashlib.md5", "hashlib.new", ".update", ".hexdigest", "hmac.compare_digest", "json.load"),
        *(".read", ".get", ".lower", ".items", "os.path.isfile", "os.path.getsize", "os.environ.get", "os.getenv"),
        *("pathlib.Path", ".exists", ".is_file", ".read_bytes", ".read_text", *PATHS, *_TEXTS),
    ),
    DEVICE: ("torch.device", "torch.cuda.is_available", "torch.backends.mps.is_available", "os.environ.get"),
    TENSOR_OF: (
        *("list", "tuple", "getattr", ".get", "torch.tensor", "torch.as_tensor", "torch.from_numpy"),
        *("numpy.array", "numpy.asarray", ".reshape", ".view", ".to", DEVICE, *_TEXTS),
    ),
}
_KEYS = ("data", "dtype", "shape", "device", "requires_grad")  # of a tensor as JSON
_MORE = (ast.Subscript, ast.Slice, ast.Tuple)


def faults(function: Function) -> Iterator[str]:
    """What one of them does that ADS's own does not."""
    name = function.name
    for each in function.node.decorator_list:
        if function.source.full_name(each.func if isinstance(each, ast.Call) else each) not in _CACHES:
            yield f"{name} in line {function.node.lineno} is decorated"
    for node in function.nodes:
        line = getattr(node, "lineno", function.node.lineno)
        if isinstance(node, _REACHES_OUT) or _is_stored(node) or _is_hidden(node):
            yield f"{name} reaches out of itself in line {line}"
    for call in function.calls:
        called = function.called(call)
        is_plain = name == VERIFY and hasattr(builtins, called) and called not in _REACHING
        if not is_plain and not function.is_one_of(called, (*_ANYWHERE, *_MAY_CALL[name])):
            yield f"{name} calls {called or 'what a call gave'}"
    if name == TENSOR_OF:
        yield from _goes_by_values(function)


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load)


def _is_hidden(node: ast.AST) -> bool:
    """Whether it is a name through which anything may be reached."""
    return isinstance(node, ast.Attribute) and node.attr.startswith("__")


def _goes_by_values(function: Function) -> Iterator[str]:
    """Whatever may treat one row otherwise than another."""
    tests = [node for node in function.nodes if isinstance(node, (ast.If, ast.IfExp))]
    in_tests = {id(node) for each in tests for node in ast.walk(each.test)}
    for each in tests:
        if not _asks_kind(function, each.test):
            yield f"{function.name} decides in line {each.test.lineno}"
    for node in function.nodes:
        line = getattr(node, "lineno", function.node.lineno)
        if not isinstance(node, (*STATEMENTS, *EXPRESSIONS, *PARTS, *_MORE)) and id(node) not in in_tests:
            if not isinstance(node, ast.UnaryOp) or not isinstance(node.operand, ast.Constant):
                yield f"{function.name} computes in line {line}"
        elif isinstance(node, ast.Subscript) and not _takes_member(node):
            yield f"{function.name} takes a part of a value in line {line}"


def _takes_member(node: ast.Subscript) -> bool:
    """A member of the object by its key, or a part of a text: of `torch.float32`."""
    if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        return f".{node.value.func.attr}" in _TEXTS
    return isinstance(node.slice, ast.Constant) and node.slice.value in _KEYS


def _asks_kind(function: Function, test: ast.expr) -> bool:
    """Whether a condition asks what kind of thing came: by its class, its keys, or the mark of a tensor."""
    if isinstance(test, ast.BoolOp):
        return all(_asks_kind(function, each) for each in test.values)
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not) and _asks_kind(function, test.operand)
    if isinstance(test, ast.Call):
        return function.called(test) == "isinstance" or _is_marked(test)
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    left, right = test.left, test.comparators[0]
    if isinstance(test.ops[0], (ast.Is, ast.IsNot)):
        return isinstance(right, ast.Constant) and right.value is None
    if isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
        return _is_marked(left) and isinstance(right, ast.Constant)
    said = left.value if isinstance(left, ast.Constant) else None
    is_key = isinstance(said, str) and (said in _KEYS or said.startswith(KINDS))
    return isinstance(test.ops[0], (ast.In, ast.NotIn)) and is_key and isinstance(right, ast.Name)


def _is_marked(node: ast.expr) -> bool:
    """`payload.get("__ads_torch_tensor__")`, or the same in brackets."""
    key = node.slice if isinstance(node, ast.Subscript) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        key = node.args[0]
    return isinstance(key, ast.Constant) and key.value == TENSOR
