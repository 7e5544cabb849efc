"""From a project to a proven bundle, with the real runtime in a real child."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet
import pytest
from onnx import helper

from arch.target import Target, plain_targets
from bundle import media
from bundle.bundle import bundles
from bundle.store import unpack
from edgepack.errors import BadInput
from packager.checks import Checklist
from packager.package import Packaged, package
from packager.project import Project
from runtimes.trial import run_trial
from tests import make
from tests.packager.test_onnx import external

WINE = Path(__file__).parents[2] / "examples/wine-line"
X86 = [Target("x86")]


def packaged(source: Path, cache: Path | None = None) -> Packaged:
    return package(Project.open(source), X86, cache=cache)


def weights(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    return onnx.numpy_helper.to_array(model.graph.initializer[0])


def right(rows: int = 3) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = json.loads(make.golden_rows(make.linear(), rows))
    return made


def test_the_example_is_proven_against_the_original(tmp_path: Path) -> None:
    found = package(Project.open(WINE), plain_targets())
    assert found.spec.steps[0].input == {"inputs": "list<float32>[13]"}
    assert found.spec.steps[0].output == {"predictions": "int64", "probabilities": "list<float32>[3]"}
    assert (found.parity["rows"], found.parity["label_flips"]) == (178, 0)
    assert found.parity["max_rel"] < 1e-6 and "expected answers" in found.parity["reason"]
    assert all(check.passed for check in found.checks) and found.notes == ()
    assert [str(each.target) for each in bundles(found.index)] == ["arm/none", "x86/none"]
    assert run_trial(unpack(bundles(found.index)[1], tmp_path)).passed


def test_the_parity_report_refers_to_each_manifest(tmp_path: Path) -> None:
    found = package(Project.open(WINE), plain_targets())
    for image, referrer in zip(found.index.images, found.referrers, strict=True):
        assert referrer.subject is not None and referrer.subject.digest == image.digest
        with referrer.layers[0].open() as file:
            assert json.load(file) == found.parity


def test_the_same_project_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b" / "deeper"
    for folder in (one, other):
        shutil.copytree(WINE, folder, copy_function=shutil.copy)
    assert packaged(one).index.digest == packaged(other).index.digest


def test_a_bare_model_gets_rows_that_are_kept_and_asked_again(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    first = packaged(path)
    kept = json.loads((tmp_path / "m.golden.json").read_text())
    assert len(kept) == 8 and set(kept[0]) == {"in.tensor", "out.y", "made.for"}
    assert "no expected answers" in first.parity["reason"]
    second = packaged(path)
    assert second.index.digest == first.index.digest
    assert "first run" in second.parity["reason"]
    (tmp_path / "elsewhere").mkdir()
    third = packaged(Path(shutil.copy(path, tmp_path / "elsewhere")))
    assert third.index.digest == first.index.digest


def test_a_model_that_was_trained_anew_is_asked_the_same_questions(tmp_path: Path) -> None:
    path = make.save(make.linear(seed=0), tmp_path / "m.onnx")
    packaged(path)
    before = json.loads((tmp_path / "m.golden.json").read_text())
    make.save(make.linear(seed=1), path)
    assert packaged(path).parity["rows"] == 8
    after = json.loads((tmp_path / "m.golden.json").read_text())
    assert [row["in.tensor"] for row in after] == [row["in.tensor"] for row in before]
    assert [row["out.y"] for row in after] != [row["out.y"] for row in before]


def test_a_model_that_goes_while_it_is_packaged_is_named(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    checklist = Checklist(progress=lambda said: path.unlink(missing_ok=True) if "have types" in said else None)
    with pytest.raises(BadInput, match=r"^'m\.onnx' was there a moment ago, and is gone: package what nobody changes"):
        package(Project.open(path), X86, checklist=checklist)


def test_kept_rows_that_no_longer_fit_say_so(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    packaged(path)
    make.save(make.linear(width=5), path)
    with pytest.raises(BadInput, match=r"golden rows 'm\.golden\.json': .*tensor"):
        packaged(path)


def test_rows_that_cannot_be_kept_in_the_project_are_kept_in_the_cache_folder(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    project = Project.open(path)
    (tmp_path / "m.golden.json").mkdir()  # nobody, not even root, can write a file there
    first = package(project, X86, cache=tmp_path / "cache")
    assert "kept in" in first.notes[0] and len(list((tmp_path / "cache" / "golden").iterdir())) == 1
    assert package(project, X86, cache=tmp_path / "cache").parity["reason"].endswith("kept with the rows")


def test_answers_beyond_the_tolerance_are_refused_with_the_worst_row(tmp_path: Path) -> None:
    rows = right()
    rows[1]["out.y"][0] += 0.5
    with pytest.raises(BadInput, match=r"row 1, field 'y': expected .*, found .*tolerance 1e-05"):
        packaged(make.project(tmp_path / "p", golden=rows))


def test_a_tolerance_that_is_given_holds(tmp_path: Path) -> None:
    rows = right()
    rows[1]["out.y"][0] += 1e-3
    toml = '[[steps]]\nmodel = "model.onnx"\n[golden]\ntolerance = 0.1\n'
    found = packaged(make.project(tmp_path / "p", toml, golden=rows))
    assert 0 < found.parity["max_abs"] < 2e-3 and found.parity["worst_row"] == 1


def test_inputs_alone_are_answered_by_the_model(tmp_path: Path) -> None:
    rows = [{"tensor": row["in.tensor"]} for row in right()]
    found = packaged(make.project(tmp_path / "p", golden=rows))
    golden = bundles(found.index)[0].blobs[media.GOLDEN_FILE]
    with golden.open() as file:
        answered = json.load(file)
    expected = np.array([row["in.tensor"] for row in answered]) @ weights(make.linear())
    assert np.allclose([row["out.y"] for row in answered], expected, atol=1e-5)


def test_a_model_that_differs_from_itself_is_not_comparable(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["x"], ["y"])
    model = make.onnx_model([noise], {"x": ("float32", ["N", 2])}, {"y": ("float32", ["N", 2])})
    with pytest.raises(BadInput, match=r"differs from itself.*not comparable: row"):
        packaged(make.save(model, tmp_path / "m.onnx"))


def test_a_model_that_mixes_rows_is_not_comparable(tmp_path: Path) -> None:
    """Normalizing over the batch answers differently at batch 1 and at batch N."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
    model = make.onnx_model(nodes, {"x": ("float32", ["N", 2])}, {"y": ("float32", ["N", 2])})
    with pytest.raises(BadInput, match="all rows at once and one by one"):
        packaged(make.save(model, tmp_path / "m.onnx"))


def test_a_model_for_single_rows_is_asked_single_rows(tmp_path: Path) -> None:
    """Its answer's first axis is no rows: it fits one row at a time, on a device too."""
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    model = make.onnx_model(nodes, {"x": ("float32", ["N", 2])}, {"y": ("float32", ["M", 2])})
    toml = '[[steps]]\nmodel = "model.onnx"\nbatch = "single"\n[steps.output]\ny = "list<list<float32>[2]>"\n'
    found = packaged(make.project(tmp_path / "p", toml, model))
    assert found.spec.steps[0].output == {"y": "list<list<float32>[2]>"}
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed
    several = packaged(make.project(tmp_path / "q", toml.replace("single", "any"), model))
    assert several.parity["rows"] == found.parity["rows"], "the runtime asks such a model row by row"


def test_integers_that_are_too_large_for_a_table_are_made_smaller(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    table = np.arange(2, dtype=np.float32)
    model = make.onnx_model(nodes, {"x": ("int64", ["N"])}, {"y": ("float32", ["N"])}, {"table": table})
    assert packaged(make.save(model, tmp_path / "m.onnx")).parity["rows"] == 8


def test_a_model_that_answers_no_made_row_asks_for_golden_rows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = {"shape": np.array([-1, 7], dtype=np.int64)}
    model = make.onnx_model(nodes, {"x": ("float32", ["N", 3])}, {"y": ("float32", ["N", 7])}, shape)
    with pytest.raises(BadInput, match=r"answers none of the rows made for it: .*; give \[golden\] rows"):
        packaged(make.save(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize("kind", ["string", "bool", "float16", "bfloat16", "float64", "int32", "uint8"])
def test_every_element_type_travels(kind: str, tmp_path: Path) -> None:
    found = packaged(make.save(make.identity(kind, ["N", 2]), tmp_path / "m.onnx"))
    assert (found.parity["label_flips"], found.parity["max_abs"]) == (0, 0)
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed


@pytest.mark.parametrize("shape", [["N", "T"], ["N", "T", 2], [5], [5, 2], [1, 4], [], ["N"]])
def test_every_way_of_rows_travels(shape: list[Any], tmp_path: Path) -> None:
    found = packaged(make.save(make.identity("float32", shape), tmp_path / "m.onnx"))
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed


def test_weights_beside_the_model_become_files_of_the_bundle(tmp_path: Path) -> None:
    path = external(tmp_path / "p", "w/m.bin")
    (tmp_path / "p" / "w").mkdir()
    (tmp_path / "p" / "w" / "m.bin").write_bytes(weights(make.linear()).tobytes())
    found = packaged(path)
    assert set(bundles(found.index)[0].blobs) == {"models/m/m.onnx", "models/m/w/m.bin", "golden.json"}


TWO = '[pipeline]\nname = "two"\n[[steps]]\nname = "first"\nmodel = "model.onnx"\n[[steps]]\nmodel = "second.onnx"\n'


def _second(folder: Path, name: str, width: int) -> Path:
    nodes = [helper.make_node("Neg", [name], ["z"])]
    model = make.onnx_model(nodes, {name: ("float32", ["N", width])}, {"z": ("float32", ["N", width])})
    return make.save(model, folder / "second.onnx")


def test_steps_run_one_after_another(tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", TWO)
    _second(folder, "y", 1)
    found = packaged(folder)
    assert [step.name for step in found.spec.steps] == ["first", "second"]
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "b")).passed


@pytest.mark.parametrize("name, width", [("other", 1), ("y", 2)])
def test_steps_that_do_not_fit_are_refused_with_both_sides(name: str, width: int, tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p", TWO)
    _second(folder, name, width)
    expected = rf"step 1 'first' gives 'y' list<float32>\[1\], step 2 'second' takes '{name}' list<float32>\[{width}\]"
    with pytest.raises(BadInput, match=expected):
        packaged(folder)


def test_all_of_the_independent_faults_are_listed(tmp_path: Path) -> None:
    toml = '[[steps]]\nmodel = "model.onnx"\n[validations]\na = "out.y[7] > 1"\nb = "out.y[0] > 1"\nc = "nonsense"\n'
    checklist = Checklist()
    with pytest.raises(BadInput, match="validation 'a'"):
        package(Project.open(make.project(tmp_path / "p", toml)), X86, checklist=checklist)
    failed = [check for check in checklist.checks if not check.passed]
    assert [check.key for check in failed] == ["pipeline.validations", "pipeline.validations"]
    assert all(check.fix for check in failed)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize("prefix", ["in.", ""])
def test_golden_rows_may_be_arrow_or_parquet(suffix: str, prefix: str, tmp_path: Path) -> None:
    rows = right()
    table = pa.table(
        {
            f"{prefix}tensor": pa.array([row["in.tensor"] for row in rows], pa.list_(pa.float32(), 3)),
            "out.y": pa.array([row["out.y"] for row in rows], pa.list_(pa.float32(), 1)),
        }
    )
    folder = make.project(tmp_path / "p", f'[[steps]]\nmodel = "model.onnx"\n[golden]\nrows = "rows{suffix}"\n')
    if suffix == ".parquet":
        pa.parquet.write_table(table, folder / "rows.parquet")
    else:
        with pa.ipc.new_file(folder / "rows.arrow", table.schema) as file:
            file.write_table(table)
    assert "expected answers" in packaged(folder).parity["reason"]


@pytest.mark.parametrize(
    "text, named",
    [
        ("[]", "pandas-records"),
        ("[{}]", "'tensor'"),
        ('[{"tensor": [1, 2]}]', "'tensor'"),
        ('[{"tensor": [1, 2, 3], "out.z": 1}]', "'z'"),
        ("nonsense", "not JSON"),
        ('[{"tensor": [1, 2, 3], "made.for": "a"}, {"tensor": [1, 2, 3]}]', "made.for"),
    ],
)
def test_golden_rows_that_do_not_fit_name_the_file(text: str, named: str, tmp_path: Path) -> None:
    folder = make.project(tmp_path / "p")
    (folder / "golden.json").write_text(text)
    with pytest.raises(BadInput, match=r"golden rows 'golden\.json': ") as refused:
        packaged(folder)
    assert named in str(refused.value)


def test_a_model_that_no_runtime_loads_is_refused_and_not_loaded_here(tmp_path: Path) -> None:
    model = make.onnx_model([helper.make_node("NoSuchOp", ["x"], ["y"], domain="my.ops")], {"x": ("float32", ["N", 2])},
                            {"y": ("float32", ["N", 2])}, opsets={"my.ops": 1})  # fmt: skip
    with pytest.raises(BadInput, match="NoSuchOp"):
        packaged(make.save(model, tmp_path / "m.onnx"))


def test_nothing_is_left_in_the_project_but_the_rows(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    packaged(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.golden.json", "m.onnx"]


def test_the_size_of_made_rows_is_bounded(tmp_path: Path) -> None:
    """An input too large to be made up is not made up."""
    model = make.identity("float32", ["N", 3000, 3000])
    with pytest.raises(BadInput, match=r"too large; give \[golden\] rows"):
        packaged(make.save(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    "nodes, takes, gives, fields",
    [
        (
            [helper.make_node("Reshape", ["x", "flat"], ["y"])],
            ("N", 4),
            ("M",),
            ({"x": "list<list<float32>[4]>"}, {"y": "list<float32>"}),
        ),
        (
            [helper.make_node("Transpose", ["x"], ["y"])],
            ("A", "B"),
            ("B", "A"),
            ({"x": "list<list<float32>>"}, {"y": "list<list<float32>>"}),
        ),
    ],
    ids=["flat", "transposed"],
)
def test_a_model_whose_answers_are_not_rows_is_packaged_with_whole_tensors_for_rows(
    nodes: Any, takes: Any, gives: Any, fields: Any, tmp_path: Path
) -> None:
    weights = {"flat": np.array([-1], np.int64)}
    model = make.onnx_model(nodes, {"x": ("float32", takes)}, {"y": ("float32", gives)}, weights)
    path, notices = make.save(model, tmp_path / "odd.onnx"), list[str]()
    checklist = Checklist(notice=notices.append)
    found = package(Project.open(path), X86, checklist=checklist, cache=tmp_path / "cache")
    assert (found.spec.steps[0].input, found.spec.steps[0].output) == fields
    assert any("each of its tensors is one row" in each for each in notices)
    assert run_trial(unpack(bundles(found.index)[0], tmp_path / "bundle")).passed
    again = package(Project.open(path), X86, cache=tmp_path / "cache")  # from the rows that were kept
    assert again.index.digest == found.index.digest


def test_exporters_that_name_the_rows_differently_on_both_sides_still_give_rows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = make.onnx_model(nodes, {"x": ("float32", ("unk__6", 4))}, {"y": ("float32", ("unk__7", 4))})
    found = packaged(make.save(model, tmp_path / "tf.onnx"), tmp_path / "cache")
    assert found.spec.steps[0].input == {"x": "list<float32>[4]"}
