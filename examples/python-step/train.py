"""Makes wear.onnx and golden.json anew: readings of pumps are drawn, prepared by the step itself, and learned.

uv venv /tmp/pump && uv pip install --python /tmp/pump -r requirements.txt && /tmp/pump/bin/python train.py
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingRegressor

HERE = Path(__file__).parent
NOMINAL = {"P-20": (1450, 200, 70, 4000), "P-35": (1450, 350, 75, 4000), "P-80": (2900, 800, 80, 6000)}
ROWS, GOLDEN = 600, 40


def main() -> None:
    """Draw, prepare, train, convert, write."""
    readings = drawn(np.random.default_rng(20))
    tensor = prepare(readings)
    model = GradientBoostingRegressor(n_estimators=60, random_state=0).fit(tensor, hours_left(tensor))
    made = convert_sklearn(
        model,
        name="wear",
        initial_types=[("tensor", FloatTensorType([None, tensor.shape[1]]))],
        final_types=[("hours_left", FloatTensorType([None, 1]))],
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    (HERE / "wear.onnx").write_bytes(made.SerializeToString(deterministic=True))
    answers = model.predict(tensor).astype(np.float32)
    rows = [
        {
            **{f"in.{name}": column[row].item() for name, column in readings.items()},
            "out.hours_left": [float(str(hours))],
        }
        for row, hours in enumerate(answers[:GOLDEN])
    ]
    (HERE / "golden.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def drawn(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Readings of healthy and worn pumps."""
    models = random.choice(list(NOMINAL), ROWS)
    rpm, flow, celsius, service = np.array([NOMINAL[model] for model in models]).T
    worn = random.random(ROWS)
    inlet = random.uniform(0.5, 1.5, ROWS).round(2)
    return {
        "model": models,
        "rpm": (rpm * random.normal(1, 0.01, ROWS)).astype(np.int64),
        "flow_lpm": (flow * (1 - 0.4 * worn) * random.normal(1, 0.02, ROWS)).round(1),
        "inlet_bar": inlet,
        "outlet_bar": (inlet + 4 - 1.5 * worn + random.normal(0, 0.05, ROWS)).round(2),
        "celsius": (celsius - 10 + 15 * worn + random.normal(0, 1, ROWS)).round(1),
        "watts": (flow * 12 * (1 + 0.3 * worn)).round(0),
        "hours_since_service": (service * random.random(ROWS)).astype(np.int64),
    }


def hours_left(tensor: np.ndarray) -> np.ndarray:
    """What the pump's maker says: flow and head tell of wear, the service book of the rest."""
    worn = (1 - tensor[:, 1]) + (4 - tensor[:, 2]) / 4
    return np.clip(6000 - 5000 * worn - 500 * tensor[:, 3] - 400 * tensor[:, 4], 0, None)


def prepare(readings: dict[str, np.ndarray]) -> np.ndarray:
    """Call the step as the pipeline does, with stand-ins for the two packages that edgepack provides."""
    sys.modules["wallaroo"] = types.ModuleType("wallaroo")
    sys.modules["mac"], sys.modules["mac.types"] = types.ModuleType("mac"), types.ModuleType("mac.types")
    sys.modules["mac.types"].InferenceData = dict
    spec = importlib.util.spec_from_file_location("prepare", HERE / "prepare_step/prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.process_data(readings)["tensor"]


if __name__ == "__main__":
    main()
