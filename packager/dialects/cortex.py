"""Cortex: version folders packaged as what they hold, and APIs whose predictor runs in a worker with its models.

A predictor is given its models by a client. ONNX models and what SavedModels were converted to run in ONNX Runtime
there; a SavedModel that the gate does not let through runs in TensorFlow, and then alone needs that library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

import orjson

from bundle.golden import GoldenRows
from bundle.model_folders import Versions, kind_of, models_in, only_file, versions_of
from columns.columns import Columns
from columns.json_value import HEADERS, JSON_VALUE, QUERY, VALUE, asked_schema, load_json
from columns.schema import Schema
from columns.values import object_array
from edgepack.errors import BadInput
from packager import requirements
from packager.archives import Tree, open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.cortex_api import FILE, Api, Models, read_api
from packager.dialects.cortex_disk import NOT_FETCHED, Disk, left_out
from packager.dialects.cortex_layout import api_of
from packager.dialects.cortex_onnx import check_whole
from packager.dialects.cortex_predictor import Found, predictor_in
from packager.dialects.cortex_saved import Asked, converted, on_disk, place_of
from packager.dialects.cortex_stores import fetched, is_remote, listed, mark_of
from packager.dialects.libraries import PACKAGES, packages_of
from packager.frameworks import onnx_model, tensorflow
from packager.frameworks.sources import imports_of, sources_of
from packager.plain_yaml import LARGEST
from packager.project import StepSource

REASON = "a Cortex predictor is code of the user's own: it runs in a worker"
SAMPLE = "sample.json"  # a payload that the predictor answers, as Cortex's own examples have one
PROJECT, REMOTE = "project", "remote"
_LARGEST_SAMPLE = 64 << 20  # bytes


@dataclass
class _Upload:
    """An API as it was handed in: its files by where they lie in the bundle's folder, and its models."""

    tree: Tree
    api: Api
    files: dict[str, Path]
    disk: Disk | None = None  # where not all models are to be in the bundle
    stores: dict[str, str] = field(default_factory=dict)  # place → URL, of which nothing is fetched yet
    every: list[Versions] = field(default_factory=list)
    models: list[Versions] = field(default_factory=list)  # those that are in the bundle
    found: Found | None = None
    converted: dict[tuple[str, str], str] = field(default_factory=dict)  # (model, version) → its ONNX file
    needs: tuple[str, ...] = ()  # of its clients
    parity: dict[str, Any] | None = None


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect version folders or an API, each thing as a named check. Raises BadInput when one of them fails."""
    tree: Tree | None = None
    with checklist.check("model.files") as told:
        tree = open_tree(source.model, cache)
        told.append(f"{len(tree.files)} files")
    checklist.require()
    assert tree is not None  # noqa: S101 - the check has passed
    if FILE in tree.files:
        return _api(source, checklist, cache, tree)
    return _versions(source, root, checklist, cache, tree)


# Version folders


def _versions(source: StepSource, root: Path, checklist: Checklist, cache: Path, tree: Tree) -> ModelArtifact:
    """The highest version, as the framework that it is of; its integer names it for clients."""
    found: Versions | None = None
    kind: str | None = None
    with checklist.check("model.versions") as told:
        kind = kind_of(source.name, tree.files)
        found = versions_of(source.name, "", tree.files, kind)
        told.append(f"{len(found.places)}, the latest is {found.latest}")
    checklist.require()
    assert found is not None and kind is not None  # noqa: S101 - the check has passed
    return replace(_of_version(source, root, checklist, cache, tree, found, kind), number=int(found.latest))


def _of_version(
    source: StepSource, root: Path, checklist: Checklist, cache: Path, tree: Tree, found: Versions, kind: str
) -> ModelArtifact:
    """The latest version as what it is: ONNX, a SavedModel, or the one file that another library saved."""
    place, plain = found.places[found.latest], replace(source, framework=None)
    if kind == "python":
        from packager.inspect import inspect_step

        with checklist.check("model.versions"):
            plain = replace(plain, model=only_file(source.name, place, tree.files))
        checklist.require()
        return inspect_step(plain, root, checklist, cache, source.wheels)
    module = onnx_model if kind == "onnx" else tensorflow
    made: ModelArtifact = module.inspect_model(replace(plain, model=on_disk(tree.files, place)), root, checklist, cache)
    return made


# An API


def _api(source: StepSource, checklist: Checklist, cache: Path, tree: Tree) -> ModelArtifact:
    upload: _Upload | None = None
    asked: list[str] = []
    with checklist.check("model.api") as told:
        upload = _read(tree, cache, source.disk)
        told.append(f"'{upload.api.name}', {upload.api.predictor.type}")
    checklist.require()
    assert upload is not None  # noqa: S101 - the check has passed
    with checklist.check("model.code") as told:
        upload.found = _predictor(upload)
        _check_fields(source, asked_schema(*upload.found.beside))
        _python_path(upload)
        told.append(f"{upload.found.name} in {upload.api.predictor.path}")
    with checklist.check("model.versions") as told:
        upload.every = upload.models = _models(upload)
        _leave_out(upload)
        if upload.api.predictor.type == "onnx":
            check_whole(upload.models, upload.files)
        told.append(", ".join(f"'{each.name}' {'/'.join(each.places)}" for each in upload.models) or "none")
    checklist.require()
    if upload.api.predictor.type == "tensorflow":
        with checklist.check("model.converts") as told:
            told.append(_convert(upload, source, checklist, cache))
        checklist.require()
    with checklist.check("model.requirements") as told:
        asked = _requirements(upload)
        told.append(", ".join(asked))
    checklist.require()
    return _artifact(source, upload, asked, checklist)


def _read(tree: Tree, cache: Path, disk: Disk | None) -> _Upload:
    api = read_api(tree.read(FILE, LARGEST), f"{FILE} in '{tree.name}'")
    files = {f"{PROJECT}/{path}": file for path, file in tree.files.items()}
    upload = _Upload(tree, api, files, needs=("onnxruntime",) if api.predictor.type == "onnx" else ())
    if api.predictor.told is not None and api.predictor.told.disk_cache_size is not None:
        upload.disk = disk
    for name, path in _paths(api.predictor.told):
        if is_remote(path):
            place = f"{REMOTE}/{name}" if name else REMOTE
            if upload.disk is None:
                files.update((f"{place}/{inside}", file) for inside, file in fetched(path, cache).items())
                continue
            upload.stores[place] = path
            files.update((f"{place}/{inside}", NOT_FETCHED) for inside in listed(path))
    return upload


def _leave_out(upload: _Upload) -> None:
    """Leave what has no room on the disk out of the bundle, and fetch the rest."""
    told = upload.api.predictor.told
    if upload.disk is None or told is None or told.disk_cache_size is None:
        return
    every = upload.every
    upload.every, upload.models = upload.disk.choose(every, told.disk_cache_size)
    files = upload.files | upload.disk.fetch(upload.stores, upload.models, upload.api.predictor.type)
    out = left_out(files, every, upload.models)
    upload.files = {path: file for path, file in files.items() if path not in out and file is not NOT_FETCHED}


def remote_marks(folder: Path) -> str:
    """What changes when objects do that the API of a folder names. Raises BadInput, Unreachable."""
    api = api_of(folder)
    told = None if api is None else api.predictor.told
    return " ".join(mark_of(path) for _, path in _paths(told) if is_remote(path))


def _paths(told: Models | None) -> list[tuple[str, str]]:
    """Each path of an API with the name of its model; that of `dir` has none."""
    if told is None:
        return []
    if told.dir:
        return [("", told.dir)]
    return [(each.name, each.path) for each in told.paths or ()] or [("model", told.path or "")]


def _models(upload: _Upload) -> list[Versions]:
    """The models of an API, each with its versions. Raises BadInput for a path that leads out or to no model."""
    kind, told = upload.api.predictor.type, upload.api.predictor.told
    found: list[Versions] = []
    for name, path in _paths(told):
        place = (f"{REMOTE}/{name}" if name else REMOTE) if is_remote(path) else _inside(path)
        if told is not None and told.dir:
            found += models_in(place, upload.files, kind)
        else:
            named = upload.api.name if told is not None and told.path else name
            found.append(versions_of(named, place, upload.files, kind))
    return found


def _inside(path: str) -> str:
    """The path of a model in the project as one of the bundle's folder."""
    if _leads_out(path):
        raise BadInput(
            f"the model path '{path[:200]}' leads out of the project: expected a relative path, s3:// or gs://",
            field="models.path",
        )
    return str(PurePosixPath(PROJECT, path))


def _leads_out(path: str) -> bool:
    parts = PurePosixPath(path)
    is_plain = path and "\\" not in path and "://" not in path and path.isprintable()
    return not is_plain or parts.is_absolute() or ".." in parts.parts


def _python_path(upload: _Upload) -> str | None:
    """The folder that `python_path` names, as one of the bundle's; None where nothing is said."""
    path = upload.api.predictor.python_path
    if path is None:
        return None
    if _leads_out(path):
        raise BadInput(f"predictor.python_path '{path[:200]}' leads out of the project", field="predictor.python_path")
    place = str(PurePosixPath(PROJECT, path))
    if not any(each.startswith(f"{place}/") for each in upload.files):
        raise BadInput(
            f"predictor.python_path '{path[:200]}' is no folder of '{upload.tree.name}' with files",
            field="predictor.python_path",
        )
    return place


def _check_fields(source: StepSource, own: Schema) -> None:
    """That the project names no fields but those that a predictor has."""
    told = {"input": (source.input, own), "output": (source.output, JSON_VALUE)}
    for side, (given, fields) in told.items():
        if source.tensor_fields or (given is not None and Schema.parse(given) != fields):
            raise BadInput(
                f"step '{source.name}' names fields: a Cortex predictor takes any JSON or bytes, remove them",
                field=f"steps.{side}",
            )


def _predictor(upload: _Upload) -> Found:
    path = str(PurePosixPath(upload.api.predictor.path))
    if path not in upload.tree.files or not path.endswith(".py"):
        raise BadInput(f"predictor.path '{path[:200]}' is no .py file of '{upload.tree.name}'", field="predictor.path")
    only = Tree(upload.tree.name, {path: upload.tree.files[path]}, upload.tree.digest)
    return predictor_in(sources_of(only)[0], upload.api.predictor)


def _requirements(upload: _Upload) -> list[str]:
    """The project's own lines, what its code imports of what Cortex's images had, and what its clients need."""
    tree, lines = upload.tree, _lines(upload)
    places = [place.removeprefix(f"{PROJECT}/") for each in upload.every for place in each.places.values()]
    code = {path: file for path, file in tree.files.items() if not any(path.startswith(f"{at}/") for at in places)}
    imported = imports_of(sources_of(Tree(tree.name, code, tree.digest)))
    # what an image of Cortex had is added; a module of another name is its own lines' to bring
    lines = packages_of(
        [name for name in imported if name in PACKAGES], [*lines, *_missing(upload.needs, lines)], tree.name
    )
    return requirements.with_imports(lines, imported)


def _lines(upload: _Upload) -> list[str]:
    tree = upload.tree
    if requirements.FILE not in tree.files:
        return []
    data = tree.read(requirements.FILE, requirements.LARGEST)
    return requirements.read_requirements(data, f"{requirements.FILE} in '{tree.name}'")


def _missing(needs: Iterable[str], lines: Iterable[str]) -> list[str]:
    named = {requirements.name_of(line) for line in lines}
    return [line for line in needs if requirements.name_of(line) not in named]


def _artifact(source: StepSource, upload: _Upload, asked: list[str], checklist: Checklist) -> ModelArtifact:
    assert upload.found is not None  # noqa: S101 - the check before has passed
    inputs = asked_schema(*upload.found.beside)
    golden = _sample(upload, inputs.names[1:])
    if golden is None and (source.golden is None or source.golden.rows is None):
        checklist.notice(f"'{upload.tree.name}' has no {SAMPLE}: its predictor is loaded, and asked nothing")
        golden = GoldenRows(Columns(inputs, {name: object_array([]) for name in inputs.names}, 0))
    return ModelArtifact.in_worker(
        source,
        "cortex",
        "cortex",
        (inputs, JSON_VALUE),
        upload.files,
        summary=f"{upload.found.name} in {upload.api.predictor.path}, {len(upload.every)} models",
        requirements=tuple(asked),
        options=_options(upload, upload.found),
        reason=REASON,
        golden=golden,
        parity=upload.parity,
    )


def _options(upload: _Upload, found: Found) -> dict[str, Any]:
    """What the worker is told: see runtimes/shim/edgepack_worker/cortex.py."""
    predictor = upload.api.predictor
    signatures = _signatures(upload)
    models: dict[str, dict[str, dict[str, str]]] = {}
    there = {(each.name, version) for each in upload.models for version in each.places}
    for each in upload.every:
        signature = signatures[each.name]
        models[each.name] = {
            version: {
                **({"path": upload.converted.get((each.name, version), at)} if (each.name, version) in there else {}),
                **({"signature": signature} if signature else {}),
            }
            for version, at in each.places.items()
        }
    said = {"json": True, "type": predictor.type, "folder": PROJECT, "entry": str(PurePosixPath(predictor.path))}
    options: dict[str, Any] = {**said, "name": found.name, "models": models}
    if python_path := _python_path(upload):
        options["python_path"] = python_path
    if predictor.config:
        options["config"] = predictor.config
    if predictor.env:
        options["env"] = predictor.variables
    if predictor.told and predictor.told.cache_size:
        options["cache_size"] = predictor.told.cache_size
    return options


def _sample(upload: _Upload, beside: tuple[str, ...]) -> GoldenRows | None:
    """The payload that lies beside the predictor: once for each model where the query may say which."""
    if SAMPLE not in upload.tree.files:
        return None
    text = orjson.dumps(load_json(upload.tree.read(SAMPLE, _LARGEST_SAMPLE))).decode()
    queries = [urlencode({"model": each.name, "version": each.latest}) for each in upload.models]
    queries = queries if queries and QUERY in beside else [""]
    columns = {VALUE: [text] * len(queries), QUERY: queries, HEADERS: ["{}"] * len(queries)}
    inputs = asked_schema(*beside)
    return GoldenRows(Columns(inputs, {name: object_array(columns[name]) for name in inputs.names}, len(queries)))


def _convert(upload: _Upload, source: StepSource, checklist: Checklist, cache: Path) -> str:
    """Put the ONNX files of SavedModels in their places; the others stay as they are. Returns how many became some."""
    names_library = any(requirements.name_of(line).startswith("tensorflow") for line in _lines(upload))
    asked = Asked(upload.models, upload.files, _signatures(upload), names_library)
    saved = converted(asked, source, checklist, cache)
    for each in upload.models:
        for version, place in each.places.items():
            if (each.name, version) not in saved.converted:
                continue
            for path in [path for path in upload.files if path.startswith(f"{place}/")]:
                del upload.files[path]
            upload.converted[each.name, version] = place_of(each.name, version)
            upload.files[place_of(each.name, version)] = saved.converted[each.name, version]
    upload.needs, upload.parity = tuple(sorted(saved.needs)), saved.parity
    made, all_ = len(saved.converted), sum(len(each.places) for each in upload.models)
    return f"{made} of {all_}" + (", TensorFlow runs the others" if made < all_ else "")


def _signatures(upload: _Upload) -> dict[str, str | None]:
    """The signature that each model is asked by, None where nothing is said."""
    told = upload.api.predictor.told
    keys = {each.name: each.signature_key for each in (told and told.paths) or ()}
    return {each.name: keys.get(each.name) or (told.signature_key if told else None) for each in upload.every}
