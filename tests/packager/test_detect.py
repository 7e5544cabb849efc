"""What a file is, told by its content."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import BadInput
from packager.detect import detect
from packager.frameworks import hugging_face
from tests import make, tflite_models
from tests.packager.test_custom import CODE
from tests.packager.test_python_step import GOOD


def _zip() -> bytes:
    made = io.BytesIO()
    zipfile.ZipFile(made, "w").writestr("config.json", "{}")
    return made.getvalue()


class Harm:
    """Unpickling this would be seen."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    "data, named",
    [
        (pickle.dumps(Harm()), "names 'builtins.exec': not loaded"),
        (_zip(), "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file without a Keras model"),
        (b'{"layers": {}}', "is a JSON file"),
        (b"not a model", "this version packages onnx"),
    ],
)
def test_what_is_no_onnx_is_called_what_it_is(data: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"'model\.onnx'") as refused:
        detect(path)
    assert named in str(refused.value)


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    assert detect(make.save(make.linear(), tmp_path / "model.pickle")) == "onnx"


def test_a_framework_that_is_given_must_be_one_of_ours(tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    assert detect(path, "onnx") == "onnx"
    with pytest.raises(BadInput, match=r"'m\.onnx' is not a saved model of sklearn"):
        detect(path, "sklearn")
    with pytest.raises(BadInput, match="framework 'prophet' is not in this version"):
        detect(path, "prophet")


def test_a_model_of_one_framework_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"tree\nversion=v4\n")
    assert detect(path) == "lightgbm"
    with pytest.raises(BadInput, match="is a model of lightgbm, not of 'xgboost': remove framework"):
        detect(path, "xgboost")


RIDGE = b"\x80\x04\x8c\x1bsklearn.linear_model._ridge\x8c\x05Ridge\x93)\x81}\x8c\x05alphaK\x01sb."
SKOPS = (
    b'{"__module__": "sklearn.linear_model._ridge", "__class__": "Ridge", "__loader__": "ObjectNode", "content": {}}'
)


def members(**files: bytes | str) -> bytes:
    """A zip of files; two underscores stand for a slash, one at the end for the dot of `.py`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_py", ".py").replace("_json", ".json"), data)
    return made.getvalue()


def archive(*names: str) -> bytes:
    """A zip of files by these names; what is in them is of no account."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        for name in names:
            zipped.writestr(name, b"\x80\x02}.")
    return made.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(1000)

FORMS: dict[str, tuple[str, bytes]] = {
    "pickle": ("sklearn", RIDGE),
    "pickle, packed with zlib": ("sklearn", zlib.compress(RIDGE)),
    "pickle, packed with gzip": ("sklearn", gzip.compress(RIDGE)),
    "skops": ("sklearn", members(schema_json=SKOPS)),
    "XGBoost's JSON": ("xgboost", b'{"learner":{"attributes":{}}}'),
    "XGBoost's UBJSON": ("xgboost", b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{"),
    "LightGBM's text": ("lightgbm", b"tree\nversion=v4\nnum_class=1\n"),
    "ONNX": ("onnx", make.linear().SerializeToString()),
    "Python step": ("python", members(step_py=GOOD)),
    "Python step in one top folder": ("python", members(top__step_py=GOOD)),
    "BYOP": ("custom", members(custom_py=CODE)),
    "BYOP in one top folder": ("custom", members(top__custom_py=CODE)),
    "TFLite": ("tflite", tflite_models.two_ways()),
    "TorchScript": ("pytorch", archive("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/data/0")),
    "Keras 3": ("keras", archive("metadata.json", "config.json", "model.weights.h5")),
    "Keras in HDF5": ("keras", HDF5 + b"model_config\0{}"),
    "SavedModel": ("tensorflow", archive("saved_model.pb", "variables/variables.index")),
    "SavedModel in one top folder": ("tensorflow", archive("net/saved_model.pb", "net/variables/variables.index")),
}
ENDINGS = ("", ".onnx", ".pkl", ".joblib", ".skops", ".json", ".ubj", ".txt", ".zip", ".h5", ".py", ".tar.gz")


@pytest.mark.parametrize("form", FORMS)
def test_content_decides_whatever_a_file_is_called(form: str, tmp_path: Path) -> None:
    framework, data = FORMS[form]
    for ending in ENDINGS:
        path = tmp_path / f"model{ending}"
        path.write_bytes(data)
        assert detect(path) == framework == detect(path, framework), ending
        wrong = "sklearn" if framework != "sklearn" else "xgboost"
        with pytest.raises(BadInput, match=r"'model") as refused:
            detect(path, wrong)
        assert refused.value.field == "framework"


def test_a_zip_that_could_be_two_things_lists_them_and_takes_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "both.zip"
    path.write_bytes(members(step_py=GOOD, custom_py=CODE))
    with pytest.raises(BadInput, match='framework = "python" or "custom"'):
        detect(path)
    assert (detect(path, "python"), detect(path, "custom")) == ("python", "custom")


SAVE_AS = r"save it as TorchScript: torch\.jit\.script"
ANEW: dict[str, tuple[bytes, str]] = {
    "a pickled module": (
        archive("net/data.pkl", "net/version", "net/data/0"),
        f"pickled module or state_dict.*{SAVE_AS}",
    ),
    "a program of torch.export": (archive("p/archive_format", "p/models/model.json"), f"of torch.export: {SAVE_AS}"),
    "a pickle of PyTorch 1.5": (
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02",
        f"is a pickle of PyTorch.*{SAVE_AS}",
    ),
    "weights in HDF5": (HDF5 + b"layer_names", r"save the whole model with model\.save\('model\.keras'\)"),
}


@pytest.mark.parametrize("form", ANEW)
@pytest.mark.parametrize("said", [None, "pytorch"])
def test_a_network_that_must_be_saved_anew_is_refused_with_how(form: str, said: str | None, tmp_path: Path) -> None:
    data, how = ANEW[form]
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=rf"^'net\.pt' .*{how}"):
        detect(path, said)


@pytest.mark.parametrize("framework", ["pytorch", "keras", "tensorflow"])
def test_a_framework_that_is_said_needs_its_own_files(framework: str, tmp_path: Path) -> None:
    path = make.save(make.linear(), tmp_path / "m.onnx")
    with pytest.raises(
        BadInput, match=rf"'m\.onnx' is not a saved model of {framework}: expected .*(Torch|keras|Saved)"
    ):
        detect(path, framework)


def test_a_saved_model_is_tensorflows_as_a_folder_too_and_keras_may_have_written_it(tmp_path: Path) -> None:
    (tmp_path / "net/variables").mkdir(parents=True)
    (tmp_path / "net/saved_model.pb").write_bytes(b"\x08\x01")
    assert {detect(tmp_path / "net", said) for said in (None, "tensorflow", "keras")} == {"tensorflow"}
    with pytest.raises(BadInput, match="is a model of tensorflow, not of 'pytorch'"):
        detect(tmp_path / "net", "pytorch")


PIPELINE = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.mark.parametrize("names", [PIPELINE, tuple(f"top/{name}" for name in PIPELINE), PIPELINE[:2]])
def test_a_hugging_face_pipeline_does_not_say_its_task_so_the_project_must(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.zip"
    path.write_bytes(archive(*names))
    with pytest.raises(BadInput, match="which does not say its task: give framework as one of") as refused:
        detect(path)
    listed = str(refused.value).rpartition("one of ")[2].split(", ")
    assert listed == list(hugging_face.FRAMEWORKS) and len(set(listed)) == 16
    assert [detect(path, name) for name in listed] == listed
    with pytest.raises(BadInput, match="not a model of 'onnx': give framework as one of hugging-face-"):
        detect(path, "onnx")
    with pytest.raises(BadInput, match="framework 'hugging-face-poetry' is not in this version"):
        detect(path, "hugging-face-poetry")


def test_a_folder_of_a_pipeline_is_one_like_its_zip(tmp_path: Path) -> None:
    for name in PIPELINE:
        (tmp_path / name).write_text("{}")
    assert detect(tmp_path, "hugging-face-summarization") == "hugging-face-summarization"


@given(names=st.lists(st.text("abc/.", min_size=1, max_size=8), max_size=6), cut=st.integers(0, 400))
def test_no_zip_makes_detection_fall_over(tmp_path_factory: pytest.TempPathFactory, names: list[str], cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "net.pt"
    path.write_bytes(archive("net/code/a.py", "net/constants.pkl", *dict.fromkeys(names))[: -cut or None])
    with contextlib.suppress(BadInput):  # one without a directory, or with names that lead out
        assert detect(path) in {"pytorch", "onnx"}


@given(data=st.binary(max_size=120), ending=st.sampled_from(ENDINGS))
def test_no_bytes_are_taken_for_a_model_of_trees_or_make_detection_fall_over(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"junk{ending}"
    path.write_bytes(b"\x00" + data)
    try:
        assert detect(path) == "onnx"  # protobuf: almost any bytes are a message
    except BadInput as error:
        assert f"'junk{ending}'" in str(error) and "\n" not in str(error)
