"""What a saved pipeline does around its network, as data (`bundle.task.TaskSpec`), and what cannot be said so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..fields import Unsuited

TOKENIZER = "tokenizer.json"
ANSWERING = "question-answering"
_WINDOW = 384  # tokens, where a tokenizer takes more
_KNOWN = ("input_ids", "token_type_ids", "attention_mask")
_PROCESSORS = (  # that resize, crop, scale and normalize, in this order, and do nothing else
    *("BeitImageProcessor", "BitImageProcessor", "CLIPImageProcessor", "ConvNextImageProcessor", "DeiTImageProcessor"),
    *("MobileNetV1ImageProcessor", "MobileNetV2ImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"),
)
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_STEEP_FIRST = 13  # the release of Pillow from which on resizing may begin with the height
_WHOLE = 384  # ConvNext: from this size on pictures are not cropped
_UNLIMITED = 10**9  # what tokenizers say that were given no length is larger
_SEED, _WORDS = 20240229, (1, 3, 9, 30, 60)


def described(task: str, pipeline: Any) -> dict[str, Any]:
    """The task but for its network. Raises Unsuited with what runs in a worker alone."""
    config = pipeline.model.config
    said: dict[str, Any] = {"name": task}
    if "classification" in task:
        count = len(config.id2label)
        said.update(labels=[str(config.id2label[at]) for at in range(count)], scores=_scores(task, config))
    if task == "zero-shot-classification":
        said["entailment"] = int(pipeline.entailment_id)
    if task == ANSWERING:
        said["answering"] = _answering(pipeline.tokenizer)
    if pipeline.tokenizer is not None:
        said["text"] = {"most": 0, "cut_at": _text(task, pipeline.tokenizer)}
    else:
        said["picture"] = _picture(pipeline.image_processor)
    return said


def _scores(task: str, config: Any) -> str:
    kind = config.problem_type
    if kind == "regression" and task != "image-classification":
        return "none"
    if kind == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _text(task: str, tokenizer: Any) -> int:
    """To how many tokens texts are cut off."""
    if not tokenizer.is_fast:
        raise Unsuited(f"its tokenizer {type(tokenizer).__name__} is Python code, it has no tokenizer.json")
    odd = [name for name in tokenizer.model_input_names if name not in _KNOWN]
    if odd:
        raise Unsuited(f"its tokenizer gives '{odd[0]}', which edgepack does not make")
    if getattr(tokenizer, "split_special_tokens", False):
        raise Unsuited("its tokenizer splits special tokens, which tokenizer.json does not say")
    if task != "zero-shot-classification":
        return 0
    if tokenizer.truncation_side != "right":
        raise Unsuited("its tokenizer cuts texts off at their beginning")
    return 0 if tokenizer.model_max_length > _UNLIMITED else int(tokenizer.model_max_length)


def _answering(tokenizer: Any) -> dict[str, int]:
    if tokenizer.padding_side != "right" or tokenizer.truncation_side != "right":
        raise Unsuited("its tokenizer pads or cuts off at the beginning of a text")
    mark = tokenizer.cls_token_id
    length = min(int(min(tokenizer.model_max_length, _UNLIMITED)), _WINDOW)
    return {"length": length, "mark": -1 if mark is None else int(mark)}


def tokenizer_text(pipeline: Any) -> str:
    """The tokenizer as it is once loaded: `tokenizer_config.json` may have changed what the file says."""
    text: str = pipeline.tokenizer.backend_tokenizer.to_str()
    said = json.loads(text)
    said.update(truncation=None, padding=None)
    return json.dumps(said, ensure_ascii=False)


def texts_of(pipeline: Any) -> list[str]:
    """Texts of the tokenizer's own words, longer and longer."""
    if pipeline.tokenizer is None:
        return []
    draw, size = np.random.RandomState(_SEED), len(pipeline.tokenizer)
    return [pipeline.tokenizer.decode(draw.randint(0, size, count).tolist()) for count in _WORDS]


def _picture(processor: Any) -> list[dict[str, Any]]:
    kind = type(processor).__name__
    if kind not in _PROCESSORS:
        raise Unsuited(f"its image processor {kind} is not one that edgepack does natively")
    steps: list[dict[str, Any]] = []
    if processor.do_resize:
        steps += _convnext(processor) if kind == "ConvNextImageProcessor" else [_resize(processor, processor.size)]
    if getattr(processor, "do_center_crop", False):
        steps.append({"do": "crop", "height": processor.crop_size["height"], "width": processor.crop_size["width"]})
    if processor.do_rescale:
        steps.append({"do": "scale", "factor": float(processor.rescale_factor)})
    if processor.do_normalize:
        mean, std = (_three(each) for each in (processor.image_mean, processor.image_std))
        steps.append({"do": "normalize", "mean": mean, "std": std})
    return steps


def _convnext(processor: Any) -> list[dict[str, Any]]:
    edge = int(processor.size["shortest_edge"])
    if edge >= _WHOLE:
        return [_resize(processor, {"height": edge, "width": edge})]
    wider = _resize(processor, {"shortest_edge": int(edge / processor.crop_pct)})
    return [wider, {"do": "crop", "height": edge, "width": edge}]


def _resize(processor: Any, size: Any) -> dict[str, Any]:
    import PIL

    if "height" in size:
        height, width = int(size["height"]), int(size["width"])
    elif set(size) == {"shortest_edge"}:
        height, width = int(size["shortest_edge"]), 0
    else:
        raise Unsuited(f"its image processor resizes to {', '.join(sorted(size))}")
    steep_first = int(PIL.__version__.partition(".")[0]) >= _STEEP_FIRST
    name = _FILTERS[int(processor.resample)]
    return {"do": "resize", "height": height, "width": width, "filter": name, "steep_first": steep_first}


def _three(value: Any) -> list[float]:
    return [float(each) for each in value] if isinstance(value, (list, tuple)) else [float(value)] * 3
