"""Saves the SavedModels of these tests, and what TensorFlow makes of Keras models: `.keras`, `.h5`, `.tflite`. Inside
the environment `tensorflow`: `python savedmodels.py FOLDER`. Those that can be asked have their own answers beside them
(`originals`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import keras
import numpy as np
import tensorflow as tf
from originals import keep, normal, one_by_one, whole

FOLDER = Path(sys.argv[1])
DRAW = np.random.RandomState(0)


class Line(tf.Module):
    """Two answers to one input."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(DRAW.normal(size=(3, 2)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def serve(self, x: Any) -> dict[str, Any]:
        scores = tf.nn.softmax(x @ self.weights)
        return {"scores": scores, "kind": tf.argmax(scores, 1)}


class Two(tf.Module):
    """Two inputs, one of whole numbers."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "b"), tf.TensorSpec([None], tf.int64, "a")])
    def serve(self, b: Any, a: Any) -> dict[str, Any]:
        return {"total": b * 2.0 + tf.cast(a, tf.float32)[:, tf.newaxis]}


class Fixed(tf.Module):
    """One row at a time."""

    @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="x")])
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": tf.reshape(tf.nn.softmax(x * 2.0), [1, 3])}


class Gamma(tf.Module):
    """Has an operator that ONNX does not know."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "b"), tf.TensorSpec([None, 3], tf.float32, "a")])
    def serve(self, b: Any, a: Any) -> dict[str, Any]:
        return {"whole": tf.math.lgamma(tf.abs(b) + 1.0) - a, "above": tf.math.argmax(b, 1)}


class Words(tf.Module):
    """Takes text."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="t")])
    def serve(self, t: Any) -> dict[str, Any]:
        return {"n": tf.strings.length(t)}


class Bare(tf.Module):
    """Has nothing that could be called."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable([1.0])


def keras_model() -> Any:
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])


def several() -> Any:
    """Two inputs and two outputs, whose names are not in the order of the alphabet."""
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    both = keras.layers.Concatenate()([left, right])
    return keras.Model([left, right], {"p": keras.layers.Dense(3)(both), "a": both})


ROWS: dict[str, dict[str, Any]] = {
    "line": {"x": normal(3)},
    "two": {"a": whole(below=9), "b": normal(4)},
    "fixed": {"x": normal(3, rows=7)},
    "gamma": {"a": normal(3), "b": normal(3)},
    "exported": {"x": normal(8, 8, 1)},
}
PICTURES = normal(8, 8, 1)


def signature_original(path: Path) -> Any:
    """What the signature of a loaded model answers."""
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]

    def ask(rows: dict[str, Any]) -> dict[str, Any]:
        return {name: each.numpy() for name, each in serve(**{k: tf.constant(v) for k, v in rows.items()}).items()}

    return one_by_one(ask) if path.name == "fixed" else ask


def tflite_original(data: bytes) -> Any:
    """What TensorFlow's own interpreter answers through the signature."""

    def ask(rows: dict[str, Any]) -> dict[str, Any]:
        run = tf.lite.Interpreter(model_content=data).get_signature_runner("serving_default")
        return dict(run(**rows))

    return ask


def tflite(model: Any, *, optimized: bool = False, whole_numbers: bool = False) -> bytes:
    """Converted, with dynamic ranges or in whole numbers throughout."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if optimized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if whole_numbers:
        converter.representative_dataset = lambda: ([row[np.newaxis]] for row in PICTURES[:50])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def save_tflite() -> None:
    """Float, dynamic range, int8, several inputs and outputs."""
    model = keras_model()
    levels = {"x": (whole(8, 8, 1, below=255) - 128).astype("int8")}
    for name, data, rows in (
        ("float.tflite", tflite(model), {"x": PICTURES}),
        ("dynamic.tflite", tflite(model, optimized=True), {"x": PICTURES}),
        ("int8.tflite", tflite(model, optimized=True, whole_numbers=True), levels),
        ("several.tflite", tflite(several()), {"left": normal(4), "right": normal(2)}),
    ):
        (FOLDER / name).write_bytes(data)
        own = tf.lite.Interpreter(model_content=data).get_signature_runner("serving_default").get_input_details()
        keep(FOLDER / name, called(rows, list(own)), tflite_original(data))


def save_flex() -> None:
    """An operator that no TFLite runtime has by itself."""
    error = tf.function(tf.math.erf).get_concrete_function(tf.TensorSpec([None, 3], tf.float32, "x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([error])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    (FOLDER / "flex.tflite").write_bytes(bytes(converter.convert()))


def called(rows: dict[str, Any], own: list[str]) -> dict[str, Any]:
    """Rows under the names of a signature: Keras gives an input without a name one of its own."""
    return rows if set(rows) == set(own) else dict(zip(own, rows.values(), strict=True))


def save_keras() -> None:
    """One Keras model as TensorFlow's Keras saves it, and as a SavedModel."""
    model = keras_model()
    model.export(str(FOLDER / "exported"), verbose=False)
    for name in ("pictures.keras", "pictures.h5"):
        model.save(FOLDER / name)
        keep(FOLDER / name, {"input": PICTURES}, lambda rows: {"output": model.predict(rows["input"], verbose=0)})


def main() -> None:
    """Write all of them."""
    for make in (Line, Two, Fixed, Gamma, Words):
        model = make()
        tf.saved_model.save(model, str(FOLDER / make.__name__.lower()), signatures={"serving_default": model.serve})
    tf.saved_model.save(Bare(), str(FOLDER / "bare"))
    save_keras()
    for name, rows in ROWS.items():
        serve = tf.saved_model.load(str(FOLDER / name)).signatures["serving_default"]
        keep(FOLDER / name, called(rows, list(serve.structured_input_signature[1])), signature_original(FOLDER / name))
    save_tflite()
    save_flex()


if __name__ == "__main__":
    main()
