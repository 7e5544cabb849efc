"""What a confined child leaves in its folder is its own: no link of it is followed, and no pipe waited for."""

from __future__ import annotations

import json
import os
import platform
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import BadInput, RuntimeFailed
from packager import conversion
from packager.confined import left, left_folder, run_confined
from packager.conversion import read_result
from packager.convert.jobs import RESULT
from packager.environments import Environment, Kept

pytestmark = pytest.mark.timeout(60)  # a pipe that is waited for never opens

SECRET = "s3cret of somebody else"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A child's own."""
    made = tmp_path / "child"
    made.mkdir()
    return made


def link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def pipe(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def place(path: Path, secret: Path) -> None:
    path.mkdir()


ODD = pytest.mark.parametrize("odd", [link, pipe, place])
Odd = Callable[[Path, Path], None]


@ODD
def test_what_is_no_plain_file_is_not_opened(odd: Odd, folder: Path, secret: Path) -> None:
    odd(folder / "file", secret)
    with pytest.raises(OSError, match="'file'") as refused:
        left(folder, "file", 1 << 20)
    assert str(folder) not in str(refused.value)


def test_a_file_is_opened_up_to_its_size_and_no_larger_one(folder: Path) -> None:
    (folder / "file").write_bytes(b"12345")
    with left(folder, "file", 5) as file:
        assert file.read() == b"12345"
    with pytest.raises(OSError, match="'file' has 5 bytes: expected at most 4"):
        left(folder, "file", 4)
    with pytest.raises(FileNotFoundError):
        left(folder, "another", 4)


def test_a_folder_that_is_a_link_is_not_entered(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder.parent)
    assert left_folder(folder, "real") == folder / "real"
    with pytest.raises(OSError, match="link"):
        left_folder(folder, "link")


def environment(folder: Path, program: str) -> Environment:
    """This interpreter, with one module to be run as a child."""
    found = Environment(folder / "environment", Kept("tried", platform.python_version(), {}, 0, 0.0, "tried"))
    found.site_packages.mkdir(parents=True)
    found.python.parent.mkdir()
    found.python.symlink_to(sys.executable)
    (found.site_packages / "program.py").write_text(textwrap.dedent(program))
    return found


def test_a_childs_last_words_are_those_that_it_printed(folder: Path, secret: Path, tmp_path: Path) -> None:
    """It puts links to what it may not read in the place of every file that lies in its folder."""
    program = """
        import json, os
        def main(text):
            job = json.loads(text)
            print("words of its own", flush=True)
            for name in {*os.listdir(), "printed.txt"}:
                if os.path.lexists(name):
                    os.unlink(name)
                os.symlink(job["secret"], name)
            os._exit(3)
    """
    (tmp_path / "model").write_bytes(b"")
    made = environment(tmp_path, program)
    with pytest.raises(RuntimeFailed) as failed:
        run_confined("program", {"secret": str(secret)}, tmp_path / "model", made, folder, 30.0, "trying")
    assert str(failed.value) == "trying 'model' ended with code 3: …words of its own"


def attempt(folder: Path, strategy: str = "onnx") -> None:
    """A result as a child leaves it, with one row."""
    said = {"strategy": strategy, "input": [("x", "float32")], "output": [("y", "float32")], "methods": {}}
    task = {"name": "text-classification", "takes": {}, "gives": {}}
    (folder / RESULT).write_text(json.dumps({"attempts": [{**said, "task": task}]}))
    np.savez(folder / f"{strategy}.npz", in0=np.ones(1), out0=np.ones(1), again0=np.ones(1))
    (folder / f"{strategy}.onnx").write_bytes(b"a model")
    (folder / "tokenizer.json").write_text("{}")


def test_a_result_is_read_as_it_was_left(folder: Path) -> None:
    attempt(folder)
    (found,) = read_result(folder, Path("model.pt")).attempts
    assert set(found.files) == {"model.onnx", "tokenizer.json"} and list(found.rows["x"]) == [1.0]
    (folder / "onnx.onnx").unlink()
    (found,) = read_result(folder, Path("model.pt")).attempts
    assert (found.reason, found.files) == ("the converter left no model", {})


@ODD
@pytest.mark.parametrize(
    "name, said",
    [
        (RESULT, "left no result that reads"),
        ("onnx.json", "left rows that do not read"),
        ("onnx.npz", "left rows that do not read"),
        ("onnx.onnx", "left no model that reads"),
        ("tokenizer.json", "left no model that reads"),
    ],
)
def test_no_file_of_a_conversion_is_read_through_a_link_or_a_pipe(
    name: str, said: str, odd: Odd, folder: Path, secret: Path
) -> None:
    attempt(folder)
    (folder / name).unlink(missing_ok=True)
    odd(folder / name, secret)
    with pytest.raises(RuntimeFailed, match=f"^converting 'model.pt' {said}") as failed:
        read_result(folder, Path("model.pt"))
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"in": 3}', '{"in": [1]}', "[]", '{"in": [], "out": []}'])
def test_rows_that_are_no_rows_are_one_line(text: str, folder: Path) -> None:
    attempt(folder)
    (folder / "onnx.json").write_text(text)
    with pytest.raises(RuntimeFailed, match="left rows that do not read"):
        read_result(folder, Path("model.pt"))


def test_arrays_that_unpack_to_more_than_any_file_are_not_unpacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(folder)
    np.savez_compressed(folder / "onnx.npz", in0=np.zeros(100_000), out0=np.ones(1), again0=np.ones(1))
    monkeypatch.setattr(conversion, "LARGEST_FILE", 100_000)
    assert (folder / "onnx.npz").stat().st_size < 100_000
    with pytest.raises(RuntimeFailed, match=r"arrays of 8\d\d\d\d\d bytes: expected at most 100000"):
        read_result(folder, Path("model.pt"))


@pytest.mark.parametrize("header", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_what_is_no_archive_of_arrays_is_one_line(header: bytes, folder: Path) -> None:
    attempt(folder)
    (folder / "onnx.npz").write_bytes(header)
    with pytest.raises(RuntimeFailed, match="left rows that do not read"):
        read_result(folder, Path("model.pt"))


def test_an_array_of_a_size_that_no_machine_has_is_one_line(folder: Path) -> None:
    attempt(folder)
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000000,), }"
    with zipfile.ZipFile(folder / "onnx.npz", "w") as archive:
        for name in ("in0", "out0", "again0"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises(RuntimeFailed, match="left rows that do not read"):
        read_result(folder, Path("model.pt"))


def test_a_refusal_reaches_the_user_in_one_line(folder: Path) -> None:
    (folder / RESULT).write_text('{"refused": "it does not\\n load"}')
    with pytest.raises(BadInput, match=r"^model 'model\.pt': it does not load$"):
        read_result(folder, Path("model.pt"))
