"""Models that change where they lie: what is found there, and what is made of it while it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arch.target import host_target
from edgepack.errors import BadInput
from packager import Project, package
from packager.live import LiveSource, live_source
from packager.package import Packaged
from tests.packager.dialects.test_cortex import files_of
from tests.runtimes.models import linear


def followed(source: Path, made: list[Packaged]) -> LiveSource:
    """What follows a folder of models; what the packager makes of them is added to `made`."""

    def make(project: Project) -> Packaged:
        made.append(package(project, [host_target()], cache=source.with_name("cache"), here=True))
        return made[-1]

    found = live_source(source, make, source.with_name("work"))
    assert found is not None
    return found


def test_a_model_that_takes_other_inputs_now_is_asked_other_rows(tmp_path: Path) -> None:
    models, made = files_of(tmp_path / "models", {"line/1/m.onnx": linear(width=3)}), list[Packaged]()
    source = followed(models, made)
    source.make("line", "1")
    source.make("line", "1")
    assert made[0].index.digest == made[1].index.digest and "kept with the rows" in made[1].parity["reason"]
    files_of(models, {"line/1/m.onnx": linear(width=5)})
    source.make("line", "1")
    assert (made[2].spec.steps[0].input["x"], made[2].parity["rows"]) == ("list<float32>[5]", 8)
    assert len(list((tmp_path / "work/kept/line").iterdir())) == 1, "those of the former model are gone"


def test_rows_that_lie_beside_a_model_are_part_of_what_changes(tmp_path: Path) -> None:
    models = files_of(tmp_path / "models", {"line/1/m.onnx": linear(), "other/m.onnx": linear()})
    made: list[Packaged] = []
    source = followed(models, made)
    before = source.look().marks
    rows = [{"x": [1, 1, 1], "out.y": [6]}, {"x": [0, 0, 0], "out.y": [0]}]
    files_of(models, {"line.golden.json": json.dumps(rows)})
    after = source.look().marks
    assert before["line"] != after["line"] and before["other"] == after["other"]
    source.make("line", "1")
    assert made[0].parity["rows"] == 2


def test_a_name_that_is_made_up_for_a_folder_is_told(tmp_path: Path) -> None:
    source = followed(files_of(tmp_path / "models", {"my_line/1/m.onnx": linear(), "other/m.onnx": linear()}), [])
    told = {each.name: each.notes for each in source.projects()}
    assert told == {"my-line": ("'my_line' is not a DNS label: called 'my-line' here",), "other": ()}


def test_two_folders_of_one_name_change_nothing_for_what_that_name_held(tmp_path: Path) -> None:
    files = {"line/1/m.onnx": linear(), "Line/1/m.onnx": linear(factor=7), "other/m.onnx": linear()}
    source = followed(files_of(tmp_path / "models", files), [])
    found, said = source.look(), "'Line' and 'line' would both be called 'line': rename one"
    assert (list(found.marks), found.faults) == (["other"], {"line": said})
    with pytest.raises(BadInput, match=said):
        source.make("line", "1")
    with pytest.raises(BadInput, match=said):
        source.projects()
