"""`Project`: what a user hands us, read and checked; nothing of it has been opened as a model yet.

Three sources are one: a bare model file, a folder with an `edgepack.toml`, the path of that file. All paths of a
project stay inside its folder, also through links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from bundle.pipeline import LogPolicy, Resources, dns_label, legal_name, parse_bytes
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.grammar import ProjectTable, StepTable, read_toml

TOML = "edgepack.toml"
MOST_STEPS = 32


@dataclass(frozen=True)
class StepSource:
    """One step as the project gives it. `input` and `output` are the given types, None where the model is to say."""

    name: str
    model: Path
    framework: str | None = None
    tensor_fields: tuple[str, ...] = ()
    batch: Literal["any", "single"] = "any"
    input: Mapping[str, str] | None = None
    output: Mapping[str, str] | None = None


@dataclass(frozen=True)
class GoldenSource:
    """Where golden rows come from: the user's file, or one that is generated once and `kept`."""

    rows: Path | None
    kept: Path
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Project:
    """A project, its paths checked. `notes` are what the user should be told: names that were made up, for example."""

    root: Path
    name: str
    steps: tuple[StepSource, ...]
    golden: GoldenSource
    validations: Mapping[str, str]
    log: LogPolicy
    resources: Resources
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, source: Path) -> Project:
        """Read a project. Raises BadInput that names the file or key at fault."""
        source = source.expanduser().absolute()
        try:
            if not source.exists():
                raise BadInput(f"no such file: '{source}': expected a model file, or a folder with {TOML}")
            if source.name == TOML or source.is_dir():
                return _from_toml(source if source.name == TOML else source / TOML)
            return _from_model(source)
        except (OSError, RuntimeError, ValueError) as error:  # not readable, links in a circle, a name no file can have
            raise BadInput(f"'{source}' does not open: {getattr(error, 'strerror', None) or error}") from error


def _from_model(path: Path) -> Project:
    """A bare model file is a project of one step with all settings at their defaults."""
    name, notes = _made_name(path.stem)
    model = path.resolve()
    root = model.parent
    _check_file(model, model.name)
    kept = root / f"{model.stem}.golden.json"
    rows = kept if kept.is_file() else None
    step = StepSource(name, model)
    return Project(root, name, (step,), GoldenSource(rows, kept), {}, LogPolicy(), Resources(), tuple(notes))


def _from_toml(path: Path) -> Project:
    if not path.is_file():
        raise BadInput(f"'{path.parent}' has no {TOML}: expected one there, or the path of a model file")
    table, root = read_toml(path), path.parent
    if not 0 < len(table.steps) <= MOST_STEPS:
        raise BadInput(f"'{TOML}' has {len(table.steps)} [[steps]]: expected 1 to {MOST_STEPS}", field="steps")
    notes: list[str] = []
    steps = tuple(_step(root, number, step, notes) for number, step in enumerate(table.steps))
    _check_distinct([step.name for step in steps])
    _check_settings(table)
    return Project(
        root=root,
        name=_pipeline_name(table, steps, notes),
        steps=steps,
        golden=_golden(root, table),
        validations=dict(table.validations),
        log=table.log,
        resources=table.resources,
        notes=tuple(notes),
    )


def inside(root: Path, text: str, key: str) -> Path:
    """A path of a project. Raises BadInput for one that leads out: absolute, by `..` or through a link."""
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\\" in text or not text.isprintable():
        raise BadInput(
            f"{key} = '{text}' leads out of the project: expected a relative path inside '{root.name}'", field=key
        )
    found = root / path
    if not found.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{key} = '{text}' is a link that leads out of the project: copy the file into it", field=key)
    _check_file(found, text, key)
    return found


def _check_file(path: Path, text: str, key: str = "") -> None:
    where = f"{key} = '{text}'" if key else f"'{text}'"
    if path.is_dir():
        raise BadInput(f"{where} is a folder: this version packages one model file a step", field=key or None)
    if not path.is_file():
        raise BadInput(f"{where} does not exist: expected a file", field=key or None)
    if not path.stat().st_size:
        raise BadInput(f"{where} is empty: copy it again", field=key or None)
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadInput(f"{where} does not open: {error.strerror}", field=key or None) from error


def _step(root: Path, number: int, table: StepTable, notes: list[str]) -> StepSource:
    key = f"steps[{number}]"
    if table.model is None:
        raise BadInput(f'{key} has no model: add `model = "file.onnx"`', field=f"{key}.model")
    model = inside(root, table.model, f"{key}.model")
    if table.name is None:
        name, made = _made_name(Path(table.model).stem)
        notes.extend(made)
    else:
        name = _given_name(table.name, f"{key}.name")
    for side, given in (("input", table.input), ("output", table.output)):
        _check_types(f"{key}.{side}", given)
    if len(set(table.tensor_fields)) != len(table.tensor_fields) or not all(table.tensor_fields):
        raise BadInput(f"{key}.tensor_fields has a name that is empty or twice there", field=f"{key}.tensor_fields")
    return StepSource(name, model, table.framework, tuple(table.tensor_fields), table.batch, table.input, table.output)


def _check_types(key: str, given: Mapping[str, str] | None) -> None:
    if given is None:
        return
    if not given:
        raise BadInput(f"{key} has no fields: name them all, or leave the table out", field=key)
    try:
        Schema.parse(given)
    except BadInput as error:
        raise BadInput(f"{key}: {error}", field=f"{key}.{error.field}" if error.field else key) from error


def _pipeline_name(table: ProjectTable, steps: tuple[StepSource, ...], notes: list[str]) -> str:
    if table.pipeline.name is not None:
        return _given_name(table.pipeline.name, "pipeline.name")
    notes.append(f"the pipeline is called '{steps[0].name}', after its first step: [pipeline] name says otherwise")
    return steps[0].name


def _made_name(stem: str) -> tuple[str, list[str]]:
    name = legal_name(stem)
    return name, [] if name == stem else [f"'{stem}' is not a DNS label: called '{name}' here"]


def _given_name(name: str, key: str) -> str:
    try:
        return dns_label(name)
    except BadInput as error:
        raise BadInput(f"{key}: {error}", field=key) from error


def _check_distinct(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two steps are called '{name}': give each its own `name`", field="steps.name")


def _check_settings(table: ProjectTable) -> None:
    """Ranges and sizes, which types alone do not say."""
    for key, size in (("log.max_bytes", table.log.max_bytes), ("resources.memory", table.resources.memory)):
        try:
            parse_bytes(size)
        except BadInput as error:
            raise BadInput(f"{key}: {error}", field=key) from error
    low = {
        "log.max_value_bytes": (table.log.max_value_bytes, 0),
        "resources.gpus": (table.resources.gpus, 0),
        "resources.replicas": (table.resources.replicas, 1),
        "golden.tolerance": (table.golden.tolerance, 0),
    }
    for key, (value, least) in low.items():
        if not (math.isfinite(value) and value >= least):
            raise BadInput(f"{key} = {value}: expected {least} or more", field=key)
    if not 0 < table.resources.cpus < math.inf:
        raise BadInput(f"resources.cpus = {table.resources.cpus}: expected more than 0", field="resources.cpus")


def _golden(root: Path, table: ProjectTable) -> GoldenSource:
    """The rows that are named, else those that an earlier run kept, else none yet."""
    kept = root / "golden.json"
    if table.golden.rows is not None:
        return GoldenSource(inside(root, table.golden.rows, "golden.rows"), kept, table.golden.tolerance)
    rows = inside(root, kept.name, "golden.json") if kept.exists() or kept.is_symlink() else None
    return GoldenSource(rows, kept, table.golden.tolerance)
