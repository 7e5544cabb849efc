"""Makes the files of this example anew: digits-camera.onnx and golden.json.

A camera reads digits: pictures of 8×8 grey values, 0 to 16, as scikit-learn carries them. The model is a small
convolutional network: one layer of fixed random filters, pooled, and a fitted last layer (a random-feature network
needs no training framework and still reads 94 of 100 digits that it has not seen). numpy computes it here; the golden
rows are numpy's answers, so that edgepack can prove that the ONNX file says the same.

    python3 -m venv /tmp/digits && /tmp/digits/bin/pip install -r requirements.txt && /tmp/digits/bin/python train.py
"""

import json
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent
FILTERS, GOLDEN_ROWS = 24, 60
OPSET, IR = 17, 8  # what every edgepack runtime accepts


def main() -> None:
    """Fit, export, and write both files."""
    digits = load_digits()
    pictures = digits.images.astype(np.float32)[:, np.newaxis]  # (n, 1, 8, 8)
    filters = np.random.default_rng(8).normal(size=(FILTERS, 1, 3, 3)).astype(np.float32) / 16
    features = pooled(pictures, filters)
    seen, unseen = slice(0, 1500), slice(1500, None)
    head = LogisticRegression(max_iter=2000, C=0.3).fit(features[seen], digits.target[seen])
    print(f"reads {head.score(features[unseen], digits.target[unseen]):.1%} of the digits it has not seen")
    weights = head.coef_.T.astype(np.float32), head.intercept_.astype(np.float32)
    (HERE / "digits-camera.onnx").write_bytes(exported(filters, *weights).SerializeToString(deterministic=True))
    (HERE / "golden.json").write_text(golden_rows(pictures[-GOLDEN_ROWS:], filters, *weights))


def pooled(pictures: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Convolve with a margin of one, cut below zero, and take the largest of each 2×2."""
    framed = np.pad(pictures[:, 0], ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(framed, (3, 3), axis=(1, 2))  # (n, 8, 8, 3, 3)
    maps = np.maximum(np.einsum("nyxij,fij->nfyx", windows, filters[:, 0]), 0)
    return maps.reshape(len(maps), FILTERS, 4, 2, 4, 2).max(axis=(3, 5)).reshape(len(maps), -1)


def answers(pictures: np.ndarray, filters: np.ndarray, slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The probability of each digit."""
    scores = pooled(pictures, filters) @ slopes + offsets
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def exported(filters: np.ndarray, slopes: np.ndarray, offsets: np.ndarray) -> ModelProto:
    """The network as ONNX: `image`, outputs `digit` and `probabilities`."""
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["lit"]),
        helper.make_node("MaxPool", ["lit"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "slopes", "offsets"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits-camera",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
        ],
        [
            numpy_helper.from_array(filters, "filters"),
            numpy_helper.from_array(slopes, "slopes"),
            numpy_helper.from_array(offsets, "offsets"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(model)
    return model


def golden_rows(pictures: np.ndarray, *network: np.ndarray) -> str:
    """Pictures with numpy's answers, a row a line."""
    chances = answers(pictures, *network)
    rows = [
        {
            "in.image": picture.tolist(),
            "out.digit": int(chance.argmax()),
            "out.probabilities": [round(float(value), 7) for value in chance],
        }
        for picture, chance in zip(pictures, chances, strict=True)
    ]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


if __name__ == "__main__":
    main()
