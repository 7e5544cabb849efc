"""What is of VESSL, told by names and by parsing; nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

from packager.archives import Tree, open_tree
from runtimes.shim.vessl.registration import RECORD, RUNNER

CALLS = ("register_model", "register_torch_model")
_LARGEST = 1 << 20  # bytes of a program


def is_one(path: Path) -> bool:
    """Whether a path is the folder of a registered model, or a program that registers one."""
    if path.is_dir():
        return (path / RECORD).is_file() and (path / RUNNER).is_file()
    return is_program(path)


def is_program(path: Path) -> bool:
    """Whether a file is Python that imports `vessl` and registers a model; it is parsed, not run."""
    if path.suffix != ".py" or not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    return "vessl" in names and bool(registrations(tree))


def folder_of(program: Path, cache: Path) -> Tree:
    """The files that a program lies among: without hidden folders and virtual environments, which run nowhere else."""
    folder = program.parent
    environments = {found.parent for found in folder.rglob("pyvenv.cfg")} - {folder}

    def is_apart(path: Path) -> bool:
        *above, name = path.relative_to(folder).parts
        is_hidden = name.startswith(".") and (path.is_symlink() or path.is_dir())
        return is_hidden or any(part.startswith(".") for part in above) or not environments.isdisjoint(path.parents)

    return open_tree(folder, cache, is_apart=is_apart)


def repository_of(program: Path) -> str | None:
    """The name that a program registers its model under, where that stands in its one call as a literal."""
    calls = registrations(ast.parse(program.read_bytes()))
    if len(calls) != 1:
        return None
    named = [keyword.value for keyword in calls[0].keywords if keyword.arg == "repository_name"]
    for said in [*calls[0].args[:1], *named]:
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            return said.value
    return None


def registrations(tree: ast.Module) -> list[ast.Call]:
    """The calls that register a model."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) in CALLS]
