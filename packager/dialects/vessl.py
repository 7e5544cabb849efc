"""VESSL: a model as a program registered it, with the runner that asks it.

Two things are of this dialect: a `.py` file that calls `register_model` or `register_torch_model`, which `edgepack
init` runs once in a sandbox (`vessl_program`), and the folder that came of it, which is packaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgepack.errors import BadInput
from packager import requirements
from packager.archives import Tree, open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.code_model import is_json, schemas
from packager.project import StepSource
from runtimes.shim.vessl.registration import INSTANCE, RECORD, RUNNER

REASON = "a runner of the user's own: it runs in a worker"
_LARGEST = 1 << 20  # bytes of a registration


class Registered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`registration.json`."""

    repository: str
    number: int | None
    runner: str
    loads: bool
    props: dict[str, str] | None
    artifacts: dict[str, str]
    requirements: list[str]
    python: str
    adds: list[str] = []  # packages that registering asks for, where no requirement names them

    def asked(self, where: str) -> list[str]:
        """The requirement lines, what it adds among them. Raises BadInput that names the line."""
        lines = requirements.read_requirements("\n".join(self.requirements).encode(), where)
        named = {requirements.name_of(line) for line in lines}
        return lines + [package for package in self.adds if package not in named]


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a registered model, each thing as a named check. Raises BadInput when one of them fails."""
    found: list[tuple[Tree, Registered]] = []
    with checklist.check("model.code") as told:
        if not source.model.is_dir():
            raise BadInput(
                f"'{source.model.name}' registers a model when it runs: run it once, in a sandbox, with: "
                f"edgepack init {source.model.name}"
            )
        tree = open_tree(source.model, cache)
        found.append((tree, read_registration(tree)))
        told.append(f"{found[0][1].runner} of '{found[0][1].repository}'")
    checklist.require()
    tree, registered = found[0]
    with checklist.check("model.schema") as told:
        fields = schemas(source, "vessl")
        told.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    with checklist.check("model.requirements") as told:
        asked = _asked(tree, registered)
        told.append(", ".join(asked))
    checklist.require()
    options: dict[str, Any] = {"json": True} if is_json(source) else {}
    return ModelArtifact.in_worker(
        source,
        "vessl",
        "vessl",
        fields,
        tree.files,
        summary=f"{registered.runner} of '{registered.repository}', {len(tree.files)} files",
        requirements=tuple(asked),
        options=options,
        reason=REASON,
        python=registered.python,
    )


def read_registration(tree: Tree) -> Registered:
    """What was registered. Raises BadInput for a folder that is not whole."""
    if RECORD not in tree.files:
        raise BadInput(f"'{tree.name}' lacks {RECORD}: make it anew: edgepack init")
    try:
        found = msgspec.json.decode(tree.read(RECORD, _LARGEST), type=Registered)
    except msgspec.MsgspecError as error:
        raise BadInput(f"'{RECORD}' in '{tree.name}' does not read: {error}; make it anew: edgepack init") from error
    needed = RUNNER if found.loads else INSTANCE
    for name in (RUNNER, needed):
        if name not in tree.files:
            raise BadInput(f"'{tree.name}' lacks {name}: make it anew: edgepack init")
    return found


def _asked(tree: Tree, registered: Registered) -> list[str]:
    where = f"{requirements.FILE} in '{tree.name}'"
    if requirements.FILE in tree.files:
        lines = requirements.read_requirements(tree.read(requirements.FILE, requirements.LARGEST), where)
    else:
        lines = registered.asked(where)
    return requirements.with_imports(sorted({*lines, "cloudpickle"} if not _has(lines) else lines), ())


def _has(lines: list[str]) -> bool:
    return any(requirements.name_of(line) == "cloudpickle" for line in lines)
