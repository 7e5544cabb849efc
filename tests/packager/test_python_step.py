"""Finding the one function of a Python step by parsing; nothing of the upload is ever imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.errors import BadInput
from packager.archives import Tree, open_tree
from packager.frameworks import python_step
from packager.frameworks.sources import imports_of, sources_of

GOOD = """
import datetime
import numpy as np
import pandas as pd
import wallaroo
from mac.types import InferenceData

raise SystemExit("a packager that imports this ends here")

def process_data(input_data: InferenceData) -> InferenceData:
    return {"tensor": pd.DataFrame(input_data).to_numpy(dtype=np.float32)}
"""


def upload(folder: Path, **files: str) -> Tree:
    """A folder of Python files; `a__b` stands for `a/b.py`."""
    for name, text in files.items():
        path = folder / "step" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return open_tree(folder / "step", folder / "cache")


def test_the_function_is_found_and_nothing_is_executed(tmp_path: Path) -> None:
    found = python_step.inspect(upload(tmp_path, step=GOOD))
    assert (found.path, found.name) == ("step.py", "process_data")
    assert imports_of(found.sources) == {"numpy", "pandas", "wallaroo", "mac"}


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("def process", "async def process"),
        GOOD.replace("from mac.types import InferenceData", "from mac.types import InferenceData as D").replace(
            ": InferenceData) -> InferenceData", ": D) -> D"
        ),
        GOOD.replace("from mac.types import InferenceData", "import mac.types").replace(
            ": InferenceData) -> InferenceData", ": mac.types.InferenceData) -> mac.types.InferenceData"
        ),
        GOOD.replace("-> InferenceData", '-> "InferenceData"'),
        "from __future__ import annotations\n" + GOOD,
        "try:\n    from mac.types import InferenceData\nexcept ImportError:\n    raise\n"
        + GOOD.replace("from mac.types import InferenceData\n", ""),
    ],
    ids=["async", "alias", "dotted", "quoted", "future", "in try"],
)
def test_all_ways_of_writing_the_signature_are_understood(tmp_path: Path, text: str) -> None:
    assert python_step.inspect(upload(tmp_path, step=text)).name == "process_data"


def test_other_files_may_lie_beside_it_and_are_no_libraries(tmp_path: Path) -> None:
    tree = upload(tmp_path, step="import shapes\nfrom units.metric import m\n" + GOOD, shapes="", units__metric="m = 1")
    found = python_step.inspect(tree)
    assert found.path == "step.py"
    assert imports_of(found.sources) == {"numpy", "pandas", "wallaroo", "mac"}


HEAD = "from mac.types import InferenceData\n"
BODY = "(input_data: InferenceData) -> InferenceData: return input_data\n"


@pytest.mark.parametrize(
    "text, word",
    [
        ("x = 1\n", "has no function process_data"),
        (f"{HEAD}class A:\n    def process_data{BODY}", "step.py:3 is inside another function or class"),
        (f"{HEAD}def process_data{BODY}def process_data{BODY}", "2 functions process_data, in step.py:2 and step.py:3"),
        (f"{HEAD}def process_data(data: InferenceData) -> InferenceData: ...\n", "takes other arguments"),
        (f"{HEAD}def process_data(input_data: InferenceData, *more) -> InferenceData: ...\n", "takes other arguments"),
        (f"{HEAD}def process_data() -> InferenceData: ...\n", "takes other arguments"),
        (f"{HEAD}def process_data(input_data) -> InferenceData: ...\n", "input_data is not annotated"),
        (f"{HEAD}def process_data(input_data: InferenceData): ...\n", "its result is not annotated"),
        (f"{HEAD}def process_data(input_data: dict) -> InferenceData: ...\n", "annotated 'dict', expected Inference"),
        ("class InferenceData(dict): ...\ndef process_data" + BODY, "expected InferenceData of mac.types"),
        ("def process_data(:\n", "is not Python 3.*: line 1"),
        ("x = '\0'\n", "step.py"),
        ("x = " + "(" * 300 + ")" * 300 + "\n", "step.py"),
        ("# coding: utf-99\n", "step.py"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(BadInput, match=word) as error:
        python_step.inspect(upload(tmp_path, step=text))
    assert len(str(error.value).splitlines()) == 1


def test_two_functions_in_two_files_are_named_both(tmp_path: Path) -> None:
    tree = upload(tmp_path, one=HEAD + "def process_data" + BODY, two=HEAD + "def process_data" + BODY)
    with pytest.raises(BadInput, match=r"one\.py:2 and two\.py:2: expected exactly one"):
        python_step.inspect(tree)


def test_an_upload_without_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step/list.csv").write_text("1,2")
    with pytest.raises(BadInput, match="no Python file"):
        sources_of(open_tree(tmp_path / "step", tmp_path))
