"""Images for accelerators: synthetic bases and wheels, a real index on loopback, the real resolver."""

from __future__ import annotations

import os
import re

import pytest

from arch.target import Target
from buildx import Options, Quiet, Workplace, build
from buildx.entries import file
from buildx.layers import LAYERS, OWN_LAYERS, wheel_groups
from buildx.lock import LockedWheel
from bundle.bundle import pack
from bundle.pipeline import PipelineSpec, StepSpec
from edgepack.errors import BadInput, BuildFailed
from oci.layout import Layout
from oci.registry import Registry
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.buildx.parts import agent_wheels, make_base, make_bundle, make_wheel
from tests.buildx.simple_index import serving
from tests.buildx.test_build import config, files
from tests.fakes.registry import FakeRegistry

CUDA, JETSON, AIO, ARM, X86 = (Target.parse(t) for t in ("x86/cuda", "arm/jetson", "arm/aio", "arm/none", "x86/none"))
EXTRAS = (
    "Provides-Extra: cuda",
    "Provides-Extra: cudnn",
    "Requires-Dist: nvidia-cublas; extra == 'cuda'",
    "Requires-Dist: nvidia-cudnn-cu13; extra == 'cudnn'",
    "Requires-Dist: sympy",
)
FIELD = {"x": "list<float32>[2]"}
STEP = StepSpec(name="tiny", model="m.onnx", framework="onnx", runtime="onnx", input=FIELD, output=FIELD)
TEGRA = b"# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
GLIBC = "GNU C Library (Ubuntu GLIBC {0}-0ubuntu3) stable release version {0}.\n"


def libc(version):
    return file("usr/lib/aarch64-linux-gnu/libc.so.6", GLIBC.format(version).encode())


class Bench:
    """A project with its targets/, an index with all that the agent requires, and builds that ask it."""

    def __init__(self, folder, index):
        self.folder, self.index = folder, index
        self.project = folder / "project"
        self.report = Quiet()
        self.bundle = make_bundle(self.project, "tiny", b"w" * 1000, CUDA, JETSON, AIO)

    def build(self, *targets, **more):
        (self.folder / "home").mkdir(exist_ok=True)
        environ = {
            "UV_NO_CONFIG": "1",
            "UV_DEFAULT_INDEX": self.index,
            "UV_CACHE_DIR": str(self.folder / "uv"),
            "HOME": str(self.folder / "home"),
            "PATH": os.environ["PATH"],
            **more.pop("environ", {}),
        }
        options = Options(self.project, self.project, output=self.folder / "out.tar", **more)
        workplace = Workplace(self.folder / "cache", environ, self.folder / "no-apt")
        return build(self.bundle, targets, options, workplace, self.report)

    def target_file(self, name, text):
        (self.project / "targets").mkdir(exist_ok=True)
        (self.project / "targets" / f"{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    wheels = agent_wheels(tmp_path_factory.mktemp("index"))
    make_wheel(wheels, "onnxruntime-gpu", "1.31.0", tag="cp311-cp311-manylinux_2_34_x86_64", requires=EXTRAS)
    make_wheel(wheels, "onnxruntime-gpu", "1.31.0", tag="cp310-cp310-manylinux_2_34_aarch64", requires=EXTRAS)
    for name in ("nvidia-cublas", "nvidia-cudnn-cu13", "sympy"):
        make_wheel(wheels, name)
    with serving(wheels) as url:
        yield url


@pytest.fixture(scope="module")
def jetson_index(tmp_path_factory):
    wheels = tmp_path_factory.mktemp("jetson")
    for python in ("cp310", "cp312"):
        make_wheel(wheels, "onnxruntime-gpu", "1.23.0", tag=f"{python}-{python}-linux_aarch64", requires=EXTRAS)
    with serving(wheels) as url:
        yield url


@pytest.fixture
def bench(tmp_path, index):
    return Bench(tmp_path, index)


def image_of(built):
    assert validate(Tar(built.path)) == []
    return read_tar(built.path).images[0]


def env(image):
    return dict(line.partition("=")[::2] for line in config(image)["config"]["Env"])


def packages(image, site):
    return {name.removeprefix(f"{site}/").partition("-")[0] for name in files(image) if ".dist-info/METADATA" in name}


def test_a_cuda_image_has_the_gpu_build_with_cuda_and_cudnn_and_not_the_plain_one(bench):
    base = make_base(bench.folder / "base", entries=(libc("2.36"),))
    built = bench.build(CUDA, base=str(base))
    image = image_of(built)
    found = packages(image, "usr/local/lib/python3.11/dist-packages")
    assert {"onnxruntime_gpu", "nvidia_cublas", "nvidia_cudnn_cu13", "numpy"} <= found
    assert "onnxruntime" not in found
    said = env(image)
    assert said["EDGEPACK_PROVIDERS"] == "CUDAExecutionProvider,CPUExecutionProvider"
    assert (said["EDGEPACK_TARGET"], said["NVIDIA_VISIBLE_DEVICES"]) == ("x86/cuda", "all")
    assert said["EDGEPACK_PROVIDER_OPTIONS"] == '{"options":{"CUDAExecutionProvider":{"use_tf32":"0"}}}'
    assert config(image)["config"]["Labels"]["io.edgepack.providers"] == said["EDGEPACK_PROVIDERS"]
    assert built.images[0].flags == ("--gpus", "all")
    assert built.path.name == "out.tar"


def test_a_jetson_image_takes_onnxruntime_from_the_targets_own_index(bench, jetson_index):
    base = make_base(bench.folder / "l4t", "usr/bin/python3.10", (libc("2.35"), file("etc/nv_tegra_release", TEGRA)))
    bench.target_file("jetson", f'target = "arm/jetson"\nbase = "{base}"\nindexes = ["{jetson_index}"]\n')
    image = image_of(bench.build(JETSON))
    found = packages(image, "opt/edgepack/site")
    assert {"onnxruntime_gpu", "numpy"} <= found and not {"onnxruntime", "sympy"} & found
    lock = (bench.project / "edgepack.lock").read_text()
    assert "onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl" in lock
    assert "http" not in lock and str(bench.folder) not in lock
    assert env(image)["PYTHONPATH"] == "/opt/edgepack/site"
    assert config(image)["config"]["Labels"]["io.edgepack.l4t"] == env(image)["EDGEPACK_L4T"] == "36.4.3"


def test_jetpack_7_is_taken_and_jetpack_5_and_others_are_refused(bench, jetson_index):
    bench.target_file("jetson", f'target = "arm/jetson"\nindexes = ["{jetson_index}"]\n')
    seven = make_base(bench.folder / "seven", "usr/bin/python3.12", (libc("2.39"),))
    assert config(image_of(bench.build(JETSON, base=str(seven))))["config"]["Entrypoint"][0] == "/usr/bin/python3.12"
    five = make_base(bench.folder / "five", "usr/bin/python3.8")
    with pytest.raises(BadInput, match=r"is refused for arm/jetson: JetPack 5 has Python 3.8"):
        bench.build(JETSON, base=str(five))
    other = make_base(bench.folder / "other", "usr/bin/python3.11")
    with pytest.raises(BadInput, match=r"has Python 3.11: arm/jetson needs 3.10 \(JetPack 6\) or 3.12 \(JetPack 7\)"):
        bench.build(JETSON, base=str(other))


def test_an_aio_image_keeps_the_onnxruntime_and_numpy_of_its_base(bench):
    theirs = [
        file(f"usr/local/lib/python3.10/dist-packages/{name}/__init__.py", b"") for name in ("numpy", "onnxruntime")
    ]
    base = make_base(bench.folder / "ampere", "usr/bin/python3.10", (libc("2.35"), *theirs))
    image = image_of(bench.build(AIO, environ={"EDGEPACK_BASE_ARM_AIO": str(base)}))
    found = packages(image, "opt/edgepack/site")
    assert "flask" in found and not {"numpy", "onnxruntime"} & found
    assert env(image)["EDGEPACK_PROVIDERS"] == "AIOExecutionProvider,CPUExecutionProvider"
    bare = make_base(bench.folder / "bare", "usr/bin/python3.10", (libc("2.35"),))
    with pytest.raises(BadInput, match=r"has no Python package 'numpy', which images for arm/aio take from their base"):
        bench.build(AIO, base=str(bare))


@pytest.mark.parametrize("target", [JETSON, AIO])
def test_a_target_without_a_base_says_which_line_to_add(bench, target):
    with pytest.raises(BadInput, match=rf'base = "host/repository:tag".*targets/arm-{target.accel}\.toml'):
        bench.build(target)


def test_a_wheel_that_needs_a_newer_glibc_than_the_base_is_named(bench):
    base = make_base(bench.folder / "old", entries=(libc("2.31"),))
    with pytest.raises(BadInput) as caught:
        bench.build(CUDA, base=str(base))
    said = str(caught.value)
    assert "'onnxruntime-gpu' for x86_64-manylinux_2_31 and Python 3.11 with --wheels DIR" in said, said
    assert "indexes = " in said and "\n" not in said


def test_an_image_does_not_depend_on_the_accelerators_built_beside_it(bench):
    base = make_base(bench.folder / "base", "usr/bin/python3.10", entries=(libc("2.36"),))
    alone = bench.build(X86, base=str(base)).images[0].image.digest
    together = {str(each.target): each.image.digest for each in bench.build(X86, JETSON, base=str(base)).images}
    assert together["x86/none"] == alone
    with pytest.raises(BadInput, match=r"arm/jetson and arm/none are both|arm/none and arm/jetson are both"):
        bench.build(ARM, JETSON, base=str(base))


def test_a_base_in_a_registry_stays_the_locked_one_until_the_lock_says_otherwise(bench):
    one = make_base(bench.folder / "one", entries=(file("version", b"1"),))
    two = make_base(bench.folder / "two", entries=(file("version", b"2"),))
    with FakeRegistry() as there:
        with Registry(there.host) as registry:
            registry.push_index("our/base", "1", Layout(one).index())
            before = bench.build(X86, base=f"{there.host}/our/base:1").digest
            registry.push_index("our/base", "1", Layout(two).index())
        assert bench.build(X86, base=f"{there.host}/our/base:1").digest == before
        where = there.host
    lock = bench.project / "edgepack.lock"
    assert re.search(r'\[given\."x86/none"\]\nname = ".*/our/base:1"\ndigest = "sha256:\w{64}"', lock.read_text())
    # pulled and locked: no registry is asked any more
    assert bench.build(X86, base=f"{where}/our/base:1", locked=True).digest == before


def test_a_layout_that_was_made_anew_is_locked_anew_with_a_notice_and_locked_refuses_it(bench):
    base = make_base(bench.folder / "base", entries=(file("version", b"1"),))
    before = bench.build(X86, base=str(base)).digest
    make_base(bench.folder / "base", entries=(file("version", b"2"),))
    with pytest.raises(BadInput, match=r"--locked: the base of x86/none is 'base' sha256:\w+, edgepack.lock"):
        bench.build(X86, base=str(base), locked=True)
    assert bench.build(X86, base=str(base)).digest != before
    assert any("the base of x86/none is locked anew" in notice for notice in bench.report.notices)


@pytest.mark.parametrize(
    ("theirs", "said"), [('glibc = "2.99"\n', "a given base with glibc 2.99"), ("", "edgepack's own base")]
)
def test_wheels_that_were_locked_for_another_base_are_named_by_it(bench, theirs, said):
    base = str(make_base(bench.folder / "base"))
    bench.build(X86, base=base)
    lock = bench.project / "edgepack.lock"
    text, count = re.subn(r'(?m)^glibc = ".*"\n', theirs, lock.read_text())
    assert count == 1
    lock.write_text(text)
    with pytest.raises(BadInput, match=f"--locked: edgepack.lock does not fit x86/none: it was made for {said}; build"):
        bench.build(X86, base=base, locked=True)


def wheel(number, size):
    return LockedWheel(f"p{number:03}", "1", f"p{number}.whl", "0" * 64, size)


def test_the_largest_wheels_have_layers_of_their_own_within_the_budget(tmp_path):
    locked = [wheel(number, (5 << 20) + number) for number in range(60)] + [wheel(100, 1)]
    groups = wheel_groups(locked, [tmp_path] * len(locked))
    assert [group.kind for group in groups] == ["wheel"] * OWN_LAYERS + ["wheels"]
    assert min(group.locked[0].size for group in groups[:-1]) > max(each.size for each in groups[-1].locked)
    assert len(wheel_groups(locked, [tmp_path] * len(locked), base_layers=LAYERS - 10)) == 8
    with pytest.raises(BadInput, match=r"the base has 126 layers, an image has at most 127"):
        wheel_groups(locked, [tmp_path] * len(locked), base_layers=126)


def test_two_wheels_in_different_layers_that_bring_one_path_stop_the_build_again_and_again(bench):
    base = make_base(bench.folder / "base")
    wheels = agent_wheels(bench.folder / "wheels")
    large = {"big.bin": os.urandom(5 << 20), "flask.py": b"theirs"}
    make_wheel(wheels, "numpy", "1.26.0", large)
    for _ in range(2):
        with pytest.raises(BuildFailed, match=r"flask\.py' is brought by two wheels"):
            bench.build(X86, base=str(base), wheels=wheels)


def test_an_image_holds_no_blob_that_only_another_target_needs(bench, tmp_path):
    base = make_base(bench.folder / "base", entries=(libc("2.36"),))
    wheels = {ARM: {"wheels/tiny/a-1.0-py3-none-any.whl": make_wheel(tmp_path / "arm", "a")}, X86: {}}
    model = {"m.onnx": bench.project / "m.onnx"}
    spec = PipelineSpec(name="tiny", steps=[STEP])
    bench.bundle = pack(spec, model, b"[]\n", [ARM, X86], wheels)
    arm, x86 = bench.bundle.images
    wheel_blob = arm.layers[-1].descriptor.digest.removeprefix("sha256:")
    held = {str(each.target): set(files(each.image)) for each in bench.build(ARM, X86, base=str(base)).images}
    assert f"opt/edgepack/bundle/blobs/sha256/{wheel_blob}" in held["arm/none"]
    assert f"opt/edgepack/bundle/blobs/sha256/{wheel_blob}" not in held["x86/none"]
    for image in (arm, x86):
        assert f"opt/edgepack/bundle/blobs/sha256/{image.digest.removeprefix('sha256:')}" in held["x86/none"]
