"""The kind `hugging_face`: a saved pipeline of transformers or diffusers, asked one row at a time, without a network.

The option `task` says which. Fields go to the pipeline by name; null and an empty text are arguments that were not
given. The packager asks the same of a pipeline that may become native (`packager/convert/nets/hugging_face.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

Row = dict[str, Any]
_BOX = ("xmin", "ymin", "xmax", "ymax")
_SEED, _BRIGHTEST = 0, 255


def load(order: dict[str, Any]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Load the pipeline; see `main.load`."""
    task, names = order["options"]["task"], list(order["output"])
    pipeline = opened(task, order["model"])

    def answer(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
        found = [
            answered(task, pipeline, {name: _plain(array[row]) for name, array in arrays.items()})
            for row in range(rows)
        ]
        return {name: _column(name, found) for name in names}

    return answer


def opened(task: str, path: str) -> Any:
    """The pipeline in a folder."""
    return _diffusion(path) if task == _PICTURES else _pipeline(task, path)


def answered(task: str, pipeline: Any, row: Row) -> Row:
    """The answer to one row, by field."""
    import torch

    torch.manual_seed(_SEED)  # what is drawn is the same for the same request
    return _TASKS[task](pipeline, row)


def _pipeline(task: str, path: str) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.pipeline(_NAMES.get(task, task), model=path, device="cpu")


def _diffusion(path: str) -> Any:
    import diffusers

    diffusers.logging.set_verbosity_error()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _column(name: str, found: list[Row]) -> Any:
    column = np.empty(len(found), dtype=object)
    for row, each in enumerate(found):
        if name not in each:
            raise KeyError(f"the pipeline gives {', '.join(each)}, not '{name}'")
        column[row] = each[name]
    return column


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _rest(row: Row, *taken: str) -> Row:
    """All other fields as arguments; null and an empty text were not given."""
    return {name: value for name, value in row.items() if name not in taken and not _is_missing(value)}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _words(value: Any) -> list[str]:
    return [str(each) for each in value]


def _image(value: Any) -> Any:
    from PIL import Image

    pixels = np.asarray(value)
    if pixels.size and (pixels.min() < 0 or pixels.max() > _BRIGHTEST):
        raise ValueError(f"a pixel is {pixels.max() if pixels.max() > _BRIGHTEST else pixels.min()}, expected 0 to 255")
    return Image.fromarray(pixels.astype(np.uint8))


def _listed(found: list[Row], *names: str) -> Row:
    """A list of answers as lists side by side."""
    return {name: [_value(name, each.get(name)) for each in found] for name in names}


def _value(name: str, value: Any) -> Any:
    if name == "box":
        return [int(value[side]) for side in _BOX]
    if name == "mask":
        return np.asarray(value).astype(np.int64).tolist()
    if name == "score":
        return 1.0 if value is None else float(value)  # a map of the whole picture has none
    return str(value)


def _features(pipeline: Any, row: Row) -> Row:
    return {"output": pipeline(row["inputs"], **_rest(row, "inputs"))[0]}


def _of_text(*names: str) -> Callable[[Any, Row], Row]:
    """Text in, a list of answers out."""

    def ask(pipeline: Any, row: Row) -> Row:
        found = pipeline(row["inputs"], **_rest(row, "inputs"))
        return _listed([dict(found)] if isinstance(found, Mapping) else list(found), *names)

    return ask


def _written(name: str) -> Callable[[Any, Row], Row]:
    """Text in, one text out."""

    def ask(pipeline: Any, row: Row) -> Row:
        return {name: str(pipeline(row["inputs"], **_rest(row, "inputs"))[0][name])}

    return ask


def _generated(pipeline: Any, row: Row) -> Row:
    return _listed(pipeline(row["inputs"], **_rest(row, "inputs")), "generated_text")


def _of_image(*names: str) -> Callable[[Any, Row], Row]:
    """A picture in, a list of answers out."""

    def ask(pipeline: Any, row: Row) -> Row:
        return _listed(pipeline(_image(row["inputs"]), **_rest(row, "inputs")), *names)

    return ask


def _caption(pipeline: Any, row: Row) -> Row:
    return _listed(pipeline(_image(row["inputs"]), generate_kwargs=_rest(row, "inputs")), "generated_text")


def _answer(pipeline: Any, row: Row) -> Row:
    found = pipeline(question=row["question"], context=row["context"], **_rest(row, "question", "context"))
    first = found[0] if isinstance(found, list) else found
    return {
        "score": float(first["score"]),
        "start": int(first["start"]),
        "end": int(first["end"]),
        "answer": str(first["answer"]),
    }


def _labelled(pipeline: Any, row: Row) -> Row:
    rest = _rest(row, "inputs", "candidate_labels")
    found = pipeline(row["inputs"], candidate_labels=_words(row["candidate_labels"]), **rest)
    return {"sequence": str(found["sequence"]), "labels": _words(found["labels"]), "scores": list(found["scores"])}


def _labelled_image(pipeline: Any, row: Row) -> Row:
    rest = _rest(row, "inputs", "candidate_labels")
    found = pipeline(_image(row["inputs"]), candidate_labels=_words(row["candidate_labels"]), **rest)
    return _listed(found, "score", "label")


def _found_objects(pipeline: Any, row: Row) -> Row:
    rest = _rest(row, "images", "candidate_labels")
    found = pipeline(_image(row["images"]), candidate_labels=_words(row["candidate_labels"]), **rest)
    return _listed(found, "score", "label", "box")


def _speech(pipeline: Any, row: Row) -> Row:
    rest = _rest(row, "inputs")
    if "return_timestamps" in rest:
        said = str(rest["return_timestamps"])
        rest["return_timestamps"] = said.lower() == "true" if said.lower() in ("true", "false") else said
    found = pipeline(np.asarray(row["inputs"], dtype=np.float32), **rest)
    chunks = [
        {"text": str(each["text"]), "timestamp": [float(at) for at in each["timestamp"] if at is not None]}
        for each in found.get("chunks", ())
    ]
    return {"text": str(found["text"]), "chunks": chunks}


def _picture(pipeline: Any, row: Row) -> Row:
    rest = _rest(row)
    if "num_images_per_prompt" in rest:
        rest["num_images_per_prompt"] = int(rest["num_images_per_prompt"])  # some declare it as text
    made = pipeline(**rest).images[0]
    return {"images": np.asarray(made).astype(np.int64).tolist()}


_PICTURES = "stable-diffusion-text-2-img"
_NAMES = {"sentiment-analysis": "text-classification"}  # one pipeline under two names
_TASKS: dict[str, Callable[[Any, Row], Row]] = {
    "feature-extraction": _features,
    "image-classification": _of_image("score", "label"),
    "image-segmentation": _of_image("score", "label", "mask"),
    "image-to-text": _caption,
    "object-detection": _of_image("score", "label", "box"),
    "question-answering": _answer,
    _PICTURES: _picture,
    "summarization": _written("summary_text"),
    "text-classification": _of_text("label", "score"),
    "sentiment-analysis": _of_text("label", "score"),
    "translation": _written("translation_text"),
    "zero-shot-classification": _labelled,
    "zero-shot-image-classification": _labelled_image,
    "zero-shot-object-detection": _found_objects,
    "text-generation": _generated,
    "automatic-speech-recognition": _speech,
}
