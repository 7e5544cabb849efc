"""What one call of the library that made a model costs, in its environment: `python frameworks_originals.py ORDER`.

The order is a JSON object: `form`, `model`, `rows` (an .npz, one array a field), `methods` of an estimator, `counts` of
rows. Prints a JSON object: count → CPU microseconds of a call, the best of some rounds.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, ROUND_S = 5, 0.1
Call = Callable[[dict[str, Any]], Any]


def estimator(order: dict[str, Any]) -> Call:
    model = pickle.loads(Path(order["model"]).read_bytes())
    methods = [getattr(model, name) for name in order["methods"]]

    def call(rows: dict[str, Any]) -> Any:
        (matrix,) = rows.values()
        return [method(matrix) for method in methods]

    return call


def torchscript(order: dict[str, Any]) -> Call:
    import torch

    module = torch.jit.load(order["model"]).eval()

    def call(rows: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return module(*[torch.from_numpy(array) for array in rows.values()])

    return call


def keras(order: dict[str, Any]) -> Call:
    import keras as library
    import torch

    model = library.models.load_model(order["model"], compile=False)

    def call(rows: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(next(iter(rows.values()))), training=False)

    return call


def savedmodel(order: dict[str, Any]) -> Call:
    import tensorflow as tf

    loaded = tf.saved_model.load(order["model"])
    serve = loaded.signatures["serving_default"]

    def call(rows: dict[str, Any]) -> Any:
        assert loaded is not None  # a signature does not keep its variables
        return serve(**{name: tf.constant(array) for name, array in rows.items()})

    return call


def tflite(order: dict[str, Any]) -> Call:
    import tensorflow as tf

    runners: dict[int, Any] = {}

    def call(rows: dict[str, Any]) -> Any:
        count = len(next(iter(rows.values())))
        if count not in runners:  # who asks for one size again and again keeps the interpreter
            runners[count] = tf.lite.Interpreter(order["model"], num_threads=1).get_signature_runner()
        return runners[count](**rows)

    return call


def hugging_face(order: dict[str, Any]) -> Call:
    import transformers

    ask = transformers.pipeline("text-classification", model=order["model"], device="cpu")
    return lambda rows: [ask(str(text)) for text in rows["inputs"]]


FORMS = {
    "estimator": estimator, "torchscript": torchscript, "keras": keras, "savedmodel": savedmodel, "tflite": tflite,
    "hugging_face": hugging_face,
}  # fmt: skip


def cpu_us(call: Callable[[], Any]) -> float:
    """CPU microseconds of a call: as many in a round as take a while, the best round of some."""
    call()
    start = time.process_time()
    call()
    times = max(1, int(ROUND_S / max(1e-6, time.process_time() - start)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            call()
        best = min(best, (time.process_time() - start) / times)
    return best * 1e6


def main() -> None:
    """Load, ask, print."""
    warnings.simplefilter("ignore")
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="torch", HF_HUB_OFFLINE="1")
    order = json.loads(sys.argv[1])
    call = FORMS[order["form"]](order)
    with np.load(order["rows"], allow_pickle=False) as saved:
        rows = {name: saved[name] for name in saved.files}
    found = {}
    for count in order["counts"]:
        few = {name: array[:count] for name, array in rows.items()}
        found[str(count)] = cpu_us(lambda few=few: call(few))  # type: ignore[misc]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
