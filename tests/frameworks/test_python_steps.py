"""The examples with code of one's own, as a user has them checked, served and built into images. Real libraries."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from arch.target import Target, host_target, plain_targets
from buildx.mirror import APT, find_mirror
from bundle import media
from bundle.bundle import Bundle
from edge_agent.imports import fitting_bundles
from edgepack.errors import BadInput
from oci.image import Image
from oci.tar import Tar, read_tar
from oci.validate import validate
from packager.environments import CLASSIC, ready
from packager.package import package
from packager.project import Project
from tests.buildx.rootfs import serving, unpack, why_not_chroot

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"
STEP, BYOP = "python-step", "byop-clusters"
UPLOADS = {STEP: "prepare_step", BYOP: "clusters"}
PROGRAM = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]


def edgepack(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=500, check=False)


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an example, outside the checkout."""
    return Path(shutil.copytree(EXAMPLES / request.param, tmp_path / request.param))


def golden(project: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Questions and answers by bare names."""
    rows = json.loads((project / "golden.json").read_text())
    return (
        [{name[3:]: value for name, value in row.items() if name.startswith("in.")} for row in rows],
        [{name[4:]: value for name, value in row.items() if name.startswith("out.")} for row in rows],
    )


def infer(url: str, rows: list[dict[str, Any]], path: str = "infer") -> list[dict[str, Any]]:
    header = {"Content-Type": "application/json; format=pandas-records"}
    request = urllib.request.Request(f"{url}/{path}", json.dumps(rows).encode(), header)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [row["out"] for row in json.load(answer)]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    return all(
        one.keys() == other.keys() and all(one[name] == pytest.approx(other[name], rel=1e-5) for name in other)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("project", [STEP, BYOP], indirect=True)
def test_check_says_that_the_example_answers_as_its_author_did(project: Path) -> None:
    done = edgepack("check", project, "--json", folder=project.parent)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert all(check["passed"] for check in said["checks"])
    first = said["steps"][0]
    assert (first["runtime"], first["framework"]) == ("python", {STEP: "python", BYOP: "custom"}[project.name])
    assert first["reason"] and first["parity"]["label_flips"] == 0 and first["parity"]["max_rel"] < 1e-5
    assert first["parity"]["rows"] == 40


@pytest.mark.parametrize("project", [STEP, BYOP], indirect=True)
def test_a_zip_of_either_layout_makes_the_same_bundle_as_the_folder(project: Path) -> None:
    upload = project / UPLOADS[project.name]
    first = package(Project.open(project), [host_target()]).index.digest
    for layout in ("with", "without"):
        root = {"with": project, "without": upload}[layout]
        base = upload.name if layout == "with" else None
        shutil.make_archive(str(project / layout), "zip", root, base)
        toml = (project / "edgepack.toml").read_text()
        (project / "edgepack.toml").write_text(toml.replace(f'model = "{upload.name}"', f'model = "{layout}.zip"'))
        assert package(Project.open(project), [host_target()]).index.digest == first
        (project / "edgepack.toml").write_text(toml)


@contextlib.contextmanager
def served(data: Path, *projects: Path) -> Iterator[str]:
    """Serve projects as a user does; gives the agent's address."""
    command = [*PROGRAM, "serve", *map(str, projects), "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stderr
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield line.split(" on ")[1].split()[0]
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("project", [STEP, BYOP], indirect=True)
def test_serve_answers_every_golden_row(project: Path, tmp_path: Path) -> None:
    asked, expected = golden(project)
    with served(tmp_path / "data", project) as url:
        assert same(infer(url, asked), expected)
        assert same(infer(url, asked[:1]), expected[:1])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both examples as images for both architectures."""
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("images")
    found = {}
    for name in (STEP, BYOP):
        shutil.copytree(EXAMPLES / name, folder / name)
        done = edgepack(
            "build", folder / name, "--arch", "x86", "--arch", "arm", "-o", folder / f"{name}.tar", "--json",
            folder=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = read_tar(folder / f"{name}.tar")
        assert validate(Tar(folder / f"{name}.tar")) == []
    yield found


def own_bundle(root: Path, image: Image) -> Bundle:
    """The bundle that an image's agent would take from its layout, which lacks the blobs of other targets."""
    target = next(each for each in plain_targets() if each.platform.architecture == image.platform.architecture)
    (bundle,) = fitting_bundles(root / "opt/edgepack/bundle", target)
    return bundle


@pytest.mark.parametrize("name", [STEP, BYOP])
def test_each_image_carries_the_wheels_of_its_own_architecture(built: Any, name: str, tmp_path: Path) -> None:
    for image in built[name].images:
        root = unpack(image, tmp_path / image.platform.architecture)
        layout = root / "opt/edgepack/bundle"
        machine, other = {"amd64": ("x86_64", "aarch64"), "arm64": ("aarch64", "x86_64")}[image.platform.architecture]
        bundle = own_bundle(root, image)
        held = {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()}
        assert {str(blob.descriptor.digest) for blob in bundle.blobs.values()} <= held
        wheels = [path for path in bundle.blobs if path.startswith("wheels/")]
        assert any(machine in path for path in wheels) and not any(other in path for path in wheels)
        assert {"numpy"} <= {path.split("/")[-1].split("-")[0] for path in wheels}
        said = {path: bundle.blobs[path].descriptor.media_type for path in wheels}
        assert set(said.values()) == {media.WHEEL}
        files = [path for path in root.rglob("*") if path.is_file() and path.name.endswith(".whl")]
        assert files == []  # they lie in the layout by digest alone


@pytest.mark.parametrize("name", [STEP, BYOP])
def test_the_image_for_this_machine_answers_every_golden_row(built: Any, name: str, tmp_path: Path) -> None:
    reason = why_not_chroot()
    if reason:
        pytest.skip(reason)
    asked, expected = golden(EXAMPLES / name)
    architecture = host_target().platform.architecture
    image = next(each for each in built[name].images if each.platform.architecture == architecture)
    with serving(image, unpack(image, tmp_path / "root")) as url:
        assert same(infer(url, asked), expected)


def test_an_image_does_not_depend_on_which_others_were_built_beside_it(tmp_path: Path) -> None:
    project = shutil.copytree(EXAMPLES / STEP, tmp_path / STEP)
    both = package(Project.open(project), [Target("arm"), Target("x86")])
    alone = package(Project.open(project), [Target("x86")])
    assert alone.index.images[0].digest == both.index.images[1].digest
    assert both.parity["environments"]["prepare"]["arm/none"]["wheels"]["pandas"] == "2.3.3"


@pytest.mark.parametrize("project", [STEP], indirect=True)
def test_a_pin_without_a_wheel_ends_with_2_and_compatible_takes_the_nearest(project: Path) -> None:
    """pandas 1.2.4 was published before Python 3.11, and has no wheel for it."""
    (project / "prepare_step/requirements.txt").write_text("pandas==1.2.4\nnumpy<2\n")
    done = edgepack("check", project, folder=project)
    assert done.returncode == 2
    line = done.stderr.strip()
    assert len(line.splitlines()) == 1 and "'pandas==1.2.4', which has no wheel for Python 3.11" in line
    nearest = line.partition("the nearest version that has one is ")[2].partition(":")[0]
    toml = (project / "edgepack.toml").read_text()
    exact = 'framework = "python"\n'
    (project / "edgepack.toml").write_text(toml.replace(exact, f'{exact}requirements = "compatible"\n'))
    done = edgepack("check", project, "--json", folder=project)
    assert done.returncode == 0, done.stderr
    assert any(f"pandas {nearest} instead of 1.2.4" in note for note in json.loads(done.stdout)["notes"])
    assert f"pandas {nearest} instead of 1.2.4" in (project / "edgepack.lock").read_text()


TRAIN = """
import json, sys
import numpy as np, xgboost
random = np.random.default_rng(3)
raw = random.uniform(0, 100, (200, 2)).round(1)
tensor = np.column_stack([raw[:, 0] / 10, raw[:, 1] / 10, raw[:, 0] - raw[:, 1]]).astype(np.float32)
model = xgboost.XGBRegressor(n_estimators=20, max_depth=3).fit(tensor, tensor[:, 0] + tensor[:, 2] / 20)
model.get_booster().save_model(sys.argv[1])
answers = model.get_booster().predict(xgboost.DMatrix(tensor))
rows = [{"in.load": a, "in.wind": b, "out.sway": float(c)} for (a, b), c in zip(raw.tolist(), answers[:30])]
print(json.dumps(rows))
"""
PREPARE = """
import numpy as np
from mac.types import InferenceData

async def process_data(input_data: InferenceData) -> InferenceData:
    load, wind = input_data["load"], input_data["wind"]
    return {"tensor": np.column_stack([load / 10, wind / 10, load - wind]).astype(np.float32)}
"""
TOML = """
[pipeline]
name = "crane"

[[steps]]
model = "prepare"
[steps.input]
load = "float64"
wind = "float64"
[steps.output]
tensor = "list<float32>[3]"

[[steps]]
model = "sway.ubj"
[steps.input]
tensor = "list<float32>[3]"
[steps.output]
sway = "float32"
"""


@pytest.fixture(scope="module")
def crane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python step in front of an XGBoost model that the real library trained."""
    folder = tmp_path_factory.mktemp("crane")
    (folder / "prepare").mkdir()
    (folder / "prepare/prepare.py").write_text(PREPARE)
    (folder / "edgepack.toml").write_text(TOML)
    python = ready(CLASSIC, platformdirs.user_cache_path("edgepack"), os.environ).python
    done = subprocess.run(
        [python, "-c", TRAIN, folder / "sway.ubj"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "golden.json").write_text(done.stdout)
    return folder


def test_a_python_step_before_an_xgboost_model_works_in_images_of_both_architectures(
    crane: Path, tmp_path: Path
) -> None:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    done = edgepack(
        "build", crane, "--arch", "x86", "--arch", "arm", "-o", tmp_path / "crane.tar", "--json", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity"]["label_flips"] == 0
    assert validate(Tar(tmp_path / "crane.tar")) == []
    images = {each.platform.architecture: each for each in read_tar(tmp_path / "crane.tar").images}
    for name, image in images.items():
        bundle = own_bundle(unpack(image, tmp_path / name), image)
        assert [step.runtime for step in bundle.spec.steps] == ["python", "onnx"]
    if why_not_chroot() is None:
        asked, expected = golden(crane)
        own = host_target().platform.architecture
        with serving(images[own], tmp_path / own) as url:
            assert same(infer(url, asked), expected)


def small(folder: Path, code: str, toml: str, rows: Any = None) -> Path:
    """A project of one upload that needs nothing but numpy."""
    (folder / "code").mkdir(parents=True)
    (folder / "code/code_of_mine.py").write_text(code)
    (folder / "edgepack.toml").write_text(f'[[steps]]\nname = "mine"\nmodel = "code"\n{toml}')
    if rows is not None:
        (folder / "golden.json").write_text(json.dumps(rows))
    return folder


OPTIONAL = """
import numpy as np
from mac.inference import Inference
from mac.inference.creation import InferenceBuilder

class Scaled(Inference):
    @property
    def expected_model_types(self):
        return {str}

    @Inference.model.setter
    def model(self, model):
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _predict(self, input_data):
        self._raise_error_if_model_is_not_assigned()
        found = []
        for first, second, factor in zip(
            input_data["first"].tolist(), input_data["second"].tolist(), input_data["factor"].tolist()
        ):
            second = [value for value in second or [] if value is not None] or [0.0] * len(first)
            found.append([(a + b) * (1 if factor is None else factor) for a, b in zip(first, second)])
        return {"output": np.array(found, dtype=np.float32)}

class Base(InferenceBuilder):
    @property
    def inference(self):
        return Scaled

class Builder(Base):
    def create(self, config):
        made = self.inference()
        made.model = (config.model_path / "code_of_mine.py").name
        return made
"""
OPTIONAL_TOML = """
[steps.input]
first = "list<float32>"
second = "list<float32?>"
factor = "int32?"
[steps.output]
output = "list<float32>"
"""


def test_optional_inputs_may_be_null_empty_or_lists_of_nulls(tmp_path: Path) -> None:
    """Also a whole column of nulls, whose type only the schema knows; and a builder that inherits from another."""
    rows = [
        {"first": [1, 2], "second": [5, 6], "factor": 2, "out.output": [12, 16]},
        {"first": [1, 2], "second": [None], "factor": 3, "out.output": [3, 6]},
        {"first": [3, 4], "second": [], "factor": None, "out.output": [3, 4]},
    ]
    for number, chosen in enumerate((rows, rows[2:], rows[1:2])):
        folder = small(tmp_path / str(number), OPTIONAL, OPTIONAL_TOML, chosen)
        done = edgepack("check", folder, "--json", folder=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["steps"][0]["parity"]["max_abs"] == 0


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("return {str}", "return {int}", "TypeError"),
        ('(config.model_path / "code_of_mine.py").name', '(config.model_path / "gone.pkl").read_text()', "gone.pkl"),
        ("return made", "return None", "'mine'"),
        ("made = self.inference()", "made = self.inference(1)", "TypeError"),
    ],
)
def test_a_builder_that_does_not_build_ends_with_2_and_one_line(tmp_path: Path, old: str, new: str, word: str) -> None:
    assert old in OPTIONAL
    folder = small(tmp_path / "p", OPTIONAL.replace(old, new), OPTIONAL_TOML)
    done = edgepack("check", folder, folder=folder)
    line = done.stderr.strip()
    assert done.returncode == 2 and len(line.splitlines()) == 1 and word in line, line


STEP_TOML = """
[steps.input]
x = "float32"
[steps.output]
y = "float32"
"""


@pytest.mark.parametrize(
    "body, word",
    [
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("return {'y': np.array(['a'] * len(input_data['x']))}", "y"),
        ("return {'z': input_data['x']}", "y"),
        ("return {'y': input_data['x'][:1]}", "rows"),
        ("return 5", "dict"),
        ("return {'y': np.array([object()] * len(input_data['x']))}", "y"),
        ("import os; os._exit(3)", "mine"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "mine"),
        ("return {'y': np.random.default_rng().random(len(input_data['x']), dtype=np.float32)}", "differs from itself"),
    ],
)
def test_code_that_answers_wrongly_ends_with_2_and_one_line(tmp_path: Path, body: str, word: str) -> None:
    head = "import numpy as np\nfrom mac.types import InferenceData\n"
    code = f"{head}def process_data(input_data: InferenceData) -> InferenceData:\n    {body}\n"
    folder = small(tmp_path / "p", code, STEP_TOML)
    done = edgepack("check", folder, folder=folder)
    line = done.stderr.strip()
    assert done.returncode == 2 and len(line.splitlines()) == 1, line
    assert word in line


def test_a_step_without_schema_takes_and_gives_one_json_value(tmp_path: Path) -> None:
    code = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    value = input_data["json"][0]
    return {"json": [{"sum": sum(value["x"]), "name": value.get("name")}]}
"""
    rows = [{"in.json": {"x": [1, 2.5], "name": "é"}, "out.json": {"name": "é", "sum": 3.5}}]
    folder = small(tmp_path / "p", code, "", rows)
    done = edgepack("check", folder, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["parity"] == {
        "rows": 1,
        "max_abs": 0.0,
        "max_rel": 0.0,
        "label_flips": 0,
    }
