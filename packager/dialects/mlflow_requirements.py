"""What an MLflow model needs, by its own words: requirements.txt, else conda.yaml, else python_env.yaml.

All become lines that a resolver takes. `-c constraints.txt`, which log_model writes where it was given constraints,
bounds the lines of the same packages; packages that only come with others are not bounded by it, which a notice says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from edgepack.errors import BadInput
from packager import requirements
from packager.archives import Tree
from packager.plain_yaml import read_yaml

CONDA, PYTHON_ENV = "conda.yaml", "python_env.yaml"
_CONSTRAINTS = "constraints.txt"
_CONSTRAINED = re.compile(rb"(?m)^[ \t]*(?:-c|--constraint)[ \t=]+constraints\.txt[ \t\r]*$")
_CONDA_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)", re.DOTALL)
_WITH_BUILD = re.compile(r"={0,2}\s*([^=<>!~,|\s]+)\s*[=\s]\s*[^=<>!~,|\s]+")  # `=1.9.1=py39_0`
_CLAUSE = re.compile(r"(==|=|>=|<=|>|<|!=|~=|)\s*([0-9][A-Za-z0-9.!+_]*?)(\.?\*)?")
_SKINNY = "mlflow-skinny"  # what loads models, without the server's and the tracking store's libraries
_MLFLOW = ("mlflow", _SKINNY)
_LOADERS = ("numpy", "pandas")  # imported by mlflow.pyfunc, and not named by every model
_NOT_PIP = ("python", "pip", "setuptools", "wheel")
_SHOWN = 5  # names in a sentence


@dataclass(frozen=True)
class Asked:
    """Requirement lines, and those of the constraints that bound them."""

    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()

    def bounded(self, lines: Iterable[str]) -> list[str]:
        """Lines with what the constraints say of their packages. Raises BadInput where a pin is outside of that."""
        bounds: dict[str, list[Requirement]] = {}
        for line in self.constraints:
            bounds.setdefault(requirements.name_of(line), []).append(Requirement(line))
        made = []
        for line in lines:
            plain, more = Requirement(line), []
            for bound in bounds.get(requirements.name_of(line), ()):
                if bound.marker is not None:
                    more.append(_where_both(plain, bound))
                elif pinned := requirements.pinned_version(line):
                    _check_inside(pinned, bound, line)
                else:
                    plain.specifier &= bound.specifier
            made += [str(plain), *more]
        return made

    def unbounded(self, lines: Iterable[str]) -> str:
        """A sentence of the constraints whose packages no line names; nothing where there is none."""
        named = {"mlflow", *map(requirements.name_of, lines)}  # mlflow's small build is bounded by both names
        names = [name for line in self.constraints if (name := requirements.name_of(line)) not in named]
        if not names:
            return ""
        shown = ", ".join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])
        return f"{_CONSTRAINTS} bounds packages that no requirement names, which is not heeded: {shown}"


def read_asked(tree: Tree) -> Asked:
    """What a model asks for. Raises BadInput that names file and line for what does not read."""
    for path, read in ((requirements.FILE, None), (CONDA, _of_conda), (PYTHON_ENV, _of_python_env)):
        if path in tree.files:
            where, data = f"{path} in '{tree.name}'", tree.read(path, requirements.LARGEST)
            if read is not None:
                data = "\n".join(read(entries(data, where), where)).encode()
            data, constrained = _CONSTRAINED.subn(b"", data)
            lines = requirements.read_requirements(data, where)
            return Asked(tuple(lines), _constraints(tree, where) if constrained else ())
    return Asked()


def worker_lines(asked: Asked, saved_by: str | None) -> list[str]:
    """What a worker needs: the model's own lines, with mlflow's small build in the place of the whole one; of the
    version that saved it where they name none.
    """
    own = asked.bounded(asked.lines)
    whole = [line for line in own if requirements.name_of(line) in _MLFLOW]
    whole = whole or asked.bounded([f"mlflow=={saved_by}" if saved_by else "mlflow"])
    lines = [line for line in own if requirements.name_of(line) not in _MLFLOW]
    named = {requirements.name_of(line) for line in lines}
    loaders = asked.bounded(name for name in _LOADERS if name not in named)
    return sorted({*lines, *map(_as_skinny, whole), *loaders}, key=str.lower)


def entries(data: bytes, where: str) -> list[Any]:
    """The `dependencies` of a conda.yaml or python_env.yaml. Raises BadInput where they are no list."""
    said = read_yaml(data, where)
    found = said.get("dependencies") if isinstance(said, dict) else None
    if found is not None and not isinstance(found, list):
        raise BadInput(f"{where}: dependencies is no list: expected names of packages")
    return found or []


def _constraints(tree: Tree, where: str) -> tuple[str, ...]:
    if _CONSTRAINTS not in tree.files:
        raise BadInput(f"{where} names '{_CONSTRAINTS}', which '{tree.name}' does not have: copy the folder again")
    data = tree.read(_CONSTRAINTS, requirements.LARGEST)
    return tuple(requirements.read_requirements(data, f"{_CONSTRAINTS} in '{tree.name}'"))


def _of_conda(said: list[Any], where: str) -> list[str]:
    lines: list[str] = []
    for each in said:
        if isinstance(each, dict) and list(each) == ["pip"]:
            lines += _texts([] if each["pip"] is None else each["pip"], f"{where}: pip")
        else:
            lines += _conda_lines(each, where)
    return lines


def _of_python_env(said: list[Any], where: str) -> list[str]:
    return [line for line in _texts(said, f"{where}: dependencies") if line != f"-r {requirements.FILE}"]


def _texts(said: Any, where: str) -> list[str]:
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise BadInput(f"{where} is no list of requirements: expected lines like scikit-learn==1.5.2")
    return said


def _conda_lines(said: Any, where: str) -> list[str]:
    """A package in conda's words as pip's: `=1.2` is any 1.2, with a build string exactly that one."""
    found = _CONDA_NAME.fullmatch(said.rpartition("::")[2].strip()) if isinstance(said, str) else None
    if found is None:
        raise _no_requirement(said, where)
    if found[1].lower() in _NOT_PIP:
        return []
    build = _WITH_BUILD.fullmatch(found[2])
    clauses = f"=={build[1]}" if build else found[2].rstrip()
    line = found[1] + ",".join(_clause(each, said, where) for each in clauses.split(",") if clauses)
    try:
        Requirement(line)
    except InvalidRequirement as error:
        raise _no_requirement(said, where) from error
    return [line]


def _clause(clause: str, said: str, where: str) -> str:
    found = _CLAUSE.fullmatch(clause.strip())
    if found is None:
        raise _no_requirement(said, where)
    operator, version, star = found[1] or "==", found[2], found[3]
    if operator == "=" or (star and operator in ("==", "!=")):
        return f"{'==' if operator == '=' else operator}{version}.*"
    return f"{operator}{version}"


def _no_requirement(said: Any, where: str) -> BadInput:
    return BadInput(f"{where} lists {said!r:.80}, which no requirement says: expected a package like numpy>=1.2,<2")


def _as_skinny(line: str) -> str:
    found = Requirement(line)
    found.name, found.extras = _SKINNY, set()
    return str(found)


def _where_both(plain: Requirement, bound: Requirement) -> str:
    """A bound that holds on some machines alone, as a line beside the one that it bounds."""
    marker = f"({plain.marker}) and ({bound.marker})" if plain.marker else str(bound.marker)
    return str(Requirement(f"{plain.name}{bound.specifier}; {marker}"))


def _check_inside(version: str, bound: Requirement, line: str) -> None:
    if not bound.specifier.contains(version, prereleases=True):
        raise BadInput(f"'{line}' is outside of '{canonicalize_name(bound.name)}{bound.specifier}' in {_CONSTRAINTS}")
