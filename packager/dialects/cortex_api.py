"""`cortex.yaml`: one API with its predictor and where its models lie, read strictly.

What says how a cluster is to run it (`compute`, `autoscaling`, `networking`, …) has no meaning on a device and is
passed over; what would change an answer and is not understood is refused by name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgepack.errors import BadInput
from packager.plain_yaml import read_yaml

FILE = "cortex.yaml"
KIND = "RealtimeAPI"
CLASSES = {"python": "PythonPredictor", "onnx": "ONNXPredictor", "tensorflow": "TensorFlowPredictor"}
_LONGEST_NAME = 200  # bytes
Type = Literal["python", "onnx", "tensorflow"]

# of a predictor: how a cluster starts it
_PASSED_OVER = (
    "image",
    "tensorflow_serving_image",
    "processes_per_replica",
    "threads_per_process",
    "server_side_batching",
    "log_level",
    "shm_size",
)


class NamedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `models.paths`."""

    name: str
    path: str
    signature_key: str | None = None


class Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models` of a predictor, `multi_model_reloading` of one in Python. The sizes are numbers of models."""

    path: str | None = None
    paths: list[NamedModel] | None = None
    dir: str | None = None
    signature_key: str | None = None
    cache_size: int | None = None  # at most so many in memory
    disk_cache_size: int | None = None  # at most so many on the disk


class Predictor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is run."""

    type: Type
    path: str
    models: Models | None = None
    multi_model_reloading: Models | None = None
    config: dict[str, Any] = {}
    env: dict[str, str | int | float | bool] = {}
    python_path: str | None = None  # a folder to import from, before the predictor's own and the project's

    @property
    def told(self) -> Models | None:
        """Where its models lie; None where it loads what it needs by itself."""
        return self.models if self.models is not None else self.multi_model_reloading

    @property
    def variables(self) -> dict[str, str]:
        """Its environment variables."""
        return {name: str(value) for name, value in self.env.items()}


class Api(msgspec.Struct, frozen=True):
    """One API."""

    name: str
    kind: str
    predictor: Predictor


def read_api(data: bytes, where: str) -> Api:
    """The only API of a file. Raises BadInput that names the key at fault, and for what no device can run."""
    found = read_yaml(data, where)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadInput(f"{where} is no list of APIs: expected '- name: …' with 'kind: {KIND}' and a predictor")
    if len(found) != 1:
        names = ", ".join(repr(str(each.get("name"))[:60]) for each in found[:8]) or "none"
        raise BadInput(f"{where} has {len(found)} APIs ({names}): expected one, give each a folder with its own file")
    (said,) = found
    if said.get("kind") != KIND:
        raise BadInput(f"{where}: kind is {str(said.get('kind'))[:60]!r}: expected {KIND}", field="kind")
    compute = said.get("compute")
    if isinstance(compute, dict) and compute.get("inf"):
        raise BadInput(
            f"{where}: compute.inf asks for AWS Inferentia, which no edge device has: leave it out, and export the "
            "model without its compiler",
            field="compute.inf",
        )
    return _checked(_converted(said, where), where)


def _converted(said: dict[str, Any], where: str) -> Api:
    predictor = said.get("predictor")
    if isinstance(predictor, dict):
        said = {**said, "predictor": {key: each for key, each in predictor.items() if key not in _PASSED_OVER}}
    try:
        return msgspec.convert(said, Api)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {error}") from error


def _checked(api: Api, where: str) -> Api:
    _check_name(api.name, f"{where}: name", "name")
    predictor = api.predictor
    other = "multi_model_reloading" if predictor.type != "python" else "models"
    if getattr(predictor, other) is not None and (predictor.type != "python" or predictor.multi_model_reloading):
        right = "models" if predictor.type != "python" else "multi_model_reloading"
        raise BadInput(f"{where}: predictor.{other} is not for type {predictor.type}: write {right}", field=other)
    told = predictor.told
    if told is None:
        if predictor.type != "python":
            raise BadInput(f"{where}: predictor.models is missing: type {predictor.type} needs one", field="models")
        return api
    given = [key for key in ("path", "paths", "dir") if getattr(told, key)]
    if len(given) != 1:
        words = " and ".join(given) or "none of them"
        raise BadInput(f"{where}: predictor.models has {words}: expected one of path, paths and dir", field="models")
    for key in ("cache_size", "disk_cache_size"):
        if (size := getattr(told, key)) is not None and size < 1:
            raise BadInput(f"{where}: predictor.models.{key} is {size}: expected 1 or more", field=key)
    if told.disk_cache_size is not None and told.disk_cache_size < (told.cache_size or 1):
        raise BadInput(f"{where}: predictor.models.disk_cache_size is below cache_size", field="disk_cache_size")
    names = [each.name for each in told.paths or ()]
    for name in names:
        _check_name(name, f"{where}: predictor.models.paths name", "models.paths")
        if names.count(name) > 1:
            raise BadInput(f"{where}: predictor.models.paths names '{name[:60]}' twice", field="models.paths")
    return api


def _check_name(name: str, what: str, key: str) -> None:
    """A name may become that of a model, and so of a folder."""
    is_part = name not in ("", ".", "..") and "/" not in name and "\\" not in name and name.isprintable()
    if not is_part or len(name.encode()) > _LONGEST_NAME:
        raise BadInput(f"{what} {name[:60]!a} is not plain: expected one such as 'iris-classifier'", field=key)
