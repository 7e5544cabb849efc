"""Saves the SavedModels of these tests, inside the environment `tensorflow`: `python savedmodels.py FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import numpy as np
import tensorflow as tf

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


def main() -> None:
    """Write all of them."""
    for make in (Line, Two, Words):
        model = make()
        tf.saved_model.save(model, str(FOLDER / make.__name__.lower()), signatures={"serving_default": model.serve})
    tf.saved_model.save(Bare(), str(FOLDER / "bare"))


if __name__ == "__main__":
    main()
