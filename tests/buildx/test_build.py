"""Whole builds without a network: a base and wheels made in code."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from arch.target import Target
from buildx import Options, Quiet, Workplace, build
from buildx.choice import bundles_for
from buildx.entries import file
from buildx.zstd import LAYER_ZSTD, open_zstd
from edgepack.errors import BadInput, BuildFailed, NotTrusted
from oci.image import Index
from oci.layout import Layout, write_layout
from oci.registry import Registry
from oci.tar import Tar, read_tar
from oci.validate import examine, validate
from tests.buildx.parts import agent_wheels, make_base, make_bundle, make_wheel
from tests.fakes.registry import FakeRegistry

X86, ARM = Target("x86"), Target("arm")
ENVIRON = {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1700000000"}


class Bench:
    """A project, a base and wheels in a folder, and builds of them."""

    def __init__(self, folder: Path, python: str = "usr/bin/python3.11") -> None:
        self.folder = folder
        self.project = folder / "project"
        self.bundle = make_bundle(self.project)
        self.base = make_base(folder / "base", python)
        self.wheels = agent_wheels(folder / "wheels")
        self.report = Quiet()

    def build(self, *targets, **more):
        options = {"base": str(self.base), "wheels": self.wheels, "output": self.folder / "out.tar", **more}
        workplace = Workplace(self.folder / "cache", ENVIRON, self.folder / "no-apt")
        sinks = options.pop("sinks", [])
        asked = Options(self.project, self.project, **options)
        return build(self.bundle, targets or [X86], asked, workplace, self.report, sinks)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def files(image) -> dict[str, tarfile.TarInfo]:
    found = {}
    for layer in image.layers:
        unpacked = open_zstd if layer.descriptor.media_type == LAYER_ZSTD else gzip.open
        with layer.open() as packed, unpacked(packed) as raw, tarfile.open(fileobj=io.BytesIO(raw.read())) as tar:
            found.update({member.name: member for member in tar})
    return found


def config(image) -> dict:
    with image.config.open() as file_:
        return json.load(file_)


def test_an_image_is_sound_and_says_what_it_is(bench):
    built = bench.build(X86)
    assert validate(Tar(built.path)) == []
    image = read_tar(built.path).images[0]
    said = config(image)
    assert image.digest == built.digest
    assert said["created"] == "2023-11-14T22:13:20Z"
    assert said["config"]["User"] == "65532:65532"
    assert said["config"]["Entrypoint"] == ["/usr/bin/python3.11", "/usr/local/bin/edgepack-agent"]
    assert said["config"]["Volumes"] == {"/persist": {}}
    assert {"PATH=/opt/bin", "FROM_BASE=1", "EDGEPACK_PROVIDERS=CPUExecutionProvider"} <= set(said["config"]["Env"])
    labels = said["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "tiny"
    assert labels["io.edgepack.target"] == "x86/none"
    assert labels["io.edgepack.bundle"] in {each.digest for each in bench.bundle.images}
    assert len(said["history"]) == len(said["rootfs"]["diff_ids"]) == len(image.layers)
    assert said["history"][0]["created_by"] == "theirs"


def test_the_layers_hold_agent_bundle_and_wheels_and_nothing_else_of_ours(bench):
    found = files(read_tar(bench.build(X86).path).images[0])
    assert {
        "opt/edgepack/app/edgepack/launch.py",
        "opt/edgepack/app/arch/target.py",
        "opt/edgepack/app/edge_agent/agent.py",
    } <= set(found)
    assert "usr/local/lib/python3.11/dist-packages/numpy.py" in found
    assert "opt/edgepack/bundle/index.json" in found
    assert found["persist"].uid == 65532
    assert found["usr/local/bin/edgepack-agent"].mode == 0o755
    tops = {name.split("/")[3] for name in found if name.startswith("opt/edgepack/app/")}
    assert tops == {"arch", "durable", "columns", "oci", "bundle", "fleet", "runtimes", "edge_agent", "edgepack"}
    assert [name for name in found if "__pycache__" in name or "commands/build" in name or "/tests/" in name] == []


def test_the_bundle_in_an_image_is_the_bundle(bench, tmp_path):
    image = read_tar(bench.build(X86).path).images[0]
    layer = image.layers[-1]
    with layer.open() as packed, tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed.read()))) as tar:
        tar.extractall(tmp_path / "x", filter="data")
    assert Layout(tmp_path / "x/opt/edgepack/bundle").index().digest == bench.bundle.digest


def test_several_targets_are_one_file_with_one_index(bench):
    built = bench.build(X86, ARM)
    assert validate(Tar(built.path)) == []
    assert [str(image.platform.architecture) for image in read_tar(built.path).images] == ["arm64", "amd64"]
    said = built.to_dict({"rows": 3})
    assert said["platform"] is None
    assert said["digest"] == built.digest
    assert {each["target"] for each in said["images"]} == {"x86/none", "arm/none"}
    alone = bench.build(ARM)
    assert alone.digest in {each["digest"] for each in said["images"]}, (
        "an image must not depend on what is built beside it"
    )


def test_the_json_of_one_target_has_exactly_the_promised_fields(bench):
    said = bench.build(X86).to_dict({"rows": 3})
    assert set(said) == {
        "image", "digest", "platform", "target", "path", "size_bytes", "seconds", "builder", "layers", "parity",
    }  # fmt: skip
    assert (said["image"], said["platform"], said["target"], said["builder"]) == (
        "tiny:x86-none",
        "linux/amd64",
        "x86/none",
        "direct",
    )
    assert said["size_bytes"] == Path(said["path"]).stat().st_size
    assert [layer["kind"] for layer in said["layers"]] == ["base", "wheels", "agent", "bundle"]
    assert all(set(layer) == {"digest", "size_bytes", "kind", "cached"} for layer in said["layers"])


def test_a_second_build_takes_every_layer_from_the_cache_and_gives_the_same_bytes(bench):
    first = bench.build(X86)
    bytes_ = first.path.read_bytes()
    second = bench.build(X86)
    assert [layer.cached for layer in second.images[0].layers] == [True] * 4
    assert second.path.read_bytes() == bytes_
    third = bench.build(X86, layer_cache=False)
    assert [layer.cached for layer in third.images[0].layers] == [True, False, False, False], "a given base is not made"
    assert third.path.read_bytes() == bytes_


def test_a_damaged_layer_cache_does_not_reach_the_image(bench):
    digest = bench.build(X86).digest
    for blob in (bench.folder / "cache/layers/blobs").iterdir():
        blob.write_bytes(b"damaged")
    built = bench.build(X86)
    assert built.digest == digest
    assert validate(Tar(built.path)) == []


BUILD = """
import os, sys
sys.path[:0] = [sys.argv[1]]
os.umask(int(sys.argv[3], 8))
from pathlib import Path
from tests.buildx.test_build import ARM, Bench, X86
print(Bench(Path(sys.argv[2])).build(X86, ARM).digest)
"""


def test_path_umask_time_zone_and_hash_seed_change_nothing(tmp_path):
    digests = set()
    for number, (umask, zone, seed) in enumerate([("022", "UTC", "1"), ("077", "Asia/Tokyo", "2")]):
        environ = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "LC_ALL": "C"}
        root = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", BUILD, root, str(tmp_path / f"a{number}" / ("b" * number * 9)), umask]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_a_change_of_the_model_makes_only_the_bundle_layer_anew(bench):
    before = bench.build(X86)
    bench.bundle = make_bundle(bench.project, model=b"retrained" * 1000)
    after = bench.build(X86)
    assert after.digest != before.digest
    assert [layer.cached for layer in after.images[0].layers] == [True, True, True, False]


def test_a_lock_is_written_and_locked_uses_it_without_the_wheels(bench):
    digest = bench.build(X86).digest
    assert '[target."x86/none"]' in (bench.project / "edgepack.lock").read_text()
    assert bench.build(X86, wheels=None, locked=True).digest == digest
    with pytest.raises(BadInput, match=r"--locked: the base of arm/none is 'base' sha256:\w+, edgepack.lock has none"):
        bench.build(ARM, locked=True)


@pytest.mark.parametrize("python", ["usr/local/bin/python3.12", "usr/bin/python3.10"])
def test_the_python_of_a_given_base_is_used(tmp_path, python):
    built = Bench(tmp_path, python).build(X86)
    image = read_tar(built.path).images[0]
    assert config(image)["config"]["Entrypoint"][0] == f"/{python}"
    site = "site-packages" if "local" in python else "dist-packages"
    assert f"usr/local/lib/{python.rpartition('/')[2]}/{site}/numpy.py" in files(image)


def test_a_base_in_a_registry_gives_the_same_image_as_its_layout(bench):
    with FakeRegistry() as there:
        with Registry(there.host) as registry:
            registry.push_index("our/base", "1", Layout(bench.base).index())
        built = bench.build(ARM, base=f"{there.host}/our/base:1")
    here = bench.build(ARM)
    assert [blob.descriptor for blob in built.images[0].image.layers] == [
        blob.descriptor for blob in here.images[0].image.layers
    ]
    assert validate(Tar(built.path)) == []


def test_a_base_that_does_not_fit_says_why(bench, tmp_path):
    with pytest.raises(BadInput, match=r"has no Python 3.10 or newer"):
        bench.build(X86, base=str(make_base(tmp_path / "old", "usr/bin/python3.9")))
    with pytest.raises(BadInput, match="is not there: expected an OCI layout"):
        bench.build(X86, base=str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="is not an OCI layout"):
        bench.build(X86, base=str(tmp_path / "empty"))
    only_arm = Index((Layout(bench.base).index().images[1],))
    write_layout(only_arm, tmp_path / "arm")
    with pytest.raises(BadInput, match="has no image for linux/amd64: it has arm64"):
        bench.build(X86, base=str(tmp_path / "arm"))


def test_a_damaged_base_leaves_no_file_behind(bench):
    layer = Layout(bench.base).index().images[0].layers[0]
    blob = Layout(bench.base).path(layer.descriptor.digest)
    data = bytearray(blob.read_bytes())
    data[5] ^= 0xFF  # in gzip's header: it still unpacks
    blob.write_bytes(data)
    with pytest.raises(NotTrusted, match=str(layer.descriptor.digest)):
        bench.build(X86)
    assert sorted(path.name for path in bench.folder.glob("out*")) == []


def test_two_wheels_with_one_file_stop_the_build(bench):
    make_wheel(bench.wheels, "numpy", "1.26.0", {"flask.py": b"x"})
    with pytest.raises(BuildFailed, match=r"flask\.py' is brought by two wheels, 'flask-3.0-.*' and 'numpy-1.26.0-"):
        bench.build(X86)


def test_a_target_that_the_bundle_lacks_is_refused(bench):
    arm = Index(bench.bundle.images[:1], bench.bundle.artifact_type, bench.bundle.annotations)
    with pytest.raises(BadInput, match="the bundle has nothing for x86/none: it has arm/none"):
        bundles_for(arm, [X86])
    with pytest.raises(BadInput, match="a build needs a target"):
        bundles_for(arm, [])


def test_without_mirror_and_base_the_two_ways_out_are_named(bench):
    with pytest.raises(BadInput, match=r"EDGEPACK_DEBIAN_MIRROR.*--base"):
        bench.build(X86, base=None)


def test_zstd_without_a_library_says_what_to_install(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(BadInput, match="pip install zstandard"):
        bench.build(X86, compression="zstd")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_other_compressions_are_smaller_and_have_the_same_content(bench, compression):
    spliced = bench.build(X86)
    packed = bench.build(X86, compression=compression, output=bench.folder / "p.tar")
    assert packed.images[0].compressed_bytes < spliced.images[0].compressed_bytes
    assert set(files(read_tar(packed.path).images[0])) == set(files(read_tar(spliced.path).images[0]))
    report = examine(Tar(packed.path))
    assert (report.faults, report.unchecked_layers) == ((), 0), "the tar inside each layer was hashed"
    again = bench.build(X86, compression=compression, layer_cache=False, output=bench.folder / "a.tar")
    assert again.digest == packed.digest


def test_an_output_that_cannot_be_written_is_named(bench):
    (bench.folder / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot be written.*choose another place with -o"):
        bench.build(X86, output=bench.folder / "file/out.tar")


def test_a_large_base_layer_of_our_own_kind_is_read_to_its_end(tmp_path):
    """Our layers are gzip files of many members, of which some readers see only the first."""
    bench = Bench(tmp_path, "usr/bin/other")
    bench.base = make_base(tmp_path / "big", "zzz/last", (file("a", bytes(3 << 20)), file("usr/bin/python3.11", b"1")))
    assert bench.build(X86).digest
