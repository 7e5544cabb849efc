"""From a program that registers a model with `vessl` to a project: the program runs once, confined, on a copy of its
folder, and what it registers is written beside it. It may train first; it has no network.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundle.golden import GoldenRows
from bundle.pipeline import legal_name
from columns.json_value import JSON_VALUE
from columns.schema import Schema
from durable.files import publish
from edgepack.errors import BadInput, RuntimeFailed
from packager import requirements
from packager.archives import Tree, open_tree
from packager.confined import left_folder, result_of, run_confined
from packager.dialects.vessl import Registered, read_registration
from packager.dialects.vessl_layout import folder_of, repository_of
from packager.dialects.vessl_libraries import environment_of, pinned
from packager.environments import Environment
from packager.golden import read_golden
from packager.project import TOML
from packager.scaffold import fields_of, table
from runtimes.shim.vessl.registration import VOLUME

DEADLINE_S = 1800.0
_GOLDEN = "golden.json"  # found there without being named
_HINT = """
# Name every field that the runner takes and gives, with its type, to have tables; without both tables it takes and
# gives one JSON value.
# [steps.input]
# x = "list<float32>[4]"
# [steps.output]
# prediction = "float32"
"""


class _Result(msgspec.Struct, frozen=True):
    """`result.json`."""

    refused: str | None


@dataclass(frozen=True)
class _Rows:
    """Golden rows as a project keeps them."""

    name: str
    data: bytes


@dataclass(frozen=True)
class VesslProject:
    """The project that was written."""

    name: str
    path: Path
    registered: Registered


def write_vessl_project(
    program: Path,
    cache: Path,
    environ: Mapping[str, str],
    *,
    name: str | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    golden: Path | None = None,
    wheels: Path | None = None,
    notice: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
    timeout_s: float = DEADLINE_S,
) -> VesslProject:
    """Run a program and write what it registers into a folder of that name beside it.

    Raises BadInput with the program's own reason when it fails, registers nothing or what does not fit; and, before it
    is run as far as that is known, for types and golden rows that do not read and where the folder is there already.
    Nothing is written then.
    """
    given = fields or {}
    schemas = fields_of(given)
    rows = None if golden is None else _rows(golden, schemas)
    known = name or repository_of(program)
    if known:
        _goal(program.parent, legal_name(known))
    tree = folder_of(program, cache)
    environment = environment_of(program, tree, cache, environ, wheels, notice, progress)
    progress(f"running '{program.name}' in a sandbox")
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".edgepack-") as work:
        stage = Path(work)
        model, registered = _registered(program, tree, environment, stage / "run", timeout_s, progress)
        made = name or legal_name(registered.repository)
        final = _goal(program.parent, made)
        project = stage / made
        project.mkdir(mode=0o755)
        _place(model, project / "model")
        lines = pinned(registered, environment)
        (project / "model" / requirements.FILE).write_text("".join(f"{line}\n" for line in lines))
        (project / TOML).write_text(_toml(made, registered, program.name, given, rows))
        if rows is not None:
            (project / rows.name).write_bytes(rows.data)
        publish(project, final)
    return VesslProject(made, final / TOML, registered)


def _goal(folder: Path, name: str) -> Path:
    """The folder that a project will have. Raises BadInput for one that is there."""
    final = folder / name
    if final.exists():
        raise BadInput(f"'{final}' is there already: delete it to have it written anew")
    return final


def _registered(
    program: Path,
    tree: Tree,
    environment: Environment,
    folder: Path,
    timeout_s: float,
    progress: Callable[[str], None],
) -> tuple[Tree, Registered]:
    """Run the program on a copy of its folder; the files that it left, and what it registered."""
    source = folder / "program" / program.stem  # the name by which messages call it
    for inside, path in tree.files.items():
        target = source / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    job = {"folder": str(folder.resolve()), "program": str((source / program.name).resolve())}

    def told(words: str) -> None:
        progress(f"running '{program.name}' in a sandbox: …{words[-60:]}" if words else f"running '{program.name}'")

    run_confined("convert.registering", job, source, environment, folder, timeout_s, "running", told=told)
    refused = result_of(folder, _Result, f"running '{program.name}'").refused
    if refused is not None:
        raise BadInput(f"'{program.name}' does not register its model: {' '.join(refused.split())[:400]}")
    model = _left(folder, program.name)
    return model, read_registration(model)


def _left(folder: Path, program: str) -> Tree:
    """The files of the model that the program left. Raises BadInput where it left none, or other things than files."""
    try:
        made = left_folder(folder, "model")
        if not any(made.iterdir()):
            raise BadInput(f"'{program}' ran to its end and registered no model: call vessl.register_model at its top")
        model = open_tree(made, folder / "cache")
    except OSError as error:
        raise RuntimeFailed(f"running '{program}' left no model that reads: {error.strerror or error}") from error
    if VOLUME in model.files:
        raise RuntimeFailed(f"running '{program}' left a file named '{VOLUME}' in place of the model's folder")
    return model


def _place(model: Tree, folder: Path) -> None:
    """Move the files of a registered model into a new folder, with a volume, and nothing else that lies among them."""
    (folder / VOLUME).mkdir(mode=0o755, parents=True)
    for inside, path in model.files.items():
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _rows(path: Path, schemas: Mapping[str, Schema]) -> _Rows:
    """Golden rows as they are, or bare values as rows of a step without fields: `[{"x": 1}]` is one such row.

    Raises BadInput for what does not read, and for rows that do not fit the fields where both sides are known.
    """
    if schemas:
        if len(schemas) == 2:
            read_golden(path, schemas["input"], schemas["output"], "")
        return _Rows(f"golden{path.suffix}", path.read_bytes())
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"golden rows '{path.name}' are not JSON: {error}", field="golden") from error
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"golden rows '{path.name}' are no list of what the runner is asked", field="golden")
    whole = [row if isinstance(row, dict) and "in.json" in row else {"in.json": row} for row in rows]
    data = json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"
    try:
        GoldenRows.decode(data, JSON_VALUE, JSON_VALUE)
    except BadInput as error:
        raise BadInput(f"golden rows '{path.name}': {error}", field="golden") from error
    return _Rows(_GOLDEN, data)


def _toml(
    name: str, registered: Registered, program: str, fields: Mapping[str, Mapping[str, str]], rows: _Rows | None
) -> str:
    number = "" if registered.number is None else f", number {registered.number}"
    parts = [
        f"# Written by `edgepack init {program}`; yours to edit.\n",
        f"# {registered.runner} of {json.dumps(registered.repository)}{number}.\n\n",
        f"[pipeline]\nname = {json.dumps(name)}\n\n",
        f'[[steps]]\nname = {json.dumps(name)}\nmodel = "model"\nframework = "vessl"\n',
        *(table(f"steps.{side}", given) for side, given in fields.items()),
    ]
    if rows is not None and rows.name != _GOLDEN:
        parts.append(table("golden", {"rows": rows.name}))
    return "".join(parts if fields else [*parts, _HINT])
