"""Which models of a predictor lie on the disk where it has room for few."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.golden import GoldenRows
from bundle.model_folders import Versions
from columns.columns import Columns
from columns.json_value import asked_schema
from columns.values import object_array
from edgepack.errors import BadInput
from packager.dialects.cortex_disk import Disk, left_out, of_those_there


def models(**versions: str) -> list[Versions]:
    return [Versions(name, {n: f"{name}/{n}" for n in numbers.split()}) for name, numbers in versions.items()]


def chosen(disk: Disk, most: int, **versions: str) -> list[str]:
    """As `a/1`, in the order of the models."""
    return [place for each in disk.choose(models(**versions), most)[1] for place in each.places.values()]


def test_the_latest_of_each_come_first_and_then_what_was_there_stays() -> None:
    disk = Disk(Path("objects"))
    assert chosen(disk, 2, a="1 10", b="1") == ["a/10", "b/1"]
    assert chosen(Disk(Path("objects")), 3, a="1 10 9", b="1") == ["a/10", "a/9", "b/1"]
    disk.there, disk.asked = (("b", "1"), ("a", "10")), ("a", "1")
    assert chosen(disk, 2, a="1 10", b="1") == ["a/1", "b/1"]
    disk.asked = None
    assert chosen(disk, 2, a="1 10", b="1") == ["a/1", "b/1"], "a change of files changes nothing of it"
    disk.asked = ("a", "10")
    every, there = disk.choose(models(a="1 10", b="1 2"), 1)
    assert there == models(a="10") and every == models(a="1 10", b="1"), "nothing new is served by the way"
    disk.asked, disk.there = None, (("a", "1"), ("b", "1"))
    assert chosen(disk, 2, a="1 10", b="1 2") == ["a/1", "b/2"], "what is new and the latest is proven"
    assert chosen(disk, 2, b="1 2") == ["b/1", "b/2"], "what is gone makes room"
    disk.asked = ("a", "1")
    with pytest.raises(BadInput, match=r"^model 'a' has no version 1 any more$"):
        disk.choose(models(b="1 2"), 2)


def test_files_that_two_models_share_stay_with_the_one_that_does() -> None:
    one, other = Versions("one", {"1": "models/m"}), Versions("other", {"1": "models/m"})
    files = dict.fromkeys(["models/m/f", "models/n/f", "predictor.py"], Path())
    gone = Versions("gone", {"1": "models/n"})
    assert left_out(files, [one, other, gone], [one]) == {"models/n/f"}


def test_golden_rows_of_models_that_are_not_there_are_left_out() -> None:
    there = {"a": {"1": {}, "2": {"path": "a/2"}}, "b": {"1": {"path": "b/1"}, "2": {}}}
    queries = ["model=a", "model=a&version=1", "model=b", "model=b&version=1", "kind=a", ""]
    schema = asked_schema("query")
    columns = {"json": object_array(list("123456")), "query": object_array(queries)}
    rows = GoldenRows(Columns(schema, columns, 6), Columns(schema, columns, 6))
    left = of_those_there(rows, {"models": there})
    assert list(left.inputs["json"]) == ["1", "4", "5", "6"]
    assert left.outputs is not None and list(left.outputs["json"]) == ["1", "4", "5", "6"]
    assert of_those_there(rows, {}) is rows
