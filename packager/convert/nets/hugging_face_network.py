"""The network of a saved pipeline as ONNX: its own tensors in, one tensor out, rows and tokens free."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import torch

from ..fields import Unsuited
from .hugging_face_task import ANSWERING
from .torchscript import OPSET

_SENTENCE = "the line stopped at noon"
_UNSAID = 512  # tokens, where a configuration does not say how many
_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length")
_GIVES = {  # of tasks whose network answers for each token: its first tensors
    "feature-extraction": ("features",),
    ANSWERING: ("start_logits", "end_logits"),
}
_ROWS = 2  # of an example
_BEYOND = 8  # tokens above the length that is said: who answers these has no limit


class _Flat(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """Takes and gives tensors one after another, as the exporter wants them; gives the first `count`."""

    def __init__(self, model: Any, names: list[str], count: int) -> None:
        super().__init__()
        self.model, self.names, self.count = model, names, count

    def forward(self, *tensors: Any) -> Any:
        return tuple(self.model(**dict(zip(self.names, tensors)), return_dict=False)[: self.count])


def export(pipeline: Any, task: str, path: str, said: dict[str, Any]) -> None:
    """Write the network; `takes` and `gives` of what is said of the task are filled in."""
    given = _example(pipeline)
    names, model = list(given), pipeline.model.eval()
    if model.dtype != torch.float32:
        raise Unsuited(f"its weights are {str(model.dtype).rpartition('.')[2]}, which it computes with in a worker")
    gives = _GIVES.get(task, ("logits",))
    flat = _Flat(model, names, len(gives))
    with torch.no_grad():
        found = dict(zip(gives, flat(*given.values())))
    if any(not isinstance(each, torch.Tensor) or len(each) != _ROWS for each in found.values()):
        raise Unsuited("its network gives something else than tensors, rows first")
    tokens = pipeline.tokenizer is not None
    said["takes"] = {name: _type("int64" if tokens else "float32", tensor.ndim - 1) for name, tensor in given.items()}
    said["gives"] = {name: _type("float32", tensor.ndim - 1) for name, tensor in found.items()}
    free = {0: "rows", 1: "tokens"} if tokens else {0: "rows"}
    warnings.simplefilter("ignore")
    with torch.no_grad():
        torch.onnx.export(
            flat,
            tuple(given.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=list(gives),
            dynamic_axes={
                **{name: free for name in names},
                **{name: free if task in _GIVES else {0: "rows"} for name in gives},
            },
        )

    taken = {each.name for each in onnx.load(path, load_external_data=False).graph.input}
    said["takes"] = {name: type_ for name, type_ in said["takes"].items() if name in taken}  # some networks ignore some


def longest(pipeline: Any) -> int:
    """How many tokens the network takes; 0 for any number."""
    said = next((int(size) for name in _LENGTHS if (size := getattr(pipeline.model.config, name, None))), _UNSAID)
    if _takes(pipeline, said + _BEYOND):
        return 0
    low, high = 1, said + _BEYOND
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _takes(pipeline, middle) else (low, middle)
    return low


def _takes(pipeline: Any, length: int) -> bool:
    given = _example(pipeline)
    try:
        with torch.no_grad():
            pipeline.model(**{name: _longer(tensor[:1], length) for name, tensor in given.items()})
    except Exception:  # whatever it raises, it does not take so many
        return False
    return True


def _longer(tokens: Any, length: int) -> Any:
    """The same row with its middle token again and again: marks at its ends stay where they are."""
    if length <= 2:
        return tokens[:, :length]
    middle = tokens[:, 1:2].expand(1, length - 2)
    return torch.cat([tokens[:, :1], middle, tokens[:, -1:]], dim=1)


def _example(pipeline: Any) -> dict[str, Any]:
    """Two rows of the network's tensors, as the pipeline makes them."""
    if pipeline.tokenizer is not None:
        return dict(pipeline.tokenizer([_SENTENCE, _SENTENCE], return_tensors="pt"))
    from PIL import Image

    picture = Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint32).reshape(48, 40, 3).astype(np.uint8))
    return dict(pipeline.image_processor(images=[picture, picture], return_tensors="pt"))


def _type(scalar: str, depth: int) -> str:
    return "list<" * depth + scalar + ">" * depth
