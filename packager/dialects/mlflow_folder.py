"""An MLflow model folder as it lies: what MLmodel says, where its flavours keep their files, what they need.

Read without mlflow and without loading anything: YAML, JSON and names of files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import Requirement

from edgepack.errors import BadInput
from packager import requirements
from packager.archives import Tree, is_zip, names_in
from packager.dialects.mlflow_signature import Signature, Untyped, read_signature
from packager.plain_yaml import LARGEST, read_yaml

MLMODEL = "MLmodel"
PYFUNC = "python_function"
_CONDA, _PYTHON_ENV = "conda.yaml", "python_env.yaml"
_MINOR = re.compile(r"(\d+\.\d+)(\.\d+)?")
_CONDA_LINE = re.compile(r"([A-Za-z0-9._-]+)\s*(?:={1,2}\s*([A-Za-z0-9.!+*-]+))?(?:=[^=]+)?")
_NOT_PIP = ("python", "pip", "setuptools", "wheel")
_SKINNY = "mlflow-skinny"  # what loads models, without the server's and the tracking store's libraries
_LOADERS = ("numpy", "pandas")  # imported by mlflow.pyfunc, and not named by every model


@dataclass(frozen=True)
class MlflowModel:
    """One model folder. `flavors` maps flavour to its settings; `signature` None: it leaves types open, `untyped` says
    how.
    """

    tree: Tree
    flavors: Mapping[str, Mapping[str, Any]]
    signature: Signature
    untyped: str | None
    version: str | None  # of the mlflow that saved it

    @property
    def native(self) -> str | None:
        """The flavour beside pyfunc, by the name that MLflow gives it."""
        return next((name for name in self.flavors if name != PYFUNC), None)

    @property
    def pyfunc(self) -> Mapping[str, Any] | None:
        """The settings of the flavour that any model has."""
        return self.flavors.get(PYFUNC)

    @property
    def python(self) -> str | None:
        """The Python that saved it: "3.11"."""
        said = (self.pyfunc or {}).get("python_version") or self._env_python()
        found = _MINOR.match(said) if isinstance(said, str) else None  # YAML takes 3.10 for the number 3.1
        return found[1] if found else None

    def place(self, flavor: str, key: str) -> str | None:
        """Where a flavour keeps what `key` names: a path in the tree, of a file or folder; None where it is not said.

        Raises BadInput for a path that leads out of the folder or to nothing.
        """
        said = self.flavors[flavor].get(key)
        if said is None:
            return None
        where = f"flavors.{flavor}.{key} in {MLMODEL}"
        path = PurePosixPath(said) if isinstance(said, str) and said else None
        if path is None or path.is_absolute() or ".." in path.parts or "\\" in str(path) or not str(said).isprintable():
            raise BadInput(
                f"{where} = {str(said)[:80]!r} leads out of the model: expected a path in '{self.tree.name}'"
            )
        if str(path) not in self.tree.files and not self.below(str(path)):
            raise BadInput(f"{where} names '{path}', which '{self.tree.name}' does not have: copy the folder again")
        return str(path)

    def below(self, folder: str) -> list[str]:
        """The files in a folder of the model, sorted."""
        return sorted(path for path in self.tree.files if path.startswith(f"{folder}/"))

    def requirements(self) -> list[str]:
        """What a worker needs: the model's own lines, with mlflow's small build in the place of the whole one."""
        lines = [line for line in self._own_lines() if requirements.name_of(line) not in ("mlflow", _SKINNY)]
        named = {requirements.name_of(line) for line in lines}
        return sorted([*lines, self._skinny(), *(name for name in _LOADERS if name not in named)], key=str.lower)

    def _skinny(self) -> str:
        """The line for mlflow: the version that the model asks for, else the one that saved it."""
        for line in self._own_lines():
            if requirements.name_of(line) in ("mlflow", _SKINNY):
                found = Requirement(line)
                return f"{_SKINNY}{found.specifier}" if str(found.specifier) else _SKINNY
        return f"{_SKINNY}=={self.version}" if self.version else _SKINNY

    def _own_lines(self) -> list[str]:
        """requirements.txt, else what conda.yaml lists, else python_env.yaml."""
        for path, read in (
            (requirements.FILE, lambda data: data),
            (_CONDA, self._conda_lines),
            (_PYTHON_ENV, self._python_env_lines),
        ):
            if path in self.tree.files:
                data = read(self.tree.read(path, requirements.LARGEST))
                return requirements.read_requirements(data, f"{path} in '{self.tree.name}'")
        return []

    def _conda_lines(self, data: bytes) -> bytes:
        lines: list[str] = []
        for each in _entries(data, f"{_CONDA} in '{self.tree.name}'"):
            if isinstance(each, dict):
                lines += [str(line) for line in each.get("pip") or []]
                continue
            found = _CONDA_LINE.fullmatch(str(each).rpartition("::")[2].strip())
            if found and found[1].lower() not in _NOT_PIP:
                lines.append(f"{found[1]}=={found[2]}" if found[2] else found[1])
        return "\n".join(lines).encode()

    def _python_env_lines(self, data: bytes) -> bytes:
        lines = [str(each) for each in _entries(data, f"{_PYTHON_ENV} in '{self.tree.name}'")]
        return "\n".join(line for line in lines if not line.startswith("-r ")).encode()

    def _env_python(self) -> Any:
        if _PYTHON_ENV in self.tree.files:
            said = read_yaml(self.tree.read(_PYTHON_ENV, LARGEST), f"{_PYTHON_ENV} in '{self.tree.name}'")
            return said.get("python") if isinstance(said, dict) else None
        if _CONDA in self.tree.files:
            entries = _entries(self.tree.read(_CONDA, LARGEST), f"{_CONDA} in '{self.tree.name}'")
            lines = (str(each) for each in entries if not isinstance(each, dict))
            return next((line.rpartition("=")[2] for line in lines if line.startswith("python=")), None)
        return None


def is_model(path: Path) -> bool:
    """Whether a folder or zip has an MLmodel at its top."""
    return (path / MLMODEL).is_file() if path.is_dir() else is_zip(path) and MLMODEL in names_in(path)


def read_model(tree: Tree) -> MlflowModel:
    """Read MLmodel. Raises BadInput, one line, for what does not read or has no flavours."""
    where = f"{MLMODEL} in '{tree.name}'"
    if MLMODEL not in tree.files:
        raise BadInput(f"'{tree.name}' has no {MLMODEL} at its top: expected the folder that save_model() wrote")
    said = read_yaml(tree.read(MLMODEL, LARGEST), where)
    flavors = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavors, dict) or not flavors or not all(isinstance(each, dict) for each in flavors.values()):
        raise BadInput(f"{where} has no flavors: expected the folder that save_model() wrote")
    try:
        signature, untyped = read_signature(said.get("signature"), where), None
    except Untyped as error:
        signature, untyped = Signature(), str(error)
    version = said.get("mlflow_version")
    return MlflowModel(
        tree, {str(name): each for name, each in flavors.items()}, signature, untyped, _plain_version(version)
    )


def _plain_version(said: Any) -> str | None:
    return said if isinstance(said, str) and re.fullmatch(r"[0-9][0-9A-Za-z.]{0,40}", said) else None


def _entries(data: bytes, where: str) -> list[Any]:
    said = read_yaml(data, where)
    found = said.get("dependencies") if isinstance(said, dict) else None
    if found is not None and not isinstance(found, list):
        raise BadInput(f"{where}: dependencies is no list: expected names of packages")
    return found or []
