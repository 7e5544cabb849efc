"""Finds the one source file that defines what is looked for, without running any; then imports that one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

_SHIM = str(Path(__file__).resolve().parent.parent)


def import_the_one(
    folder: Path,
    defines: Callable[[ast.Module], int],
    what: str,
    entry: str | None = None,
    first: Path | None = None,
) -> ModuleType:
    """Import the file `entry` under `folder`; where none is given, the one in which `defines` counts one definition.

    The folder `first`, that of the file and the whole come onto the path, and the whole becomes the working directory:
    users' code imports its neighbours and opens its files by either. Raises ImportError for none or several.
    """
    path = folder / entry if entry else _the_one(folder, defines, what)
    os.chdir(folder)
    # behind the standard library and our shims, before the packages: none of them hides a user's module
    at = sys.path.index(_SHIM) + 1 if _SHIM in sys.path else len(sys.path)
    places = [*([first] if first else []), path.parent, folder]
    sys.path[at:at] = list(dict.fromkeys(map(str, places)))
    return _imported(path, _module_name(path, folder))


def _the_one(folder: Path, defines: Callable[[ast.Module], int], what: str) -> Path:
    broken: list[Exception] = []
    found = list(_definitions(folder, defines, broken))
    if not found and broken:
        raise broken[0]
    if len(found) != 1 or found[0][1] != 1:
        total = sum(count for _, count in found)
        where = ", ".join(path.relative_to(folder).as_posix() for path, _ in found)
        raise ImportError(f"expected exactly one {what}, found {total}{f' (in {where})' if where else ''}")
    return found[0][0]


def _imported(path: Path, name: str) -> ModuleType:
    """By its file: a module of the standard library may have the same name."""
    if "." in name or (name not in sys.modules and _is_found(name, path)):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"step_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{path.name}' cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _is_found(name: str, path: Path) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None and Path(spec.origin) == path


def _definitions(
    folder: Path, defines: Callable[[ast.Module], int], broken: list[Exception]
) -> Iterator[tuple[Path, int]]:
    """Files with definitions. One that does not parse (a template, Python 2) only matters where nothing is found."""
    for path in _sources(folder):
        try:
            count = defines(ast.parse(path.read_bytes(), filename=path.name))
        except (SyntaxError, ValueError) as error:
            broken.append(error)
            continue
        if count:
            yield path, count


def _sources(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*.py") if path.is_file())
    return sorted(path for path in found if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX", "__pycache__")) for part in path.parts)


def _module_name(path: Path, folder: Path) -> str:
    """Dotted where the file lies in a package (a folder with __init__.py), so that its relative imports work."""
    parts = [path.stem]
    above = path.parent
    while above != folder and (above / "__init__.py").is_file():
        parts.insert(0, above.name)
        above = above.parent
    if len(parts) > 1 and str(above) not in sys.path:
        sys.path.append(str(above))
    return ".".join(parts)
