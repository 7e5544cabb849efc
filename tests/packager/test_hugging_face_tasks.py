"""The fields of Hugging Face's tasks, and the rows that are asked where nobody gave any."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from columns.types import ListOf, Type
from columns.values import column_from_values
from edgepack.errors import BadInput
from packager.frameworks.hugging_face_native import NATIVE
from packager.frameworks.hugging_face_rows import rows_to_prove
from packager.frameworks.hugging_face_tasks import TASKS, fields_of, rows_to_ask

FORWARDING = {
    *("image-to-text", "summarization", "text-classification", "sentiment-analysis", "translation", "text-generation")
}


def full(name: str) -> Mapping[str, str]:
    """Every field that a task takes."""
    return {**TASKS[name].needs, **TASKS[name].takes}


@pytest.mark.parametrize("name", TASKS)
def test_without_a_schema_a_task_takes_what_it_needs_and_gives_what_it_gives(name: str) -> None:
    takes, gives = fields_of(name, None, None)
    assert takes.to_dict() == TASKS[name].needs
    assert gives.to_dict() == {field: type_ for field, type_ in TASKS[name].gives.items() if field != "chunks"}


@pytest.mark.parametrize("name", TASKS)
def test_every_field_that_a_task_knows_may_be_declared_in_any_order(name: str) -> None:
    inputs, outputs = dict(reversed(full(name).items())), dict(reversed(TASKS[name].gives.items()))
    takes, gives = fields_of(name, inputs, outputs)
    assert (list(takes.names), list(gives.names)) == (list(inputs), list(outputs))
    assert (takes.to_dict(), gives.to_dict()) == (inputs, outputs)


@pytest.mark.parametrize("name", TASKS)
def test_a_field_that_a_task_needs_must_be_declared(name: str) -> None:
    first = next(iter(TASKS[name].needs))
    with pytest.raises(BadInput, match=rf"^\[steps.input\] lacks '{first}', which {name} needs$") as refused:
        fields_of(name, {"other": "string"}, None)
    assert refused.value.field == f"steps.input.{first}"


@pytest.mark.parametrize("name", TASKS)
def test_another_field_goes_to_the_models_that_generate_and_is_refused_elsewhere(name: str) -> None:
    more = {**TASKS[name].needs, "num_beams": "int64"}
    if name in FORWARDING:
        assert fields_of(name, more, None)[0].names == tuple(more)
        return
    with pytest.raises(BadInput, match=rf"^\[steps.input\] names 'num_beams', {name} takes ") as refused:
        fields_of(name, more, None)
    assert refused.value.field == "steps.input.num_beams"


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_that_a_task_does_not_give_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^\[steps.output\] names 'mood', {name} gives ") as refused:
        fields_of(name, None, {"mood": "string"})
    assert refused.value.field == "steps.output.mood"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_field_of_another_kind_is_refused(name: str, side: str) -> None:
    known = TASKS[name].needs if side == "input" else TASKS[name].gives
    for field in known:
        wrong = {**known, field: "list<bool>"}
        with pytest.raises(BadInput, match=rf"^\[steps.{side}\] {field} is list<bool>, {name} has ") as refused:
            fields_of(name, *((wrong, None) if side == "input" else (None, wrong)))
        assert refused.value.field == f"steps.{side}.{field}"


def test_lengths_of_lists_and_widths_of_numbers_are_free() -> None:
    inputs = {"inputs": "list<list<list<int16>[3]>[224]>[224]", "top_k": "int32"}
    takes, gives = fields_of("image-classification", inputs, {"label": "list<string>[2]", "score": "list<float32>[2]"})
    assert takes.to_dict() == inputs
    assert gives.to_dict() == {"label": "list<string>[2]", "score": "list<float32>[2]"}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("is_full", [False, True])
def test_rows_to_ask_have_every_field_and_are_the_same_each_time(name: str, is_full: bool) -> None:
    takes, gives = fields_of(name, full(name) if is_full else None, None)
    rows, again = rows_to_ask(takes, gives), rows_to_ask(takes, gives)
    assert rows.schema == takes and rows.rows == 3
    for field in takes:
        values = rows[field.name].tolist()
        assert values == again[field.name].tolist()
        assert None not in values
        for value in values:
            check_shape(value, field.type)


def check_shape(value: object, type_: Type) -> None:
    """A list has the length that the type says, in every depth, and no list is empty."""
    if not isinstance(type_, ListOf):
        assert not isinstance(value, list)
        return
    items = list(value)  # type: ignore[call-overload]
    assert items and type_.size in (None, len(items))
    for item in items[:2]:
        check_shape(item, type_.item)


def test_rows_have_the_lengths_of_the_schema() -> None:
    inputs = {"images": "list<list<list<int64>[3]>[32]>[24]", "candidate_labels": "list<string>[6]"}
    rows = rows_to_ask(*fields_of("zero-shot-object-detection", inputs, None))
    assert rows["images"].shape == (3, 24, 32, 3)
    assert [len(set(labels)) for labels in rows["candidate_labels"].tolist()] == [6, 6, 6], "each is another word"


def test_as_many_answers_are_asked_for_as_the_schema_gives_room_to() -> None:
    inputs, outputs = {"inputs": "string", "top_k": "int64"}, {"label": "list<string>[5]", "score": "list<float64>[5]"}
    assert rows_to_ask(*fields_of("text-classification", inputs, outputs))["top_k"].tolist() == [5, 5, 5]
    assert rows_to_ask(*fields_of("text-classification", inputs, None))["top_k"].tolist() == [1, 1, 1]


def test_pictures_are_pictures() -> None:
    rows = rows_to_ask(*fields_of("image-to-text", None, None))
    assert rows["inputs"].min() >= 0 and 200 < rows["inputs"].max() <= 255


# Schemas in use, of which each field is a type that the task must take: as they are written for another platform.
PIXELS = "list<list<list<int64>[3]>[100]>[100]"
IN_USE: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "feature-extraction": ({"inputs": "string"}, {"output": "list<list<float64>[128]>"}),
    "image-classification": (
        {"inputs": PIXELS, "top_k": "int64"},
        {"score": "list<float64>[2]", "label": "list<string>[2]"},
    ),
    "image-segmentation": (
        {"inputs": PIXELS, **dict.fromkeys(("threshold", "mask_threshold", "overlap_mask_area_threshold"), "float64")},
        {"score": "list<float64>", "label": "list<string>", "mask": "list<list<list<int64>[100]>[100]>"},
    ),
    "image-to-text": ({"inputs": PIXELS, "max_new_tokens": "int64"}, {"generated_text": "list<string>"}),
    "object-detection": (
        {"inputs": PIXELS, "threshold": "float64"},
        {"score": "list<float64>", "label": "list<string>", "box": "list<list<int64>[4]>"},
    ),
    "question-answering": (
        {
            **dict.fromkeys(("question", "context"), "string"),
            **dict.fromkeys(("top_k", "doc_stride", "max_answer_len", "max_seq_len", "max_question_len"), "int64"),
            **dict.fromkeys(("handle_impossible_answer", "align_to_words"), "bool"),
        },
        {"score": "float64", "start": "int64", "end": "int64", "answer": "string"},
    ),
    "stable-diffusion-text-2-img": (
        {
            **dict.fromkeys(("prompt", "negative_prompt", "num_images_per_prompt"), "string"),
            **dict.fromkeys(("height", "width", "num_inference_steps"), "int64"),
            **dict.fromkeys(("guidance_scale", "eta"), "float64"),
        },
        {"images": "list<list<list<int64>[3]>[128]>[128]"},
    ),
    "summarization": (
        {
            "inputs": "string",
            **dict.fromkeys(("return_text", "return_tensors", "clean_up_tokenization_spaces"), "bool"),
            "extra_field": "int64",
        },
        {"summary_text": "string"},
    ),
    "text-classification": (
        {"inputs": "string", "top_k": "int64", "function_to_apply": "string"},
        {"label": "list<string>[2]", "score": "list<float64>[2]"},
    ),
    "translation": (
        {
            **dict.fromkeys(("inputs", "src_lang", "tgt_lang"), "string"),
            **dict.fromkeys(("return_tensors", "return_text", "clean_up_tokenization_spaces"), "bool"),
        },
        {"translation_text": "string"},
    ),
    "zero-shot-classification": (
        {
            "inputs": "string",
            "candidate_labels": "list<string>[2]",
            "hypothesis_template": "string",
            "multi_label": "bool",
        },
        {"sequence": "string", "scores": "list<float64>[2]", "labels": "list<string>[2]"},
    ),
    "zero-shot-image-classification": (
        {"inputs": PIXELS, "candidate_labels": "list<string>[2]", "hypothesis_template": "string"},
        {"score": "list<float64>[2]", "label": "list<string>[2]"},
    ),
    "zero-shot-object-detection": (
        {
            "images": "list<list<list<int64>[3]>[640]>[480]",
            "candidate_labels": "list<string>[3]",
            "threshold": "float64",
        },
        {"score": "list<float64>", "label": "list<string>", "box": "list<list<int64>[4]>"},
    ),
    "text-generation": (
        {
            **dict.fromkeys(("inputs", "prefix", "handle_long_generation"), "string"),
            **dict.fromkeys(("return_tensors", "return_text", "return_full_text"), "bool"),
        },
        {"generated_text": "list<string>[1]"},
    ),
    "automatic-speech-recognition": (
        {"inputs": "list<float32>", "return_timestamps": "string"},
        {"text": "string", "chunks": "list<struct<text: string, timestamp: list<float32>>>"},
    ),
}


@pytest.mark.parametrize("name", IN_USE)
@pytest.mark.parametrize("mark", ["", "?"])
def test_schemas_in_use_are_taken_and_what_is_optional_may_be_null(name: str, mark: str) -> None:
    inputs, outputs = IN_USE[name]
    asked = {field: text if field in TASKS[name].needs else text + mark for field, text in inputs.items()}
    takes, gives = fields_of(name, asked, outputs)
    assert (takes.to_dict(), gives.to_dict()) == (asked, dict(outputs))
    rows = rows_to_ask(takes, gives)
    assert rows.rows == 3 and rows.schema == takes


@pytest.mark.parametrize(
    "name", [name for name in TASKS if TASKS[name].needs.get("inputs", "").startswith("list<list")]
)
def test_pictures_may_be_bytes(name: str) -> None:
    takes, gives = fields_of(name, {**TASKS[name].needs, "inputs": "list<list<list<uint8>[3]>[40]>[30]"}, None)
    rows = rows_to_ask(takes, gives)
    assert rows["inputs"].dtype == np.uint8 and rows["inputs"].shape == (3, 30, 40, 3)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_needs_and_gives_is_never_null(name: str) -> None:
    for side, known in (("input", TASKS[name].needs), ("output", TASKS[name].gives)):
        for field in known:
            wrong = {**known, field: known[field] + "?"}
            with pytest.raises(BadInput, match=rf"^\[steps.{side}\] {field} is .*\?, {name} has "):
                fields_of(name, *((wrong, None) if side == "input" else (None, wrong)))


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_rows_that_prove_a_native_task_have_every_argument_and_are_the_same_each_time(name: str) -> None:
    asked = {**TASKS[name].needs, **{field: f"{TASKS[name].takes[field]}?" for field in NATIVE[name]}}
    takes, gives = fields_of(name, asked, None)
    rows, again = rows_to_prove(name, takes, gives), rows_to_prove(name, takes, gives)
    assert rows == again and len(rows) >= 9 and all(row.keys() == set(takes.names) for row in rows)
    for field in takes:
        column_from_values(field, [row[field.name] for row in rows], json=False)
    for field in NATIVE[name]:
        assert len({row[field] for row in rows}) > 2 and any(row[field] is None for row in rows)


def test_rows_that_prove_a_task_fit_its_schema() -> None:
    inputs = {"inputs": "list<list<list<uint8>[3]>[20]>[10]", "top_k": "int64"}
    schemas = fields_of("image-classification", inputs, {"label": "list<string>[2]", "score": "list<float32>[2]"})
    rows = rows_to_prove("image-classification", *schemas)
    assert {(len(row["inputs"]), len(row["inputs"][0]), row["top_k"]) for row in rows} == {(10, 20, 2)}
