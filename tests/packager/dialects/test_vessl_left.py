"""What a program leaves beside the model that it registers: no link leads out of its folder, no pipe is waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.errors import BadInput, EdgepackError
from packager.dialects.vessl_program import VesslProject, write_vessl_project
from packager.environments import Environment, Kept
from runtimes.shim.vessl.registration import INSTANCE, RECORD, RUNNER

pytestmark = pytest.mark.timeout(60)  # a pipe that is waited for never opens

PROGRAM = "import vessl\nvessl.register_model('tried', 1, None, 5)\n"
Leave = Callable[[Path], object]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder that the program may not see."""
    made = tmp_path / "host"
    made.mkdir()
    (made / "secret").write_text("s3cret")
    return made


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Leave], VesslProject]:
    """Writes the project of a program that registers a model, then leaves what it likes in its folder."""

    def write(leave: Leave) -> VesslProject:
        def run(
            module: str, job: object, artefact: Path, environment: Environment, folder: Path, *_: object, **__: object
        ) -> None:
            model = folder / "model"
            model.mkdir()
            said = {"repository": "tried", "number": 1, "runner": "R", "loads": False, "props": None, "artifacts": {}}
            (model / RECORD).write_text(json.dumps({**said, "requirements": [], "python": "3.11"}))
            for name in (RUNNER, INSTANCE):
                (model / name).write_bytes(b"pickled")
            (folder / "result.json").write_text('{"refused": null}')
            leave(folder)

        made = Environment(tmp_path, Kept("tried", "3.11", {}, 0, 0.0, "tried"))
        monkeypatch.setattr("packager.dialects.vessl_program.environment_of", lambda *_: made)
        monkeypatch.setattr("packager.dialects.vessl_program.run_confined", run)
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "program.py").write_text(PROGRAM)
        return write_vessl_project(tmp_path / "work" / "program.py", tmp_path / "cache", {})

    return write


def replaced(name: str, odd: Callable[[Path], object]) -> Leave:
    def leave(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            path.rename(folder / "moved")
        path.unlink(missing_ok=True)
        odd(path)

    return leave


@pytest.mark.parametrize("name", ["model", "result.json", f"model/{RECORD}", f"model/{RUNNER}", "model/volume"])
def test_what_is_a_link_or_a_pipe_is_refused_in_one_line(
    name: str, host: Path, written: Callable[[Leave], VesslProject], tmp_path: Path
) -> None:
    for odd in (lambda path: path.symlink_to(host), lambda path: path.symlink_to(host / "secret"), os.mkfifo):
        with pytest.raises(EdgepackError, match=r"program\.py|model") as refused:
            written(replaced(name, odd))
        assert "\n" not in str(refused.value) and "s3cret" not in str(refused.value)
        assert [path.name for path in host.iterdir()] == ["secret"]
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["program.py"]
        (tmp_path / "work" / "program.py").unlink()
        (tmp_path / "work").rmdir()


def test_what_is_no_file_of_a_model_does_not_travel(host: Path, written: Callable[[Leave], VesslProject]) -> None:
    """Folders that programs leave behind are passed over when a model is read, so they may hold anything."""

    def leave(folder: Path) -> None:
        (folder / "model" / "__pycache__").symlink_to(host)
        os.mkfifo(folder / "model" / ".DS_Store")

    model = written(leave).path.parent / "model"
    assert {path.name for path in model.iterdir()} == {RECORD, RUNNER, INSTANCE, "volume", "requirements.txt"}


def test_a_model_without_its_registration_is_one_line(written: Callable[[Leave], VesslProject]) -> None:
    with pytest.raises(BadInput, match=f"^'model' lacks {RECORD}: make it anew: edgepack init$"):
        written(lambda folder: (folder / "model" / RECORD).unlink())


def test_a_file_in_place_of_the_volume_is_one_line(written: Callable[[Leave], VesslProject]) -> None:
    with pytest.raises(EdgepackError, match=r"^running 'program\.py' left a file named 'volume'"):
        written(lambda folder: (folder / "model" / "volume").write_text(""))
