"""`Project`: what a user hands us, read and checked; nothing of it has been opened as a model yet.

Three sources are one: a bare model (a file, or the folder of a SavedModel or of an ONNX model), a folder with an
`edgepack.toml`, the path of that file. All paths of a project stay inside its folder, also through links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from bundle.pipeline import LogPolicy, Resources, dns_label, image_by_digest, legal_name
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.dialects.ads_layout import RUNTIME, SCORE
from packager.dialects.cortex_disk import Disk
from packager.dialects.cortex_layout import is_models_folder
from packager.dialects.recognise import dialect_of, given_name
from packager.frameworks.networks import SAVED_MODEL
from packager.grammar import OptimizeTable, ProjectTable, StepTable, read_toml
from packager.table_checks import check_all_used, check_routing, check_settings

TOML = "edgepack.toml"
MLFLOW_IMAGE = "mlflow-image"
MOST_STEPS = 32
LOSS = 0.02  # where `optimize` says no tolerance


@dataclass(frozen=True)
class Optimize:
    """How a model becomes smaller, and what its answers may lose by it: a share of the range of a field, or of its
    labels (`bundle.losses`).
    """

    quantize: Literal["dynamic", "static"]
    tolerance: float = LOSS


@dataclass(frozen=True)
class StepSource:
    """One step as the project gives it. `input` and `output` are the given types, None where the model is to say.

    `wheels` is this machine's folder of wheels, where a command names one: environments are made from it first.
    """

    name: str
    model: Path
    framework: str | None = None
    tensor_fields: tuple[str, ...] = ()
    batch: Literal["any", "single"] = "any"
    input: Mapping[str, str] | None = None
    output: Mapping[str, str] | None = None
    requirements: Literal["exact", "compatible"] = "exact"
    golden: GoldenSource | None = None  # the rows are the first step's
    routing: RoutingSource | None = None
    wheels: Path | None = None
    optimize: Optimize | None = None
    image: str | None = None  # of a container that answers in the model's place
    disk: Disk | None = None  # of a predictor that is followed, which can be given its other models later

    @property
    def every_model(self) -> tuple[StepSource, ...]:
        """All models of the step as steps of one model each; the first is the one that stands for the step."""
        if self.routing is None:
            return (self,)
        taken, golden = self.routing.without_key(self.input), self.golden
        if golden is not None and taken != self.input:
            golden = replace(golden, rows=None)  # its rows have the key
        alone = replace(self, routing=None, input=taken)
        models = self.routing.models if self.routing.split else (alone, *self.routing.models)
        return tuple(replace(each, golden=golden) for each in models)


@dataclass(frozen=True)
class RoutingSource:
    """Several models in one step, as `split`, `key` and `shadow` give them."""

    models: tuple[StepSource, ...]
    split: Mapping[str, int]
    key: str | None
    shadow: tuple[str, ...]

    def without_key(self, given: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """The types of [steps.input] that are the models': a key may be a field of the step alone."""
        return {name: type_ for name, type_ in (given or {}).items() if f"in.{name}" != self.key} or None


@dataclass(frozen=True)
class GoldenSource:
    """Where golden rows come from: the user's file, or one that is generated once and `kept`."""

    rows: Path | None
    kept: Path
    tolerance: float | dict[str, float] = 1e-5  # one for all output fields, or one a field


@dataclass(frozen=True)
class Project:
    """A project, its paths checked. `notes` are what the user should be told: names that were made up, for example.

    `keep` is the folder of its lock, of rows made for it and of target files, where that is not the root.
    """

    root: Path
    name: str
    steps: tuple[StepSource, ...]
    golden: GoldenSource
    validations: Mapping[str, str]
    log: LogPolicy
    resources: Resources
    notes: tuple[str, ...] = ()
    number: int | None = None  # of the version, where somebody else's folder has said it
    keep: Path | None = None

    @property
    def kept_in(self) -> Path:
        """The folder of its lock, of rows made for it and of target files."""
        return self.keep or self.root

    @classmethod
    def open(cls, source: Path, keep: Path | None = None) -> Project:
        """Read a project; what is made for it goes to `keep`, by default into its folder or beside the bare model.

        Raises BadInput that names the file or key at fault.
        """
        source = source.expanduser().absolute()
        try:
            if not source.exists():
                raise BadInput(f"no such file: '{source}': expected a model file, or a folder with {TOML}")
            if source.name == TOML or (source.is_dir() and not _is_model(source)):
                return _from_toml(source if source.name == TOML else source / TOML, keep)
            return _from_model(source, keep)
        except (OSError, RuntimeError, ValueError) as error:  # not readable, links in a circle, a name no file can have
            raise BadInput(f"'{source}' does not open: {getattr(error, 'strerror', None) or error}") from error


def _is_model(folder: Path) -> bool:
    """Whether a folder is a model that says its own fields; only names are looked at, and text."""
    names = {each.name for each in folder.iterdir()}
    if TOML in names:
        return False
    if dialect_of(folder) is not None:
        return True
    if any(name.endswith(".py") for name in names):
        return False
    return SAVED_MODEL in names or any(name.endswith(".onnx") for name in names)


def _from_model(path: Path, keep: Path | None) -> Project:
    """A bare model is a project of one step with all settings at their defaults; its rows are kept beside it."""
    model = path.resolve()
    name, notes = _made_name(given_name(model) or path.stem.strip(".") or model.stem)
    root = model.parent
    if not model.is_dir():
        _check_file(model, model.name)
    kept = (keep or root) / f"{model.stem}.golden.json"
    own = model / "golden.json"  # that the folder of a model brings along
    rows = next((path for path in (kept, own) if path.is_file()), None)
    golden = GoldenSource(rows, kept)
    step = StepSource(name, model, golden=golden)
    return Project(root, name, (step,), golden, {}, LogPolicy(), Resources(), tuple(notes), keep=keep)


def _from_toml(path: Path, keep: Path | None) -> Project:
    if not path.is_file():
        is_code = path.name == TOML and any(path.parent.glob("*.py"))
        if path.name == TOML and path.parent.is_dir() and is_models_folder(path.parent):
            raise BadInput(f"'{path.parent}' is a folder of models: edgepack serve takes all of them, else name one")
        if is_code and (path.parent / SCORE).is_file():
            raise BadInput(
                f"'{path.parent}' has {SCORE} without {RUNTIME}: an artifact of ADS has both, as prepare() writes "
                f"them; for other code expected an {TOML}"
            )
        hint = f"; for a folder of code have one written: edgepack init '{path.parent.name}'" if is_code else ""
        raise BadInput(f"'{path.parent}' has no {TOML}: expected one there, or the path of a model file{hint}")
    table, root = read_toml(path), path.parent
    if not 0 < len(table.steps) <= MOST_STEPS:
        raise BadInput(f"'{TOML}' has {len(table.steps)} [[steps]]: expected 1 to {MOST_STEPS}", field="steps")
    notes: list[str] = []
    steps = tuple(_routed_step(root, number, table, notes) for number in range(len(table.steps)))
    _check_distinct([model.name for step in steps for model in step.every_model])
    check_all_used(table)
    check_settings(table)
    golden = _golden(root, table, keep)
    steps = tuple(
        replace(step, golden=golden if not at else replace(golden, rows=None)) for at, step in enumerate(steps)
    )
    return Project(
        root=root,
        name=_pipeline_name(table, steps, notes),
        steps=steps,
        golden=golden,
        validations=dict(table.validations),
        log=table.log,
        resources=table.resources,
        notes=tuple(notes),
        keep=keep,
    )


def inside(root: Path, text: str, key: str, *, folder: bool = False) -> Path:
    """A path of a project: of a file or, where that is said, of a `folder`.

    Raises BadInput for one that leads out: absolute, by `..` or through a link.
    """
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\\" in text or not text.isprintable():
        raise BadInput(
            f"{key} = '{text}' leads out of the project: expected a relative path inside '{root.name}'", field=key
        )
    found = root / path
    if not found.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{key} = '{text}' is a link that leads out of the project: copy the file into it", field=key)
    if not (folder and found.is_dir() and any(found.iterdir())):
        _check_file(found, text, key)
    return found


def _check_file(path: Path, text: str, key: str = "") -> None:
    where = f"{key} = '{text}'" if key else f"'{text}'"
    if path.is_dir():
        raise BadInput(
            f"{where} is a folder: expected a file, or a folder of Python code or an ONNX model that has files",
            field=key or None,
        )
    if not path.exists():
        raise BadInput(f"{where} does not exist: expected a file", field=key or None)
    if not path.is_file():
        raise BadInput(f"{where} is a device, pipe or socket: expected a file", field=key or None)
    if not path.stat().st_size:
        raise BadInput(f"{where} is empty: copy it again", field=key or None)
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadInput(f"{where} does not open: {error.strerror}", field=key or None) from error


def _routed_step(root: Path, number: int, whole: ProjectTable, notes: list[str]) -> StepSource:
    """A step of one model, or of several: those that `split` and `shadow` name."""
    table, key = whole.steps[number], f"steps[{number}]"
    if table.split is None and table.shadow is None:
        if table.key is not None:
            raise BadInput(f"{key}.key without a split has no use: remove it", field=f"{key}.key")
        return _step(root, number, table, notes)
    split, shadow = table.split or {}, table.shadow or []
    check_routing(key, whole, table)
    plain = msgspec.structs.replace(table, split=None, key=None, shadow=None)
    routing = RoutingSource((), split, table.key, tuple(shadow))
    tables = {
        name: msgspec.structs.replace(
            plain,
            name=name,
            model=whole.models[name].model,
            framework=whole.models[name].framework,
            optimize=whole.models[name].optimize,
        )
        for name in (*split, *shadow)
    }
    first = next((tables[name] for name in split), plain)
    step = _step(root, number, msgspec.structs.replace(first, name=table.name), notes)
    alone = {name: _step(root, number, each, notes) for name, each in tables.items()}
    models = tuple(replace(each, input=routing.without_key(each.input)) for each in alone.values())
    return replace(step, routing=replace(routing, models=models))


def _step(root: Path, number: int, table: StepTable, notes: list[str]) -> StepSource:
    key = f"steps[{number}]"
    if table.image is not None:
        return _container_step(root, key, table)
    if table.framework == MLFLOW_IMAGE:
        raise BadInput(f'{key}.framework "{MLFLOW_IMAGE}" needs `image = "…@sha256:…"`', field=f"{key}.image")
    if table.model is None:
        raise BadInput(f'{key} has no model: add `model = "file.onnx"`', field=f"{key}.model")
    model = inside(root, table.model, f"{key}.model", folder=True)
    if table.name is None:
        name, made = _made_name(Path(table.model).stem)
        notes.extend(made)
    else:
        name = _given_name(table.name, f"{key}.name")
    for side, given in (("input", table.input), ("output", table.output)):
        _check_types(f"{key}.{side}", given)
    if len(set(table.tensor_fields)) != len(table.tensor_fields) or not all(table.tensor_fields):
        raise BadInput(f"{key}.tensor_fields has a name that is empty or twice there", field=f"{key}.tensor_fields")
    return StepSource(
        name,
        model,
        table.framework,
        tuple(table.tensor_fields),
        table.batch,
        table.input,
        table.output,
        table.requirements or "exact",
        optimize=_optimize(f"{key}.optimize", table.optimize),
    )


def _container_step(root: Path, key: str, table: StepTable) -> StepSource:
    """A step that a container answers; the file that names it stands for its model. Raises BadInput for what it lacks,
    and for keys that are a model's.
    """
    image = _named_image(table.image or "", f"{key}.image")
    if table.name is None:
        raise BadInput(f'{key} has an image and no name: add `name = "…"`', field=f"{key}.name")
    if table.framework not in (None, MLFLOW_IMAGE) or table.model is not None:
        raise BadInput(
            f'{key} has an image, and a model or framework beside it: expected framework = "{MLFLOW_IMAGE}" alone',
            field=f"{key}.image",
        )
    if table.tensor_fields or table.optimize is not None:
        raise BadInput(f"{key} has an image: tensor_fields and optimize are for models", field=f"{key}.image")
    for side, given in (("input", table.input), ("output", table.output)):
        _check_types(f"{key}.{side}", given)
    name = _given_name(table.name, f"{key}.name")
    return StepSource(name, root / TOML, MLFLOW_IMAGE, (), table.batch, table.input, table.output, image=image)


def _named_image(text: str, key: str) -> str:
    """An image's reference by digest. Raises BadInput that names the key."""
    try:
        return image_by_digest(text)
    except BadInput as error:
        raise BadInput(f"{key}: {error}", field=key) from error


def _optimize(key: str, table: OptimizeTable | None) -> Optimize | None:
    """What is asked of a model's weights. Raises BadInput that names the key and what it may be."""
    if table is None:
        return None
    words = 'expected quantize = "dynamic" or "static"'
    if table.quantize is None:
        raise BadInput(f"{key} says nothing to do: {words}, or remove it", field=f"{key}.quantize")
    tolerance = LOSS if table.tolerance is None else table.tolerance
    if not 0 < tolerance <= 1:
        raise BadInput(
            f"{key}.tolerance = {tolerance}: expected more than 0 and at most 1, as a share of a field's range",
            field=f"{key}.tolerance",
        )
    if table.quantize == "dynamic":
        return Optimize("dynamic", tolerance)
    if table.quantize == "static":
        return Optimize("static", tolerance)
    raise BadInput(f"{key}.quantize = {table.quantize[:40]!r}: {words}", field=f"{key}.quantize")


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


def _golden(root: Path, table: ProjectTable, keep: Path | None) -> GoldenSource:
    """The rows that are named, else those that an earlier run kept, else none yet."""
    own = root / "golden.json"
    kept = own if keep is None else keep / f"{root.name}.golden.json"
    if table.golden.rows is not None:
        return GoldenSource(inside(root, table.golden.rows, "golden.rows"), kept, table.golden.tolerance)
    rows = inside(root, own.name, "golden.json") if own.exists() or own.is_symlink() else None
    return GoldenSource(kept if kept.is_file() and kept != own else rows, kept, table.golden.tolerance)
