"""Programs that register a model with `vessl`, run once in the sandbox, packaged and served; real libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from arch.target import Target, host_target
from bundle.bundle import bundles
from bundle.store import OpenBundle, unpack
from edgepack.errors import BadInput, RuntimeFailed
from oci.tar import read_tar
from packager.dialects.vessl_program import VesslProject, write_vessl_project
from packager.environments import CLASSIC, TORCH, ready
from packager.package import package
from packager.project import Project
from runtimes.sandbox import SHIM
from tests.buildx.rootfs import serving, why_not_chroot
from tests.buildx.rootfs import unpack as unpack_image
from tests.guides import Reader

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "vessl-drift"
HEAD = (
    "import numpy as np\nimport vessl\n"
    "class R(vessl.RunnerBase):\n    predict = staticmethod(lambda model, data: data)\n"
)
REGISTER = "vessl.register_model('tried', 1, R, 5)\n"
ASKED = [
    {"celsius": 21.5, "grams": 500.0},
    {"celsius": [4.0, 38.0], "grams": [499.2, 501.0]},
    {"celsius": [], "grams": []},
]


def written(folder: Path, cache: Path, source: str, **more: Any) -> VesslProject:
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(source)
    return write_vessl_project(folder / "program.py", cache, os.environ, **more)


def ask(url: str, body: object) -> Any:
    request = urllib.request.Request(f"{url}/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def by_itself(python: Path, folder: Path, asked: list[Any]) -> list[Any]:
    """What the program's own class answers in its own library, without edgepack."""
    code = (
        f"import json, os, sys; sys.path.insert(0, {str(SHIM)!r})\n"
        "import register as r\n"
        "props = r.DriftRunner.save_model(r.fitted())\n"
        "model = r.DriftRunner.load_model(props, {'drift.npz': 'drift.npz'})\n"
        "R = r.DriftRunner\n"
        "run = lambda each: R.postprocess_data(R.predict(model, R.preprocess_data(each)))\n"
        f"print(json.dumps([run(each) for each in json.loads({json.dumps(json.dumps(asked))})]))\n"
    )
    done = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_guides_commands_serve_what_the_program_answers_by_itself(tmp_path: Path, cache: Path) -> None:
    with Reader(tmp_path, ("vessl-drift",)) as reader:
        *_, said = reader.follow(ROOT / "docs/guides/from-vessl.md")
        found = [ask(reader.url, each) for each in ASKED]
    assert json.loads(said)["prediction"]["unit"] == "g"
    alone = shutil.copytree(EXAMPLE, tmp_path / "alone")
    python = ready(CLASSIC, cache, os.environ).python
    expected = by_itself(python, alone, ASKED)
    assert [each["prediction"] for each in found] == expected
    reason = why_not_chroot()
    if reason:
        pytest.skip(f"the image was not run: {reason}")
    assert by_image(tmp_path / "examples/vessl-drift/scale-drift", tmp_path) == expected


def by_image(project: Path, folder: Path) -> list[Any]:
    """What an image of the project for this machine answers, started as a container would start it."""
    arch = host_target().arch
    command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", "build", str(project)]
    subprocess.run([*command, "--arch", arch, "-o", str(folder / "own.tar")], check=True, capture_output=True)
    (image,) = read_tar(folder / "own.tar").images
    with serving(image, unpack_image(image, folder / "root"), timeout_s=60) as url:
        return [ask(url, each)["prediction"] for each in ASKED]


def test_named_fields_make_tables_of_it(tmp_path: Path, cache: Path) -> None:
    source = HEAD.replace("data: data", "data: np.float64(data['a'] * 2 + model)") + REGISTER
    fields = {"input": {"a": "float32"}, "output": {"b": "float64"}}
    made = written(tmp_path / "typed", cache, source, fields=fields)
    found = package(Project.open(made.path.parent), [host_target()], cache=cache)
    assert found.parity["rows"] > 0
    (step,) = found.spec.steps
    assert (step.runtime, step.framework, step.input) == ("python", "vessl", {"a": "float32"})
    assert step.worker is not None and step.worker.kind == "vessl"


def test_a_neighbour_module_travels_with_the_runner(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "neighbours"
    (folder / "line").mkdir(parents=True)
    (folder / "line/__init__.py").write_text("from line.scale import FACTOR\n")
    (folder / "line/scale.py").write_text("FACTOR = 3\ndef scaled(x):\n    return x * FACTOR\n")
    (folder / "runners.py").write_text(
        "import vessl\nfrom line.scale import scaled\nclass Base(vessl.RunnerBase):\n"
        "    predict = staticmethod(lambda model, data: scaled(data['a']) + model)\n"
    )
    source = "import vessl\nfrom runners import Base\nclass R(Base): pass\n" + REGISTER
    fields = {"input": {"a": "float32"}, "output": {"b": "float32"}}
    made = written(folder, cache, source, fields=fields)
    assert package(Project.open(made.path.parent), [host_target()], cache=cache).parity["rows"] > 0


def test_rows_may_be_what_a_client_would_send(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "rows.json").write_text('[{"a": 1}, [1, 2]]')
    made = written(folder, cache, HEAD + REGISTER, golden=folder / "rows.json")
    assert json.loads((made.path.parent / "golden.json").read_text()) == [{"in.json": {"a": 1}}, {"in.json": [1, 2]}]
    assert package(Project.open(made.path.parent), [host_target()], cache=cache).parity["rows"] == 2


def test_a_torch_module_is_asked_with_its_functions(tmp_path: Path, cache: Path) -> None:
    source = (
        "import torch\nimport vessl\n"
        "torch.manual_seed(3)\nnet = torch.nn.Linear(2, 1)\n"
        "vessl.register_torch_model('Net', None, net, preprocess_data=lambda x: torch.tensor(x['x']),\n"
        "    postprocess_data=lambda y: {'y': y.tolist()}, requirements=['torch==2.13.0'])\n"
    )
    rows = [{"in.json": {"x": [1.0, 2.0]}}, {"in.json": {"x": [[0.5, -1.0], [3.0, 4.0]]}}]
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(rows))
    made = written(folder, cache, source, golden=folder / "rows.json")
    found = package(Project.open(made.path.parent), [host_target()], cache=cache)
    golden = OpenBundle(unpack(bundles(found.index)[0], tmp_path / "bundle")).golden()
    answers = [json.loads(value) for value in golden.outputs.arrays["json"]]
    code = (
        "import torch, json\ntorch.manual_seed(3)\nnet = torch.nn.Linear(2, 1)\n"
        "print(json.dumps([net(torch.tensor(x)).tolist() for x in ([1.0, 2.0], [[0.5, -1.0], [3.0, 4.0]])]))\n"
    )
    python = ready(TORCH, cache, os.environ).python
    expected = json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert [each["y"] for each in answers] == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (HEAD + "1 / 0\n" + REGISTER, r"line 5: ZeroDivisionError: division by zero"),
        (HEAD + "if False:\n    " + REGISTER, "ran to its end and registered no model"),
        (HEAD + "raise SystemExit(3)\n" + REGISTER, "it ended with '3'"),
        (HEAD + "vessl.register_model('tried', None, R)\n", "ValueError: model_number=None makes a new model"),
        (
            HEAD + "import socket; socket.create_connection(('127.0.0.1', 9))\n" + REGISTER,
            "PermissionError|Operation not",
        ),
        (HEAD + "open('/etc/edgepack-was-here', 'w')\n" + REGISTER, "Error"),
        (HEAD + "import plant_tools\n" + REGISTER, "imports plant_tools, and which package has it is not said"),
    ],
)
def test_a_program_that_does_not_register_is_one_line_and_nothing_is_written(
    tmp_path: Path, cache: Path, source: str, expected: str
) -> None:
    with pytest.raises(BadInput, match=expected) as caught:
        written(tmp_path / "work", cache, source)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["program.py"]
    assert not Path("/etc/edgepack-was-here").exists()


def test_a_program_that_does_not_end_is_stopped(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RuntimeFailed, match="took more than 2 s: stopped"):
        written(tmp_path / "work", cache, HEAD + "while True: pass\n" + REGISTER, timeout_s=2.0)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["program.py"]


def test_a_project_that_is_there_is_kept(tmp_path: Path, cache: Path) -> None:
    made = written(tmp_path / "work", cache, HEAD + REGISTER)
    (made.path.parent / "mine.txt").write_text("kept")
    with pytest.raises(BadInput, match="is there already: delete it to have it written anew"):
        written(tmp_path / "work", cache, HEAD + REGISTER)
    assert (made.path.parent / "mine.txt").read_text() == "kept"


def test_byte_code_of_one_python_is_for_targets_that_have_it(tmp_path: Path, cache: Path) -> None:
    fields = {"input": {"a": "float32"}, "output": {"b": "float32"}}
    source = HEAD.replace("data: data", "data: data['a']") + REGISTER
    made = written(tmp_path / "work", cache, source, fields=fields)
    record = made.path.parent / "model" / "registration.json"
    record.write_text(record.read_text().replace(made.registered.python, "3.9"))
    with pytest.raises(BadInput, match=r"was made with Python 3\.9 and holds code compiled for it"):
        package(Project.open(made.path.parent), [Target("x86")], cache=cache)
