"""What predictors are given to reach their models: by name and version, least recently used ones leave the memory.

Names and arguments are those that Cortex documents: `get_model`, `predict`, `input_signature(s)`.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .absent import Absent

LATEST = "latest"
_KINDS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class Models:
    """The models of a project: name → version → {"path": its folder or file}, read when somebody asks for one. One
    without a path is not on this disk.

    At most `most` stay in memory, all where that is None.
    """

    def __init__(self, told: Mapping[str, Mapping[str, Mapping[str, Any]]], folder: Path, most: int | None) -> None:
        self._told, self._folder, self._most = told, folder, most
        self._loaded: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()  # the one longest unused first
        self._missed: Absent | None = None
        self.load: Callable[[Path], Any] = lambda place: None

    def get(self, name: str | None, version: str | None) -> Any:
        """A model in memory. Raises ValueError that lists the names or versions there are, RuntimeError for one that
        does not load, Absent for one that is not on this disk.
        """
        key = self._chosen(name, version)
        if "path" not in self._told[key[0]][key[1]]:
            self._missed = Absent(*key, self._used)
            raise self._missed
        self._used[key] = None
        self._used.move_to_end(key)
        return self._in_memory(*key)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around a request: a model that was missed is told, whatever the predictor made of that."""
        self._missed = None
        try:
            yield
        finally:
            if self._missed is not None:
                raise self._missed

    def told(self, name: str | None, version: str | None) -> Mapping[str, Any]:
        """What the project says of a model, beside where it lies."""
        found, number = self._chosen(name, version)
        return self._told[found][number]

    def warm(self) -> None:
        """Load the models, as many as may stay: a broken one is known at the start, and no request waits for them."""
        every = [(name, number) for name, each in self._told.items() for number, said in each.items() if "path" in said]
        for name, version in every[: self._most]:
            self._in_memory(name, version)

    def _in_memory(self, name: str, version: str) -> Any:
        if (name, version) not in self._loaded:
            while self._most is not None and len(self._loaded) >= self._most:
                self._loaded.popitem(last=False)
            self._loaded[name, version] = self._read(name, version)
        self._loaded.move_to_end((name, version))
        return self._loaded[name, version]

    def _read(self, name: str, version: str) -> Any:
        try:
            return self.load(self._folder / self._told[name][version]["path"])
        except Exception as error:  # whatever the user's own code raises
            said = f"{type(error).__name__}: {error}"
            raise RuntimeError(f"model {name!r}, version {version}, does not load: {said}") from error

    def _chosen(self, name: str | None, version: str | None) -> tuple[str, str]:
        listed = ", ".join(repr(each) for each in self._told)
        if name is None:
            if len(self._told) != 1:
                raise ValueError(f"several models are served, give model_name: there is {listed or 'none'}")
            name = next(iter(self._told))
        if name not in self._told:
            raise ValueError(f"no model {name!r} is served: there is {listed or 'none'}")
        versions = self._told[name]
        if version is None or version == LATEST:
            return name, max(versions, key=int)
        if str(version) not in versions:
            raise ValueError(f"model {name!r} has no version {str(version)!r}: there is {', '.join(versions)}")
        return name, str(version)


class PythonClient:
    """`python_client`: models as the predictor's own `load_model` gives them."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def get_model(self, model_name: str | None = None, model_version: str = LATEST) -> Any:
        """What `load_model` made of a model's folder."""
        return self._models.get(model_name, model_version)


class OnnxClient:
    """`onnx_client`: models as sessions of ONNX Runtime."""

    def __init__(self, models: Models) -> None:
        self._models = models
        models.load = _onnx_model

    def get_model(self, model_name: str | None = None, model_version: str = LATEST) -> dict[str, Any]:
        """The session, its inputs as ONNX Runtime lists them, and their shapes and numpy types by name."""
        found: dict[str, Any] = self._models.get(model_name, model_version)
        return found

    def predict(self, model_input: Any, model_name: str | None = None, model_version: str = LATEST) -> Any:
        """All outputs of a model, in their order."""
        found = self.get_model(model_name, model_version)
        return found["session"].run(None, _fed(model_input, found["input_signatures"]))

    @property
    def input_signatures(self) -> dict[str, Any]:
        """The input signature of the only model."""
        return self.input_signature()

    def input_signature(self, model_name: str | None = None, model_version: str = LATEST) -> dict[str, Any]:
        """Shape and numpy type of each input, by its name."""
        signatures: dict[str, Any] = self.get_model(model_name, model_version)["input_signatures"]
        return signatures


class TensorFlowClient:
    """`tensorflow_client`: SavedModels; those that were converted run in ONNX Runtime, the others in TensorFlow."""

    def __init__(self, models: Models) -> None:
        self._models = models
        models.load = _tensorflow_model

    def predict(self, model_input: Any, model_name: str | None = None, model_version: str = LATEST) -> dict[str, Any]:
        """The outputs of a model by name, as lists."""
        signature, ask = self._asked(model_name, model_version)
        return {name: _listed(array) for name, array in ask(_fed(model_input, signature)).items()}

    @property
    def input_signatures(self) -> dict[str, Any]:
        """The input signature of the only model."""
        return self.input_signature()

    def input_signature(self, model_name: str | None = None, model_version: str = LATEST) -> dict[str, Any]:
        """Shape and numpy type of each input, by its name."""
        signature: dict[str, Any] = self._asked(model_name, model_version)[0]
        return signature

    def _asked(self, name: str | None, version: str) -> Any:
        open_ = self._models.get(name, version)
        return open_(self._models.told(name, version).get("signature"))


def _listed(array: Any) -> Any:
    """An output as lists; TensorFlow's text is bytes."""
    if array.dtype != object:
        return array.tolist()
    texts = [each.decode(errors="replace") if isinstance(each, bytes) else each for each in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape).tolist()


def _onnx_model(place: Path) -> dict[str, Any]:
    import onnxruntime

    path = next(iter(sorted(place.rglob("*.onnx")))) if place.is_dir() else place
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    described = {each.name: {"shape": list(each.shape), "type": _dtype(each.type)} for each in inputs}
    return {"session": session, "signatures": inputs, "input_signatures": described}


def _dtype(text: str) -> str:
    """The numpy type of an ONNX type such as `tensor(int64)`."""
    return _KINDS.get(text) or text.partition("(")[2].rstrip(")")


def _tensorflow_model(place: Path) -> Callable[[str | None], Any]:
    """What opens a model by the name of its signature."""
    return _converted(place) if place.suffix == ".onnx" else _saved(place)


def _converted(place: Path) -> Callable[[str | None], Any]:
    found = _onnx_model(place)
    names = [each.name for each in found["session"].get_outputs()]

    def ask(fed: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, found["session"].run(None, fed)))

    return lambda signature: (found["input_signatures"], ask)


def _saved(place: Path) -> Callable[[str | None], Any]:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow as tf

    loaded = tf.saved_model.load(str(place))

    def open_(name: str | None) -> Any:
        signatures = dict(loaded.signatures)
        key = name or ("serving_default" if "serving_default" in signatures else next(iter(signatures), ""))
        if key not in signatures:
            raise ValueError(f"the SavedModel has no signature {key!r}: there is {', '.join(signatures) or 'none'}")
        chosen = signatures[key]
        takes = chosen.structured_input_signature[1]
        described = {each: {"shape": list(spec.shape), "type": spec.dtype.name} for each, spec in takes.items()}

        def ask(fed: dict[str, Any]) -> dict[str, Any]:
            found = chosen(**{each: tf.constant(array) for each, array in fed.items()})
            return {each: found[each].numpy() for each in found}

        return described, ask

    return open_


def _fed(model_input: Any, signature: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The inputs as arrays: an object of them by name or, where a model has one input, that alone."""
    if not isinstance(model_input, dict):
        if len(signature) != 1:
            raise ValueError(f"the model has the inputs {', '.join(signature)}: give a dict of all of them")
        model_input = {next(iter(signature)): model_input}
    if set(model_input) != set(signature):
        raise ValueError(f"the model has the inputs {', '.join(signature)}, not {', '.join(map(str, model_input))}")
    return {name: _shaped(name, model_input[name], signature[name]) for name in signature}


def _shaped(name: str, value: Any, said: Mapping[str, Any]) -> Any:
    """An array of the input's type; one of another rank takes the input's shape, its free first axis as it comes."""
    shape = [size if isinstance(size, int) and size >= 0 else None for size in said["shape"]]
    kind = said["type"]
    try:
        array = np.asarray(value, dtype=object if kind in ("object", "string") else kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"input {name!r} is no array of {kind}: {error}") from error
    if array.ndim == len(shape):
        return array
    fixed = [1 if size is None else size for size in shape]
    if shape and shape[0] is None:
        fixed[0] = -1
    try:
        return array.reshape(fixed)
    except ValueError as error:
        raise ValueError(f"input {name!r} has shape {list(array.shape)}, the model takes {said['shape']}") from error
