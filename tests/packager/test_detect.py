"""What a file is, told by its content."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.detect import detect
from tests import make


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
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is a HDF5 file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "is a TensorFlow Lite model"),
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
