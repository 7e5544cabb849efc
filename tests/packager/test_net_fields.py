"""Fields of a network as its inputs and outputs: by name where the schema has the model's own names, else by place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from packager.convert.fields import Unsuited
from packager.convert.nets.tensors import Outputs, TensorField, answered_fields, names_of, placed

A, B = (np.full((3, 2), value, np.float32) for value in (1, 2))


def fields(*names: str) -> list[TensorField]:
    return [TensorField(name, "float32", (2,)) for name in names]


def answered(own: Outputs, *declared: str) -> list[str]:
    found = answered_fields(fields(*declared) or None, own, [B, A], [B[:1], A[:1]], 3)
    return [each.name for each in found]


@pytest.mark.parametrize(
    "declared, namings, order",
    [
        (["a", "b"], [["b", "a"]], ["b", "a"]),  # the model's own, in another order
        (["left", "right"], [["b", "a"]], ["left", "right"]),  # of the user's: they stand in the model's order
        (["input_2", "input_1"], [["b", "a"], ["input_1", "input_2"]], ["input_1", "input_2"]),
        (["input_1", "input_2"], [["input_2", "input_1"], ["input_1", "input_2"]], ["input_2", "input_1"]),  # own first
        (["y", "x"], [["x", "y", "z"]], ["x", "y"]),  # an argument with a default is left out
        (["x"], [["anything"]], ["x"]),
        (["y", "x"], [[], ["lstm", "lstm"]], ["y", "x"]),  # names that are not each its own
        (["a", "b"], [["b"]], ["a", "b"]),
    ],
)
def test_fields_stand_in_the_models_order(declared: list[str], namings: list[list[str]], order: list[str]) -> None:
    assert [each.name for each in placed("input", fields(*declared), *namings)] == order


@pytest.mark.parametrize(
    "declared, namings, said",
    [
        (["b", "mine"], [["a", "b"]], "names the input 'b' in another's place: name all of a, b"),
        (["x", "z"], [["x", "y", "z"]], "names the input 'z' in another's place: name all of x, y, z"),
        (
            ["input_2", "mine"],
            [["a", "b"], ["input_1", "input_2"]],
            "'input_2' in another's place: name all of input_1",
        ),
    ],
)
def test_a_name_in_another_s_place_is_refused(declared: list[str], namings: Any, said: str) -> None:
    with pytest.raises(Unsuited, match=rf"^\[steps.input\] .*{said}"):
        placed("input", fields(*declared), *namings)


def test_where_nobody_gave_names_they_are_those_of_a_model_that_has_them() -> None:
    assert names_of("input", 1) == ["input"] and names_of("input", 2, ["b", "a"]) == ["input_1", "input_2"]
    turned = [f"input_{number}" for number in range(12, 0, -1)]
    assert names_of("input", 12, turned) == turned


def test_outputs_go_by_their_keys_or_names_too() -> None:
    assert answered(Outputs()) == answered(Outputs(names=["b", "a"])) == ["output_1", "output_2"]
    assert answered(Outputs(["b", "a"])) == ["b", "a"]
    for own in (Outputs(["b", "a"]), Outputs(names=["b", "a"])):
        assert answered(own, "a", "b") == ["b", "a"] and answered(own, "left", "right") == ["left", "right"]
    with pytest.raises(Unsuited, match=r"^\[steps.output\] names the output 'a' in another's place: name all of b, a$"):
        answered(Outputs(["b", "a"]), "a", "mine")


def test_types_are_held_against_the_output_of_the_name() -> None:
    wide = [TensorField("a", "float32", (2,)), TensorField("b", "float32", (3,))]
    with pytest.raises(
        Unsuited, match=r"^\[steps.output\] b is list<float32>\[3\], the model gives list<float32>\[2\]$"
    ):
        answered_fields(wide, Outputs(["b", "a"]), [B, A], [B[:1], A[:1]], 3)
