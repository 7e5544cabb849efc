"""Models of a predictor that lie in a folder of the device: `EDGEPACK_MODELS/<pipeline>/<model>[/<version>]/`.

A device makes no bundles of programs, but it may put other models into one: a new bundle with the program, the wheels
and the settings of the one that was installed, and with these models instead of its own. It says which it was made of,
so that to a hub that assigned that one, that one serves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

import msgspec

from bundle.bundle import folder_sha256, pack
from bundle.golden import GoldenRows
from bundle.model_folders import BASE, Found, Versions, files_in, mark_of, models_in
from bundle.pipeline import PipelineSpec, StepSpec, WorkerSpec, wheel_path
from bundle.store import OpenBundle
from columns.columns import Columns
from columns.json_value import HEADERS, QUERY, VALUE
from columns.values import object_array
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edgepack.errors import BadInput
from oci.blob import chunks
from oci.digest import Digest
from oci.layout import write_layout

_OWN = "live"  # where these models lie in a bundle


class LiveFolder:
    """The folder as a `live_making.Source`."""

    def __init__(self, folder: Path, work: Path, bundle_of: Callable[[str], Path], serving: Callable[[], Any]) -> None:
        """`bundle_of` is where the bundle of a manifest lies; `serving` gives the pipelines that answer."""
        self._folder, self._work, self._bundle_of, self._serving = folder, work, bundle_of, serving
        self._numbers = itertools.count()

    removes = False  # what is no longer here stays installed: a hub or the image decides

    @property
    def name(self) -> str:
        """For messages."""
        return self._folder.name

    def look(self) -> Found:
        """See what is there for the predictors that serve. Raises BadInput where the folder is gone."""
        if not self._folder.is_dir():
            raise BadInput(f"'{self._folder}' is not there: expected a folder for each pipeline")
        programs = self._programs()
        there = {name: each for name, each in programs.items() if (self._folder / name).is_dir()}
        marks = {name: {"": f"{each.base} {mark_of(self._folder / name)}"} for name, each in there.items()}
        gone = {name: each for name, each in programs.items() if name not in there and each.base != each.manifest}
        lost = {name: f"'{self._folder.name}/{name}' is not there, what it held goes on" for name in gone}
        return Found(marks, lost)

    def make(self, name: str, number: str) -> Path:
        """Put the models of a pipeline's folder into a bundle: an OCI layout folder. Raises BadInput."""
        active = self._programs().get(name)
        if active is None:
            raise BadInput(f"'{name}' is no predictor with models of its own")
        base = OpenBundle(self._bundle_of(active.base))
        index = pack(*_with_models(base, active.base, self._folder / name))
        folder = self._work / f"{name}-{next(self._numbers)}"
        write_layout(index, folder)
        return folder

    def _programs(self) -> dict[str, ActivePipeline]:
        return {each.name: each for each in self._serving() if each.own_models}


def _with_models(base: OpenBundle, manifest: str, folder: Path) -> tuple[Any, ...]:
    """The arguments of `pack` for the program of a bundle with the models in a folder."""
    (step,) = base.spec.steps
    worker = step.worker
    assert worker is not None  # noqa: S101 - a predictor has one
    given = files_in(folder)
    models = models_in("", given, str(worker.options.get("type", "python")))
    _check_savedmodels(base, step, worker, models)
    old = _places(step, worker)
    files = {path: base.file(path) for path in base.paths(step.model) if not f"{path}/".startswith(old)}
    files |= {f"{step.model}/{_OWN}/{path}": file for path, file in given.items()}
    told = {each.name: _told(each, worker.options["models"]) for each in models}
    spec = _spec(base.spec, step, worker, {**worker.options, "models": told, BASE: manifest}, files)
    wheels = {wheel_path(step.name, path.name): path for path in base.wheels(step.name)}
    golden = _golden(base.golden(), models)
    return spec, files, golden.encode(), [base.target], {base.target: wheels}


def _told(model: Versions, before: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, dict[str, str]]:
    """What the worker is told of a model: as before, but for where its versions lie."""
    signature = next((each["signature"] for each in before.get(model.name, {}).values() if "signature" in each), None)
    more = {"signature": signature} if signature else {}
    return {version: {"path": str(PurePosixPath(_OWN, at)), **more} for version, at in model.places.items()}


def _places(step: StepSpec, worker: WorkerSpec) -> tuple[str, ...]:
    """Where the bundle's own models lie."""
    versions = (each for model in worker.options.get("models", {}).values() for each in model.values())
    return tuple(f"{step.model}/{each['path']}/" for each in versions if "path" in each)


def _check_savedmodels(base: OpenBundle, step: StepSpec, worker: WorkerSpec, models: Iterable[Versions]) -> None:
    has_library = any(path.name.startswith("tensorflow") for path in base.wheels(step.name))
    if worker.options.get("type") == "tensorflow" and not has_library:
        name = next((each.name for each in models), "")
        raise BadInput(
            f"model '{name}' is a SavedModel, which becomes ONNX where it is packaged: build the bundle again, or have "
            "its predictor bring tensorflow in requirements.txt"
        )


def _spec(
    spec: PipelineSpec, step: StepSpec, worker: WorkerSpec, options: dict[str, Any], files: Mapping[str, Path]
) -> PipelineSpec:
    inside = {path.removeprefix(f"{step.model}/"): _digest(file) for path, file in files.items()}
    worker = msgspec.structs.replace(worker, options=options)
    changed = msgspec.structs.replace(step, worker=worker, sha256=folder_sha256(inside))
    return msgspec.structs.replace(spec, steps=[changed])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return Digest.of(chunks(file))


def _golden(before: GoldenRows, models: Iterable[Versions]) -> GoldenRows:
    """The first row's value, asked of each model where the query says which; nobody knows the answers yet."""
    inputs = before.inputs
    queries = [urlencode({"model": each.name, "version": each.latest}) for each in models]
    if not inputs.rows or QUERY not in inputs.schema or not queries:
        return GoldenRows(inputs)
    beside = {QUERY: queries, HEADERS: ["{}"] * len(queries), VALUE: [inputs[VALUE][0]] * len(queries)}
    arrays = {name: object_array(beside[name]) for name in inputs.schema.names}
    return GoldenRows(Columns(inputs.schema, arrays, len(queries)))
