"""From a program that registers a model with `vessl` to a project: the program runs once, confined, on a copy of its
folder, and what it registers is written beside it. It may train first; it has no network.
"""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.pipeline import legal_name
from durable.files import publish
from edgepack.errors import BadInput, RuntimeFailed
from packager import requirements
from packager.archives import Tree, open_tree
from packager.confined import run_confined
from packager.dialects.libraries import PACKAGES, packages_of
from packager.dialects.vessl import Registered, read_registration
from packager.dialects.vessl_layout import registrations
from packager.environments import Environment, Recipe, ready
from packager.frameworks.sources import imports_of, sources_of
from packager.project import TOML
from packager.scaffold import table
from runtimes.shim.vessl.registration import VOLUME

DEADLINE_S = 1800.0
GOLDEN = "golden.json"
_OURS = ("vessl", "mac", "wallaroo")
_HEAVY = {"torch": 900, "tensorflow-cpu": 1400, "tensorflow": 1400}  # MB
_HINT = """
# Name every field that the runner takes and gives, with its type, to have tables; without both tables it takes and
# gives one JSON value.
# [steps.input]
# x = "list<float32>[4]"
# [steps.output]
# prediction = "float32"
"""


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

    Raises BadInput with the program's own reason when it fails, registers nothing or what does not fit, and where the
    folder is there already; nothing is written then.
    """
    tree = open_tree(program.parent, cache)
    environment = _environment(program, tree, cache, environ, wheels, notice, progress)
    progress(f"running '{program.name}' in a sandbox")
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".edgepack-") as work:
        stage = Path(work)
        registered = _registered(program, tree, environment, stage / "run", timeout_s, progress)
        made = name or legal_name(registered.repository)
        final = program.parent / made
        if final.exists():
            raise BadInput(f"'{final}' is there already: delete it to have it written anew")
        lines = _pinned(registered.requirements, environment)
        model = stage / "run" / "model"
        (model / requirements.FILE).write_text("".join(f"{line}\n" for line in lines))
        project = stage / made
        project.mkdir(mode=0o755)
        model.rename(project / "model")
        (project / TOML).write_text(_toml(made, registered, program.name, fields or {}))
        if golden is not None:
            (project / GOLDEN).write_bytes(_rows(golden, is_json=not fields))
        publish(project, final)
    return VesslProject(made, final / TOML, registered)


def _environment(
    program: Path,
    tree: Tree,
    cache: Path,
    environ: Mapping[str, str],
    wheels: Path | None,
    notice: Callable[[str], None],
    progress: Callable[[str], None],
) -> Environment:
    """What the program needs to run: a requirements.txt beside it, what it registers, and what it imports."""
    lines: list[str] = []
    if requirements.FILE in tree.files:
        data = tree.read(requirements.FILE, requirements.LARGEST)
        lines = requirements.read_requirements(data, f"{requirements.FILE} in '{tree.name}'")
    said = _said(program)
    lines += [line for line in said if requirements.name_of(line) not in {requirements.name_of(each) for each in lines}]
    lines = [PACKAGES["torch"][0] if line == "torch" else line for line in lines]  # newer ones bring gigabytes of CUDA
    imported = imports_of(sources_of(tree)) - set(_OURS)
    asked = packages_of(imported, [*lines, "cloudpickle", "numpy"], program.name)
    names = {requirements.name_of(line) for line in asked}
    about_mb = 200 + sum(size for name, size in _HEAVY.items() if name in names)
    recipe = Recipe(f"of {program.name}", tuple(sorted(set(asked))), about_mb, is_resolved_here=True)
    return ready(recipe, cache, environ, notice=notice, progress=progress, wheels=wheels)


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


def _registered(
    program: Path,
    tree: Tree,
    environment: Environment,
    folder: Path,
    timeout_s: float,
    progress: Callable[[str], None],
) -> Registered:
    """Run the program on a copy of its folder and read what it left."""
    source = folder / "program" / program.stem  # the name by which messages call it
    for inside, path in tree.files.items():
        target = source / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    job = {"folder": str(folder.resolve()), "program": str((source / program.name).resolve())}

    def told(words: str) -> None:
        progress(f"running '{program.name}' in a sandbox: …{words[-60:]}" if words else f"running '{program.name}'")

    run_confined("convert.registering", job, source, environment, folder, timeout_s, "running", told=told)
    try:
        refused = json.loads((folder / "result.json").read_text())["refused"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeFailed(f"running '{program.name}' left no result that reads") from error
    if refused is not None:
        raise BadInput(f"'{program.name}' does not register its model: {refused}")
    if not any((folder / "model").iterdir()):
        raise BadInput(f"'{program.name}' ran to its end and registered no model: call vessl.register_model at its top")
    (folder / "model" / VOLUME).mkdir(exist_ok=True)
    return read_registration(open_tree(folder / "model", folder / "cache"))


def _pinned(lines: list[str], environment: Environment) -> list[str]:
    """What was registered, in the versions the model was made with; and what unpickles its runner."""
    asked = requirements.read_requirements("\n".join(lines).encode(), "requirements of the registered model")
    kept = [line for line in asked if not _is_ours(line)]
    names = {requirements.name_of(line) for line in kept}
    found = environment.kept.packages
    lines = kept + [name for name in ("cloudpickle", "numpy") if name not in names and name in found]
    return sorted(
        requirements.repinned(line, found[requirements.name_of(line)]) if requirements.name_of(line) in found else line
        for line in lines
    )


def _rows(path: Path, *, is_json: bool) -> bytes:
    """Golden rows as they are, or bare values as rows of a step without fields: `[{"x": 1}]` is one such row."""
    if not is_json:
        return path.read_bytes()
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"golden rows '{path.name}' are not JSON: {error}", field="golden") from error
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"golden rows '{path.name}' are no list of what the runner is asked", field="golden")
    whole = [row if isinstance(row, dict) and "in.json" in row else {"in.json": row} for row in rows]
    return json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"


def _toml(name: str, registered: Registered, program: str, fields: Mapping[str, Mapping[str, str]]) -> str:
    number = "" if registered.number is None else f", number {registered.number}"
    parts = [
        f"# Written by `edgepack init {program}`; yours to edit.\n",
        f"# {registered.runner} of {json.dumps(registered.repository)}{number}.\n\n",
        f"[pipeline]\nname = {json.dumps(name)}\n\n",
        f'[[steps]]\nname = {json.dumps(name)}\nmodel = "model"\nframework = "vessl"\n',
        *(table(f"steps.{side}", given) for side, given in fields.items()),
    ]
    return "".join(parts if fields else [*parts, _HINT])
