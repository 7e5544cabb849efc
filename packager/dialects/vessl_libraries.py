"""What a program that registers a model with `vessl` needs to run, told by parsing it; and, of what it ran with, what
its runner needs on a device.
"""

from __future__ import annotations

import ast
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from packager import requirements
from packager.archives import Tree
from packager.dialects.libraries import PACKAGES, packages_of
from packager.dialects.vessl import Registered
from packager.dialects.vessl_layout import registrations
from packager.environments import Environment, Recipe, ready
from packager.frameworks.sources import imports_of, reached

_OURS = ("vessl", "mac", "wallaroo")
_HEAVY = {"torch": 900, "tensorflow-cpu": 1400, "tensorflow": 1400}  # MB
_TORCH = str(requirements.pinned_version(PACKAGES["torch"][0]))


def environment_of(
    program: Path,
    tree: Tree,
    cache: Path,
    environ: Mapping[str, str],
    wheels: Path | None,
    notice: Callable[[str], None],
    progress: Callable[[str], None],
) -> Environment:
    """What a program of a folder needs to run: a requirements.txt beside it, what it registers, and what it imports.

    Raises BadInput for lines that do not read, code that does not parse, and a module whose package is not said.
    """
    asked = libraries_of(program, tree)
    recipe = Recipe(f"of {program.name}", tuple(sorted(set(asked))), _about_mb(asked), is_resolved_here=True)
    return ready(recipe, cache, environ, notice=notice, progress=progress, wheels=wheels)


def libraries_of(program: Path, tree: Tree) -> list[str]:
    """The requirement lines of `environment_of`."""
    lines: list[str] = []
    if requirements.FILE in tree.files:
        data = tree.read(requirements.FILE, requirements.LARGEST)
        lines = requirements.read_requirements(data, f"{requirements.FILE} in '{tree.name}'")
    named = {requirements.name_of(line) for line in lines}
    lines += [line for line in _said(program) if requirements.name_of(line) not in named]
    asked = [*map(_for_the_cpu, lines), "cloudpickle", "numpy"]
    sources = reached(tree, program.name)
    imported = imports_of(sources) - set(_OURS)
    for source in sources:
        asked = packages_of(imported & source.imported(), asked, source.path)
    return asked


def pinned(registered: Registered, environment: Environment) -> list[str]:
    """What was registered, in the versions the model was made with; and what unpickles its runner."""
    kept = [line for line in registered.asked("requirements of the registered model") if not _is_ours(line)]
    names = {requirements.name_of(line) for line in kept}
    found = environment.kept.packages
    lines = kept + [name for name in ("cloudpickle", "numpy") if name not in names and name in found]
    return sorted(
        requirements.repinned(line, found[requirements.name_of(line)]) if requirements.name_of(line) in found else line
        for line in lines
    )


def _said(program: Path) -> list[str]:
    """The requirements that stand in the call itself, as literals."""
    found: list[str] = []
    for call in registrations(ast.parse(program.read_bytes())):
        for keyword in call.keywords:
            if keyword.arg == "requirements" and isinstance(keyword.value, (ast.List, ast.Tuple)):
                values = (each.value for each in keyword.value.elts if isinstance(each, ast.Constant))
                found += [value for value in values if isinstance(value, str)]
    where = f"requirements in '{program.name}'"
    return [line for line in requirements.read_requirements("\n".join(found).encode(), where) if not _is_ours(line)]


def _is_ours(line: str) -> bool:
    return requirements.name_of(line) in _OURS


def _for_the_cpu(line: str) -> str:
    """The same line; one that names torch in any version gets ours: newer ones bring gigabytes of CUDA."""
    is_open = requirements.name_of(line) == "torch" and requirements.is_open(line)
    return requirements.repinned(line, _TORCH) if is_open else line


def _about_mb(lines: list[str]) -> int:
    """What an environment takes on this machine: of one library for several machines only the one for it."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    there = (line for line in lines if requirements.applies(line, python, platform.machine()))
    names = {requirements.name_of(line) for line in there}
    return 200 + sum(size for name, size in _HEAVY.items() if name in names)
