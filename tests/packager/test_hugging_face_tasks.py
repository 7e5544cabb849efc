"""The fields of Hugging Face's tasks, and the rows that are asked where nobody gave any."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from columns.types import ListOf, Type
from edgepack.errors import BadInput
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
