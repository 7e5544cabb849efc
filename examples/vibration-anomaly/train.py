"""Makes the files of this example anew: vibration-anomaly.tflite and golden.json.

A sensor on a motor gives the spectrum of its vibration in 32 bands. A small autoencoder learns healthy spectra and
rebuilds them; what it rebuilds badly is unusual. scikit-learn fits it, here it becomes 8-bit integers, written with
the schema classes of ai-edge-litert, so no TensorFlow is needed. The golden rows are the answers of the same integers
in numpy.

    python3 -m venv /tmp/vibration && /tmp/vibration/bin/pip install -r requirements.txt
    /tmp/vibration/bin/python train.py
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from sklearn.neural_network import MLPRegressor

HERE = Path(__file__).parent
BANDS, INNER, GOLDEN_ROWS = 32, 12, 40


@dataclass(frozen=True)
class Scale:
    """What an integer stands for: (integer - zero) * step."""

    step: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> "Scale":
        """256 levels from low to high, with one of them for nothing at all."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = float(np.float32((high - low) / 255))
        return cls(step, round(-128 - low / step))

    def integers(self, numbers: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(numbers / np.float32(self.step)) + self.zero, -128, 127).astype(np.int8)

    def numbers(self, integers: np.ndarray) -> np.ndarray:
        return (integers.astype(np.float32) - np.float32(self.zero)) * np.float32(self.step)


@dataclass(frozen=True)
class Layer:
    """One dense layer in integers; `relu` cuts below zero."""

    weights: np.ndarray  # int8, a row an output
    bias: np.ndarray  # int32
    taken: Scale
    weight_step: float
    given: Scale
    relu: bool

    def infer(self, integers: np.ndarray) -> np.ndarray:
        sums = (integers.astype(np.int64) - self.taken.zero) @ self.weights.T.astype(np.int64) + self.bias
        scaled = sums * (self.taken.step * self.weight_step / self.given.step)
        rounded = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) + self.given.zero
        return np.clip(rounded, self.given.zero if self.relu else -128, 127).astype(np.int8)


def main() -> None:
    """Fit, quantize, and write both files."""
    draw = np.random.default_rng(3)
    healthy = spectra(draw, 4000)
    net = MLPRegressor(hidden_layer_sizes=(INNER,), max_iter=400, random_state=0, alpha=1e-5).fit(healthy, healthy)
    layers = quantized(net, healthy)
    (HERE / "vibration-anomaly.tflite").write_bytes(exported(layers))
    seen = np.concatenate([spectra(draw, GOLDEN_ROWS - 8), worn(draw, 8)]).round(4)
    (HERE / "golden.json").write_text(golden_rows(seen, rebuilt(layers, seen)))
    for name, rows in (("healthy", spectra(draw, 1000)), ("worn", worn(draw, 1000))):
        found = np.abs(rebuilt(layers, rows) - rows).mean(axis=1) > 0.12
        print(f"{name}: {found.mean():.1%} of the spectra are found unusual")


def spectra(draw: np.random.Generator, count: int) -> np.ndarray:
    """Healthy motors: a turning rate, its harmonics, a load, and noise; float32 between 0 and 1.5."""
    bands = np.arange(BANDS)
    rate, load = draw.uniform(2.5, 4.5, (count, 1)), draw.uniform(0.4, 1.0, (count, 1))
    peaks = sum(load / part * np.exp(-((bands - part * rate) ** 2) / 1.5) for part in (1, 2, 3))
    return (peaks + 0.05 * draw.random((count, BANDS))).astype(np.float32)


def worn(draw: np.random.Generator, count: int) -> np.ndarray:
    """Motors with a worn bearing: energy in the high bands."""
    bands = np.arange(BANDS)
    bearing = draw.uniform(20, 28, (count, 1))
    return (spectra(draw, count) + 0.8 * np.exp(-((bands - bearing) ** 2) / 6)).astype(np.float32)


def quantized(net: MLPRegressor, seen: np.ndarray) -> list[Layer]:
    """Integers for each layer, scaled to what it saw."""
    taken, values, layers = Scale.over(0, 1.5), seen, []
    for number, (slopes, offsets) in enumerate(zip(net.coefs_, net.intercepts_, strict=True)):
        is_inner = number + 1 < len(net.coefs_)
        values = values @ slopes + offsets
        values = np.maximum(values, 0) if is_inner else values
        given = Scale.over(float(values.min()), float(values.max())) if is_inner else Scale.over(-0.5, 2.0)
        step = float(np.float32(np.abs(slopes).max() / 127))
        bias = np.rint(offsets / (taken.step * step)).astype(np.int32)
        layers.append(Layer(np.rint(slopes.T / step).astype(np.int8), bias, taken, step, given, is_inner))
        taken = given
    return layers


def rebuilt(layers: list[Layer], rows: np.ndarray) -> np.ndarray:
    """What the model answers: numbers to integers, through the layers, and back."""
    integers = layers[0].taken.integers(rows)
    for layer in layers:
        integers = layer.infer(integers)
    return layers[-1].given.numbers(integers)


def exported(layers: list[Layer]) -> bytes:
    """The network as TFLite: `spectrum` in, `rebuilt` out, both int8 with a scale."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.subgraphs = 3, "vibration-anomaly", [graph]
    model.buffers, model.operatorCodes = [schema.BufferT()], [dense_code()]
    graph.name, graph.tensors, graph.operators = "main", [], []
    first = at = tensor(model, "spectrum", schema.TensorType.INT8, [-1, BANDS], layers[0].taken)
    for number, layer in enumerate(layers):
        weights = tensor(model, f"weights-{number}", schema.TensorType.INT8, layer.weights.shape,
                         Scale(layer.weight_step, 0), layer.weights)  # fmt: skip
        bias = tensor(model, f"bias-{number}", schema.TensorType.INT32, layer.bias.shape,
                      Scale(layer.taken.step * layer.weight_step, 0), layer.bias)  # fmt: skip
        name = "rebuilt" if layer is layers[-1] else f"inner-{number}"
        result = tensor(model, name, schema.TensorType.INT8, [-1, len(layer.bias)], layer.given)
        graph.operators.append(dense([at, weights, bias], result, layer.relu))
        at = result
    graph.inputs, graph.outputs = [first], [at]
    model.signatureDefs = [signature({"spectrum": first}, {"rebuilt": at})]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tensor(model: Any, name: str, kind: int, shape: Sequence[int], scale: Scale, data: np.ndarray | None = None) -> int:
    """Add a tensor to the model's graph; -1 is the rows. Returns its number."""
    made = schema.TensorT()
    made.name, made.type, made.shape = name, kind, [max(size, 1) for size in shape]
    made.shapeSignature = list(shape) if -1 in shape else None
    made.quantization = schema.QuantizationParametersT()
    made.quantization.scale, made.quantization.zeroPoint = [scale.step], [scale.zero]
    made.buffer = 0
    if data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), dtype=np.uint8)
        model.buffers.append(buffer)
        made.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(made)
    return len(model.subgraphs[0].tensors) - 1


def dense_code() -> Any:
    """The one operator of the network: FULLY_CONNECTED, whose version 4 takes int8."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    return code


def dense(taken: list[int], given: int, relu: bool) -> Any:
    """One dense layer."""
    kinds = schema.ActivationFunctionType
    made, options = schema.OperatorT(), schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = kinds.RELU if relu else kinds.NONE
    made.opcodeIndex, made.inputs, made.outputs = 0, taken, [given]
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.FullyConnectedOptions, options
    return made


def signature(inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    """The names that callers use."""
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    made.inputs, made.outputs = ([named(*each) for each in side.items()] for side in (inputs, outputs))
    return made


def named(name: str, number: int) -> Any:
    """A name for a tensor."""
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, number
    return made


def golden_rows(rows: np.ndarray, answers: np.ndarray) -> str:
    """Spectra with the integers' answers, a row a line."""
    lines = [
        {
            "in.spectrum": [round(float(value), 4) for value in row],
            "out.rebuilt": [round(float(value), 6) for value in answer],
        }
        for row, answer in zip(rows, answers, strict=True)
    ]
    return "[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n"


if __name__ == "__main__":
    main()
