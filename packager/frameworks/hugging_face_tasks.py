"""The tasks of Hugging Face pipelines: the fields each takes and gives, and rows to ask.

Fields and their types are those of the pipelines' own arguments and answers (transformers, "Pipelines").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from columns.columns import Columns
from columns.schema import Field, Schema
from columns.types import ListOf, Type
from columns.values import column_from_values
from edgepack.errors import BadInput

_IMAGE = "list<list<list<int64>[3]>>"
_SCORES = {"score": "list<float64>", "label": "list<string>"}
_BOXES = {**_SCORES, "box": "list<list<int64>[4]>"}
_TEXT = {"inputs": "string"}
_WRITING = {"return_text": "bool", "return_tensors": "bool", "clean_up_tokenization_spaces": "bool"}
_ANSWERING = ("top_k", "doc_stride", "max_answer_len", "max_seq_len", "max_question_len")


@dataclass(frozen=True)
class Task:
    """What a pipeline must be given (`needs`), may be given (`takes`), and gives. `forwards`: any other field goes to
    the model's `generate`. `reads` is what must lie beside the model's weights.
    """

    needs: Mapping[str, str]
    takes: Mapping[str, str]
    gives: Mapping[str, str]
    forwards: bool = False
    reads: tuple[str, ...] = ("tokenizer",)


_ALSO = {"num_images_per_prompt": "string"}  # other types that schemas in use have: the number as text

_PICTURED = ("image processor",)
_BOTH = ("tokenizer", "image processor")
_CLASSIFYING = Task(
    _TEXT,
    {"top_k": "int64", "function_to_apply": "string"},
    {"label": "list<string>", "score": "list<float64>"},
    forwards=True,
)

TASKS: Mapping[str, Task] = {
    "feature-extraction": Task(_TEXT, {}, {"output": "list<list<float64>>"}),
    "image-classification": Task({"inputs": _IMAGE}, {"top_k": "int64"}, _SCORES, reads=_PICTURED),
    "image-segmentation": Task(
        {"inputs": _IMAGE},
        {name: "float64" for name in ("threshold", "mask_threshold", "overlap_mask_area_threshold")},
        {**_SCORES, "mask": "list<list<list<int64>>>"},
        reads=_PICTURED,
    ),
    "image-to-text": Task({"inputs": _IMAGE}, {}, {"generated_text": "list<string>"}, forwards=True, reads=_BOTH),
    "object-detection": Task({"inputs": _IMAGE}, {"threshold": "float64"}, _BOXES, reads=_PICTURED),
    "question-answering": Task(
        {"question": "string", "context": "string"},
        {
            **{name: "int64" for name in _ANSWERING},
            **{name: "bool" for name in ("handle_impossible_answer", "align_to_words")},
        },
        {"score": "float64", "start": "int64", "end": "int64", "answer": "string"},
    ),
    "stable-diffusion-text-2-img": Task(
        {"prompt": "string"},
        {
            **{name: "int64" for name in ("height", "width", "num_inference_steps", "num_images_per_prompt")},
            **{name: "float64" for name in ("guidance_scale", "eta")},
            "negative_prompt": "string",
        },
        {"images": _IMAGE},
        reads=(),
    ),
    "summarization": Task(_TEXT, _WRITING, {"summary_text": "string"}, forwards=True),
    "text-classification": _CLASSIFYING,
    "sentiment-analysis": _CLASSIFYING,
    "translation": Task(
        _TEXT, {**_WRITING, "src_lang": "string", "tgt_lang": "string"}, {"translation_text": "string"}, forwards=True
    ),
    "zero-shot-classification": Task(
        {"inputs": "string", "candidate_labels": "list<string>"},
        {"hypothesis_template": "string", "multi_label": "bool"},
        {"sequence": "string", "scores": "list<float64>", "labels": "list<string>"},
    ),
    "zero-shot-image-classification": Task(
        {"inputs": _IMAGE, "candidate_labels": "list<string>"}, {"hypothesis_template": "string"}, _SCORES, reads=_BOTH
    ),
    "zero-shot-object-detection": Task(
        {"images": _IMAGE, "candidate_labels": "list<string>"}, {"threshold": "float64"}, _BOXES, reads=_BOTH
    ),
    "text-generation": Task(
        _TEXT,
        {**_WRITING, "return_full_text": "bool", "prefix": "string", "handle_long_generation": "string"},
        {"generated_text": "list<string>"},
        forwards=True,
    ),
    "automatic-speech-recognition": Task(
        {"inputs": "list<float32>"},
        {"return_timestamps": "string"},
        {"text": "string", "chunks": "list<struct<text: string, timestamp: list<float32>>>"},
        reads=("feature extractor",),
    ),
}


def fields_of(name: str, inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None) -> tuple[Schema, Schema]:
    """The fields of a step: those given, else what the task needs and gives.

    Raises BadInput that names a field which the task does not know, lacks, or has in another type.
    """
    task = TASKS[name]
    takes = Schema.parse(task.needs if inputs is None else inputs)
    given = {**task.gives}
    given.pop("chunks", None)  # only where timestamps are asked for
    gives = Schema.parse(given if outputs is None else outputs)
    lacking = [field for field in task.needs if field not in takes]
    if lacking:
        raise BadInput(f"[steps.input] lacks '{lacking[0]}', which {name} needs", field=f"steps.input.{lacking[0]}")
    known = {**task.needs, **task.takes}
    for field in takes:
        if field.name not in known and not task.forwards:
            listed = ", ".join(known)
            raise BadInput(
                f"[steps.input] names '{field.name}', {name} takes {listed}", field=f"steps.input.{field.name}"
            )
    _check("output", name, gives, task.gives)
    taken = (Field(each.name, sure(each.type) if each.name in task.takes else each.type) for each in takes)
    _check("input", name, Schema(tuple(field for field in taken if field.name in known)), known)
    return takes, gives


def sure(type_: Type) -> Type:
    """The same type without nulls: a null is an argument that was not given."""
    return replace(type_, nullable=False)


def _check(side: str, name: str, schema: Schema, known: Mapping[str, str]) -> None:
    for field in schema:
        if field.name not in known:
            raise BadInput(
                f"[steps.{side}] names '{field.name}', {name} gives {', '.join(known)}",
                field=f"steps.{side}.{field.name}",
            )
        expected = Schema.parse({field.name: known[field.name]})[field.name].type
        if not (_same_kind(field.type, expected) or str(field.type) == _ALSO.get(field.name)):
            raise BadInput(
                f"[steps.{side}] {field.name} is {field.text}, {name} has {expected}",
                field=f"steps.{side}.{field.name}",
            )


def _same_kind(given: Type, expected: Type) -> bool:
    """Whether two types differ in the lengths of lists alone, or in the width and sign of numbers."""
    if isinstance(given, ListOf) and isinstance(expected, ListOf):
        return not given.nullable and _same_kind(given.item, expected.item)
    if isinstance(given, ListOf) or isinstance(expected, ListOf):
        return False
    return _kind(given) == _kind(expected)


def _kind(type_: Type) -> str:
    return str(type_).rstrip("0123456789").replace("uint", "int")


# What is asked where nobody gave rows; lists get as many items as the type says.
_SENTENCES = ("The line stopped at noon.", "A bearing of press 4 is warm, and it is loud.", "all good")
_LABELS = ("mechanical", "electrical", "software", "other")
_SAID: Mapping[str, tuple[Any, ...]] = {
    "context": ("The line stopped at noon because a bearing of press 4 was warm.",),
    "question": ("Why did the line stop?", "When did it stop?"),
    "hypothesis_template": ("This is about {}.",),
    "function_to_apply": ("softmax",),
    "return_timestamps": ("char",),
    "negative_prompt": ("",),
    "handle_long_generation": ("",),
    "prefix": ("",),
    "src_lang": ("",),
    "tgt_lang": ("",),
    "threshold": (0.0,),
    "mask_threshold": (0.5,),
    "overlap_mask_area_threshold": (0.8,),
    "guidance_scale": (1.0,),
    "eta": (0.0,),
    "height": (64,),
    "width": (64,),
    "num_inference_steps": (2,),
    "num_images_per_prompt": (1,),
    "top_k": (1,),
    "doc_stride": (16,),
    "max_answer_len": (8,),
    "max_seq_len": (64,),
    "max_question_len": (24,),
    "align_to_words": (True,),
    "return_text": (True,),
}
_ROWS, _SIDE, _SAMPLES = 3, 48, 1600


def rows_to_ask(inputs: Schema, outputs: Schema) -> Columns:
    """A few rows that a pipeline of the task can answer."""
    length = next((field.type.size for field in outputs if isinstance(field.type, ListOf) and field.type.size), None)
    columns = {field.name: column_from_values(field, _values(field, length), json=False) for field in inputs}
    return Columns.of(inputs, columns)


def _values(field: Field, length: int | None) -> list[Any]:
    draw = np.random.RandomState(len(field.name))
    if field.name == "top_k" and length:
        return [length] * _ROWS
    if field.name in _SAID:
        said = _SAID[field.name] if str(sure(field.type)) != "string" else tuple(map(str, _SAID[field.name]))
        return [said[row % len(said)] for row in range(_ROWS)]
    return [_value(sure(field.type), row, draw) for row in range(_ROWS)]


def _value(type_: Type, row: int, draw: Any) -> Any:
    if not isinstance(type_, ListOf):
        text = str(type_)
        return _SENTENCES[row % len(_SENTENCES)] if text == "string" else False if text == "bool" else 4
    if str(type_.item) == "string":
        return list(_LABELS[: type_.size or 3]) + [f"label {at}" for at in range(len(_LABELS), type_.size or 0)]
    if not isinstance(type_.item, ListOf):
        return draw.standard_normal(type_.size or _SAMPLES).round(3).tolist()
    sizes: list[int] = []
    inner: Type = type_
    while isinstance(inner, ListOf):
        sizes.append(inner.size or _SIDE)
        inner = inner.item
    return draw.randint(0, 256, sizes).tolist()
