"""PyTorch and Keras: every form through the gate, the worker where nothing is proven, and what is refused."""

from __future__ import annotations

import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.detect import detect
from packager.frameworks.networks import check_whole
from packager.inspect import inspect_step
from packager.project import Project
from tests.frameworks.conftest import project

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first of them unpacks and compiles PyTorch

Inspect = Callable[..., ModelArtifact]


@pytest.fixture
def inspected(networks: Path, cache: Path, tmp_path: Path) -> Inspect:
    def inspect(name: str, toml: str = "") -> ModelArtifact:
        opened = Project.open(project(networks / name, tmp_path / name, toml))
        return inspect_step(opened.steps[0], opened.root, Checklist(), cache)

    return inspect


def fields(**types: str) -> str:
    return "[steps.input]\n" + "\n".join(f'{name} = "{type_}"' for name, type_ in types.items())


LEFT_RIGHT = fields(left="list<float32>[4]", right="list<float32>[2]")

# network → its schema, what it takes and what it gives
NATIVE: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "mlp.pt": (fields(input="list<float32>[4]"), {"input": "list<float32>[4]"}, {"output": "list<float32>[2]"}),
    "cnn.pth": (
        fields(image="list<list<list<float32>[8]>[8]>[1]"),
        {"image": "list<list<list<float32>[8]>[8]>[1]"},
        {"output": "list<float32>[10]"},
    ),
    "two.pt": (
        LEFT_RIGHT,
        {"left": "list<float32>[4]", "right": "list<float32>[2]"},
        {"output_1": "list<float32>[3]", "output_2": "list<float32>[3]"},
    ),
    "sequence.pt": (
        fields(steps="list<list<float32>[3]>"),
        {"steps": "list<list<float32>[3]>"},
        {"output": "list<float32>[1]"},
    ),
    "words.pt": (fields(ids="list<int64>"), {"ids": "list<int64>"}, {"output": "list<list<float32>[3]>"}),
    "dense.keras": ("", {"input": "list<float32>[4]"}, {"output": "list<float32>[3]"}),
    "dense.h5": ("", {"input": "list<float32>[4]"}, {"output": "list<float32>[3]"}),
    "picture.keras": ("", {"input": "list<list<list<float32>[1]>[8]>[8]"}, {"output": "list<float32>[10]"}),
    "steps.keras": (
        fields(input="list<list<float32>[3]>[6]"),
        {"input": "list<list<float32>[3]>[6]"},
        {"output": "list<float32>[1]"},
    ),
    "both.keras": (
        "",
        {"input_1": "list<float32>[4]", "input_2": "list<float32>[2]"},
        {"p": "list<float32>[1]", "q": "list<float32>[2]"},
    ),
}


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_a_network_runs_natively_and_answers_like_the_original(name: str, inspected: Inspect) -> None:
    toml, takes, gives = NATIVE[name]
    found = inspected(name, toml)
    assert found.parity is not None and found.spec.runtime == "onnx", found.parity
    assert (found.spec.input, found.spec.output) == (takes, gives)
    assert found.parity["max_rel"] <= 1e-5 and found.parity["rows"] >= 20


def test_the_names_and_types_of_the_schema_are_kept(inspected: Inspect) -> None:
    toml = fields(line="list<float32>[4]") + '\n[steps.output]\nkind = "list<float32>[3]"'
    found = inspected("dense.keras", toml)
    assert (found.spec.input, found.spec.output) == ({"line": "list<float32>[4]"}, {"kind": "list<float32>[3]"})


# network → its schema, and why it is not native
WORKERS = {
    "named.pt": (LEFT_RIGHT, "its answer is a dict"),
    "wide.pt": (fields(x="list<float64>[4]"), "field 'x' is float64"),
    "steps.keras": ("", "answers rows of length 11 differently; give its length in .steps.input."),
    "restless.pt": (fields(x="list<float32>[4]"), "differs from itself"),
    "code.keras": ("", "Lambda layer"),
}


@pytest.mark.parametrize("name", sorted(WORKERS))
def test_what_cannot_be_proven_goes_to_python_with_the_reason(name: str, inspected: Inspect) -> None:
    toml, why = WORKERS[name]
    found = inspected(name, toml)
    assert found.spec.runtime == "python" and re.search(why, found.reason or ""), found.reason


REFUSED: dict[str, tuple[str, str]] = {
    "mlp.pt": ("", r"give \[steps.input\] with input = 'list<float32>"),
    "two.pt": (fields(x="list<float32>[4]"), r"has 1 fields, forward takes 2: x, y"),
    "cnn.pth": (fields(x="list<float32>[3]"), "answers none of the rows made for it"),
    "batch.pt": (fields(x="list<float32>[4]"), r"depends on the rows beside it .row 0 alone is answered otherwise."),
    "listed.pt": (fields(x="list<float32>[3]"), r"its forward takes 'x: List\[Tensor\]'"),
    "pickled.pt": (fields(x="list<float32>[2]"), "pickled module or state_dict .* save it as TorchScript"),
    "weights.pt": (fields(x="list<float32>[2]"), "pickled module or state_dict .* save it as TorchScript"),
    "old.pt": (fields(x="list<float32>[2]"), "is a pickle of PyTorch.* save it as TorchScript"),
    "program.pt2": (fields(x="list<float32>[2]"), "archive of torch.export: save it as TorchScript"),
    "weights.h5": ("", "not its weights alone"),
    "own.keras": ("", "it needs 'Mine', a class of its own .*'custom' .BYOP."),
    "dense.keras": (fields(x="list<float32>[5]"), r"the model takes list<float32>\[4\]"),
    "picture.keras": (
        fields(x="list<list<list<float32>[1]>>"),
        r"x is list<list<list<float32>\[1\]>>, the model takes list<list<list<float32>\[1\]>\[8\]>\[8\]",
    ),
    "both.keras": (fields(x="list<float32>[4]"), "has 1 fields, the model takes 2"),
    "dense.h5": ('[steps.output]\ny = "list<float32>[2]"', r"the model gives list<float32>\[3\]"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_fit_is_refused_in_one_line(name: str, inspected: Inspect) -> None:
    toml, said = REFUSED[name]
    with pytest.raises(BadInput, match=said) as raised:
        inspected(name, toml)
    assert "\n" not in str(raised.value)


def test_the_code_of_a_lambda_runs_in_the_sandbox_alone(inspected: Inspect, networks: Path) -> None:
    """It makes a folder outside of it; where it cannot, Keras does not build the model."""
    with pytest.raises(BadInput, match="it does not say its inputs") as raised:
        inspected("spoiling.keras")
    assert "\n" not in str(raised.value) and not (networks / "mark").exists()


def test_tensor_fields_are_refused_with_the_way_to_name_fields(inspected: Inspect) -> None:
    with pytest.raises(BadInput, match=r"has tensor_fields: framework 'pytorch' names its fields in \[steps.input\]"):
        inspected("mlp.pt", 'tensor_fields = ["x"]\n' + fields(x="list<float32>[4]"))


CUTS, FLIPS = 20, 50


@pytest.mark.parametrize("name", ["mlp.pt", "dense.keras"])
def test_a_damaged_zip_is_refused_unread_or_holds_what_it_held(name: str, networks: Path, tmp_path: Path) -> None:
    """A byte that no checksum covers, as a date, changes nothing of the model."""
    whole, path = (networks / name).read_bytes(), tmp_path / name
    draw, refused = random.Random(name), 0
    for number in range(CUTS + FLIPS):
        at, damaged = draw.randrange(len(whole)), bytearray(whole)
        damaged[at] ^= draw.randrange(1, 256)
        path.write_bytes(whole[:at] if number < CUTS else damaged)
        try:
            assert detect(path) in ("pytorch", "keras")
            check_whole(path)
        except BadInput as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert members(path) == members(networks / name)
    assert refused > CUTS + FLIPS // 2


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("at", [0.35, 0.8])
def test_a_changed_byte_of_hdf5_is_refused_in_one_line_or_makes_another_model(
    at: float, networks: Path, cache: Path, tmp_path: Path
) -> None:
    data = bytearray((networks / "dense.h5").read_bytes())
    data[int(at * len(data))] ^= 0x55
    (tmp_path / "dense.h5").write_bytes(data)
    opened = Project.open(project(tmp_path / "dense.h5", tmp_path / "p"))
    try:
        assert inspect_step(opened.steps[0], opened.root, Checklist(), cache).framework == "keras"
    except BadInput as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["mlp.pt", "dense.keras", "dense.h5"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_cut_file_is_refused_in_one_line(name: str, kept: float, networks: Path, cache: Path, tmp_path: Path) -> None:
    whole = (networks / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    opened = Project.open(project(tmp_path / name, tmp_path / "p", fields(input="list<float32>[4]")))
    with pytest.raises(BadInput) as raised:
        inspect_step(opened.steps[0], opened.root, Checklist(), cache)
    assert "\n" not in str(raised.value)


def test_weights_are_not_read_to_tell_what_a_file_is(networks: Path) -> None:
    found: dict[str, Any] = {name: detect(networks / name) for name in ("mlp.pt", "cnn.pth", "dense.keras", "dense.h5")}
    assert found == {"mlp.pt": "pytorch", "cnn.pth": "pytorch", "dense.keras": "keras", "dense.h5": "keras"}
