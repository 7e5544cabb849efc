"""An MLflow model folder as it lies: what MLmodel says, where its flavours keep their files, what they need.

Read without mlflow and without loading anything: YAML, JSON and names of files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgepack.errors import BadInput
from packager.archives import Tree, is_zip, names_in
from packager.dialects.mlflow_requirements import CONDA, PYTHON_ENV, entries, read_asked, worker_lines
from packager.dialects.mlflow_signature import Signature, Untyped, read_signature
from packager.plain_yaml import LARGEST, read_yaml

MLMODEL = "MLmodel"
PYFUNC = "python_function"
_MINOR = re.compile(r"(\d+\.\d+)(\.\d+)?")


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
        """What a worker needs."""
        return worker_lines(read_asked(self.tree), self.version)

    def _env_python(self) -> Any:
        if PYTHON_ENV in self.tree.files:
            said = read_yaml(self.tree.read(PYTHON_ENV, LARGEST), f"{PYTHON_ENV} in '{self.tree.name}'")
            return said.get("python") if isinstance(said, dict) else None
        if CONDA in self.tree.files:
            said = entries(self.tree.read(CONDA, LARGEST), f"{CONDA} in '{self.tree.name}'")
            lines = (each for each in said if isinstance(each, str))
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
