"""Which containers `edgepack serve` starts, and how they end; tests/images starts real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.commands._containers import end, images_by_variable, projects_with_images, step_containers
from edgepack.errors import BadInput

ONE, OTHER = (f"registry.example/plant/sum@sha256:{digit * 64}" for digit in "ab")
VARIABLE = "EDGEPACK_STEP_SUM_URL"


def write_project(folder: Path, image: str) -> Path:
    folder.mkdir()
    (folder / "edgepack.toml").write_text(
        f'[pipeline]\nname = "{folder.name}"\n[[steps]]\nname = "sum"\nframework = "mlflow-image"\nimage = "{image}"\n'
        '[steps.input]\na = "float64"\n[steps.output]\ntotal = "float64"\n'
    )
    return folder


def test_one_address_is_not_given_to_two_images(tmp_path: Path) -> None:
    projects = projects_with_images([write_project(tmp_path / "a", ONE), write_project(tmp_path / "b", OTHER)])
    words = f"'sum' of pipeline 'b' and 'sum' of 'a' have one address, {VARIABLE}, and different images: rename one"
    for environ in ({}, {VARIABLE: "http://127.0.0.1:1"}):
        with (
            pytest.raises(BadInput, match=words),
            step_containers(projects, environ, allowed=False),
        ):
            pass


def test_pipelines_with_the_same_image_share_its_container(tmp_path: Path) -> None:
    first, second = projects_with_images([write_project(tmp_path / "a", ONE), write_project(tmp_path / "b", ONE)])
    assert images_by_variable([first, second]) == {VARIABLE: (first, first.steps[0])}


class Stuck:
    """A container that the engine does not stop in time; a real one cannot be made to."""

    short_id = "1a2b"

    def __init__(self, *, stays: bool = False) -> None:
        self.said: list[str] = []
        self._stays = stays

    def stop(self, timeout: int) -> None:
        self.said.append("stop")
        raise OSError("read timed out")

    def remove(self, force: bool, v: bool) -> None:
        self.said.append(f"remove {force} {v}")
        if self._stays:
            raise OSError("no engine")


def test_a_container_that_does_not_stop_is_removed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    container = Stuck()
    end(container)
    assert container.said == ["stop", "remove True True"] and capsys.readouterr().err == ""
    end(Stuck(stays=True))
    assert capsys.readouterr().err == "container 1a2b could not be removed: no engine\n"
