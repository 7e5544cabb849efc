"""Python source as a user uploads it: parsed, never imported. What a module defines, under which full names.

Only what stands at a module's top level counts (also inside `if` and `try`): that is what a loader finds by name.
Names are resolved through the module's imports: `from mac.types import InferenceData as D` makes `D` stand for
`mac.types.InferenceData`.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from edgepack.errors import BadInput
from packager.archives import Tree

LARGEST = 4 << 20  # bytes of a Python file
MOST_NESTED = 64  # levels of `if` and `try` that are looked into
_MODULE_ENDS = (".py", "/__init__.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file of an upload, parsed: its path, and what its names stand for."""

    path: str
    tree: ast.Module
    names: dict[str, str]

    @cached_property
    def names_anywhere(self) -> dict[str, str]:
        """What imports bind at the top level or below it, as those inside a function do."""
        return dict(_bound(self.path, ast.walk(self.tree)))

    @property
    def module(self) -> str:
        """The name it is imported by, from the upload's folder."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def functions(self, name: str) -> list[Function]:
        """The functions of that name at the top level."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [each for each in _top_level(self.tree.body) if isinstance(each, kinds) and each.name == name]

    def classes(self) -> list[ast.ClassDef]:
        """The classes at the top level."""
        return [each for each in _top_level(self.tree.body) if isinstance(each, ast.ClassDef)]

    def full_name(self, node: ast.expr | None) -> str:
        """What `Inference`, `inference.Inference` or `"Inference"` stands for here; empty for what is no name."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            node = ast.Name(node.value)
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.names.get(node.id, f"{self.module}.{node.id}"), *reversed(parts)])

    def imported(self) -> set[str]:
        """The first part of every module that is imported anywhere in the file."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
        return found


@dataclass(frozen=True)
class Entry:
    """Where the code of an upload begins: the file in it, the name in that file, and what the file imports by."""

    path: str
    name: str
    sources: tuple[Source, ...]


def sources_of(tree: Tree) -> list[Source]:
    """Parse every Python file of an upload. Raises BadInput that names file and line of what does not parse."""
    paths = tree.sources()
    if not paths:
        raise BadInput(f"'{tree.name}' has no Python file: expected at least one .py")
    return [_parsed(tree, path) for path in paths]


def imports_of(sources: Iterable[Source]) -> set[str]:
    """The libraries that an upload imports: neither the standard library's modules nor its own."""
    sources = list(sources)
    own = {source.path.partition("/")[0].removesuffix(".py") for source in sources}
    own |= {source.module.rpartition(".")[2] for source in sources}
    return {name for source in sources for name in source.imported()} - own - set(sys.stdlib_module_names)


def reached(tree: Tree, start: str) -> list[Source]:
    """A Python file of an upload and those of its own that it imports, itself or through others; no other is parsed."""
    found: dict[str, Source] = {}
    waiting, paths = [start], tree.sources()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = _parsed(tree, path)
            waiting += [own for module in sorted(_modules(found[path])) for own in _own_files(paths, module)]
    return list(found.values())


def _modules(source: Source) -> set[str]:
    """Every module that a file may import, by its whole name: `from a import b` may import `a.b`."""
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(source.path, node)
            found.update(f"{origin}.{alias.name}".lstrip(".") for alias in node.names)
    return found


def _own_files(paths: list[str], module: str) -> list[str]:
    """The files of an upload that importing a module runs: its own and those of the packages that it lies in."""
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names:
        return []
    wanted = [f"/{'/'.join(parts[:length])}{end}" for length in range(1, len(parts) + 1) for end in _MODULE_ENDS]
    at_top = [path for path in paths if f"/{path}" in wanted]
    # code may put a folder of its own on the path before it imports from there
    return at_top or [path for path in paths if path.endswith(tuple(wanted))]


def _parsed(tree: Tree, path: str) -> Source:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a user's string is theirs to know
            found = ast.parse(tree.read(path, LARGEST), filename=path)
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "its encoding"
        raise BadInput(f"'{path}' in '{tree.name}' is not Python {_minor()}: {where}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"'{path}' in '{tree.name}' does not parse: {error or type(error).__name__}") from error
    return Source(path, found, dict(_bound(path, _top_level(found.body))))


def _bound(path: str, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """What imports among the nodes of a file bind, with the full name of each."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(path, node)
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin}.{alias.name}".lstrip(".")


def _origin(path: str, node: ast.ImportFrom) -> str:
    """The module that `from x import` names; a relative one is seen from the package that the file lies in."""
    if not node.level:
        return node.module or ""
    folders = path.split("/")[: -node.level]
    return ".".join([*folders, *([node.module] if node.module else [])])


def _top_level(body: list[ast.stmt], depth: int = 0) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if depth < MOST_NESTED:
            for part in ("body", "orelse", "finalbody"):
                if isinstance(node, (ast.If, ast.Try, ast.With)) and getattr(node, part, None):
                    yield from _top_level(getattr(node, part), depth + 1)
            for clause in getattr(node, "handlers", ()):
                yield from _top_level(clause.body, depth + 1)


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
