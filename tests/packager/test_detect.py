"""What a file is, told by its content."""

from __future__ import annotations

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
from tests import make
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
