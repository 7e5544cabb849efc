"""The child's program: read a model, quantize it, say what became of it. Results are files.

`result.json` says which operators became integers, or why none; `quantized.onnx` is the model. Whether it is good
enough is not decided here.

Weights have seven bits of their eight: on x86 CPUs without VNNI the sum of two products of eight bits does not fit the
sixteen bits it is kept in, and answers are wrong by a tenth of their range, silently (docs/decisions/0015).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..fields import Unsuited, line
from ..jobs import carry_out
from .calibration import calibrated
from .graph import (
    DYNAMIC,
    LARGEST_BYTES,
    STATIC,
    candidates,
    check_worth,
    flatten_biases,
    is_quantized,
    opened,
    plainly,
)

# between them tensors may stay integers
_PASSING = ("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat", "Reshape", "Transpose")
_SHAPING = ("Squeeze", "Unsqueeze", "Flatten")
# What these give stays floats: it is the answer, or what a softmax or an activation reads.
_FLOAT_OUTPUT = {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}


def main(job_text: str) -> None:
    """Do one job."""
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(4)
    carry_out(job_text, _run)


def _run(job: dict[str, Any], result: dict[str, Any]) -> None:
    folder, is_dynamic = Path(job["folder"]), job["quantize"] == "dynamic"
    original = opened(job["model"])
    prepared, made = folder / "prepared.onnx", folder / "made.onnx"
    _prepare(original, prepared)
    found = check_worth(onnx.load(prepared), job["quantize"])
    try:
        _dynamic(prepared, made) if is_dynamic else _static(prepared, made, job)
    except (Unsuited, MemoryError):
        raise
    except Exception as error:  # the quantizer raises anything
        raise Unsuited(f"the quantizer refuses it: {type(error).__name__}: {line(error)}") from error
    model = onnx.load(made)
    became = found - candidates(model, job["quantize"])
    if not became or not is_quantized(model):
        raise Unsuited(f"the quantizer left it as it is: {', '.join(found)} with weights that it does not take")
    (folder / "quantized.onnx").write_bytes(plainly(model, original))
    result.update(operators=dict(sorted(became.items())), versions=_versions())


def _prepare(model: onnx.ModelProto, path: Path) -> None:
    """Write the model as one file with constants folded, norms in their convolutions and shapes: all of it portable."""
    if model.ByteSize() >= LARGEST_BYTES:
        raise Unsuited(f"it has {model.ByteSize()} bytes: only models below {LARGEST_BYTES} are quantized")
    whole = path.with_suffix(".whole")
    onnx.save(model, whole)
    try:
        quant_pre_process(str(whole), str(path), skip_symbolic_shape=True)
        ready = onnx.load(path)
        flatten_biases(ready)
        onnx.save(ready, path)
    except Exception as error:  # onnx and onnxruntime raise anything
        raise Unsuited(f"it cannot be prepared: {type(error).__name__}: {line(error)}") from error
    finally:
        whole.unlink()


def _dynamic(path: Path, made: Path) -> None:
    """Weights as integers; what they meet becomes integers while the model runs."""
    quantize_dynamic(
        path,
        made,
        op_types_to_quantize=list(DYNAMIC),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _static(path: Path, made: Path, job: dict[str, Any]) -> None:
    """Weights and what they meet as integers, with the ranges that rows have shown."""
    kinds = [*STATIC, *_PASSING, *_SHAPING]
    ranges = calibrated(path, job["rows"], job["names"], kinds)
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(path),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=kinds,
        extra_options=_FLOAT_OUTPUT,
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(made))


def _versions() -> dict[str, str]:
    return {"onnx": str(onnx.__version__), "onnxruntime": str(onnxruntime.__version__)}
