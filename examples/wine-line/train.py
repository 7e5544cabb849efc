"""Makes the files of this example anew: wine-line.onnx and golden.json, byte for byte the same each time.

A bottling line's quality check: thirteen measurements of a wine tell which of three cultivars it is. The model is a
scikit-learn pipeline on the wine data that scikit-learn carries; the golden rows are its own answers, so that
edgepack can prove that the ONNX file says the same.

    python3 -m venv /tmp/wine && /tmp/wine/bin/pip install -r requirements.txt && /tmp/wine/bin/python train.py
"""

import json
from pathlib import Path

import numpy as np
from onnx import ModelProto
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
# what every edgepack runtime accepts; the newest that onnx offers is refused by onnxruntime
OPSETS = {"": 17, "ai.onnx.ml": 3}


def main() -> None:
    """Train, convert, and write both files."""
    wine = load_wine()
    measured = wine.data.astype(np.float32)  # the schema's type: the reference is computed on what devices will send
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(measured, wine.target)
    (HERE / "wine-line.onnx").write_bytes(converted(model))
    (HERE / "golden.json").write_text(golden_rows(model, measured))


def converted(model: Pipeline) -> bytes:
    """The pipeline as ONNX: one input `inputs`, outputs `predictions` and `probabilities`."""
    made = convert_sklearn(
        model,
        name="wine-line",
        initial_types=[("inputs", FloatTensorType([None, 13]))],
        target_opset=OPSETS,
        options={"zipmap": False},
    )
    return rename_outputs(made, {"label": "predictions", "probabilities": "probabilities"}).SerializeToString(
        deterministic=True
    )


def rename_outputs(made: ModelProto, names: dict[str, str]) -> ModelProto:
    """Give the graph's outputs other names, wherever nodes mention them."""
    for value in made.graph.output:
        value.name = names[value.name]
    for node in made.graph.node:
        for place in (node.input, node.output):
            place[:] = [names.get(name, name) for name in place]
    return made


def golden_rows(model: Pipeline, measured: np.ndarray) -> str:
    """Every wine with the original pipeline's answers, a row a line."""
    labels, chances = model.predict(measured), model.predict_proba(measured)
    rows = [
        {
            "in.inputs": [float(str(value)) for value in row],  # the shortest text of the float32
            "out.predictions": int(label),
            "out.probabilities": [round(float(value), 7) for value in chance],
        }
        for row, label, chance in zip(measured, labels, chances, strict=True)
    ]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


if __name__ == "__main__":
    main()
