"""The example's images for both architectures, made of real packages and wheels by the real `edgepack build`.

Needs the machine's own Debian mirror and package index; both are cached in the user's cache folder.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pytest

from arch.target import host_target
from buildx.mirror import APT, find_mirror
from buildx.sizes import sizes
from edgepack.commands.cache import cache_folder
from edgepack.errors import BadInput
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.buildx.rootfs import serving, unpack, why_not_chroot

EXAMPLE = Path(__file__).parents[2] / "examples/wine-line"
LIMIT = 80_000_000  # bytes; 110 MB are promised of an image of an ONNX pipeline
MACHINES = {"amd64": 62, "arm64": 183}  # ELF e_machine
ROW = {"inputs": [13.2, 2.8, 2.4, 18.0, 98.0, 2.2, 1.9, 0.3, 1.5, 5.0, 1.0, 3.1, 750.0]}


def edgepack_build(source: Path, *arguments: str, user: tuple[str, ...] = (), **environ: str) -> dict:
    command = [
        *user,
        sys.executable,
        "-c",
        "from edgepack.launch import edgepack; edgepack()",
        "build",
        str(source),
        *arguments,
        "--json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, cwd=source.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    # beside the checkout, not below it: no git history shall decide the image's date
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("real") / "wine-line"))


@pytest.fixture(scope="module")
def built(project) -> dict:
    return edgepack_build(project, "--arch", "x86", "--arch", "arm", "-o", str(project.parent / "both.tar"))


@pytest.fixture(scope="module")
def images(built):
    return {image.platform.architecture: image for image in read_tar(Path(built["path"])).images}


@pytest.fixture(scope="module")
def roots(images, tmp_path_factory) -> dict[str, Path]:
    return {name: unpack(image, tmp_path_factory.mktemp(name)) for name, image in images.items()}


def test_both_images_are_sound_and_small(built):
    assert validate(Tar(Path(built["path"]))) == []
    for image in built["images"]:
        size = sum(layer["size_bytes"] for layer in image["layers"])
        print(f"{image['target']}: {size / 1e6:.1f} MB compressed, built in {image['seconds']} s")
        assert size <= LIMIT
        assert {layer["kind"] for layer in image["layers"]} == {"base", "wheel", "wheels", "agent", "bundle"}


def test_both_architectures_share_the_agent_and_the_bundle(built):
    layers = [{layer["kind"]: layer["digest"] for layer in image["layers"]} for image in built["images"]]
    for kind in ("agent", "bundle"):
        assert layers[0][kind] == layers[1][kind]


# Another user, who may read what root may: Python and the cache lie in places that are root's own.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NOBODY += ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--")


@pytest.fixture
def their_folder() -> Iterator[Path]:
    """A folder at a place that is open to all: pytest's own is the user's alone."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def test_a_build_elsewhere_by_another_user_gives_the_same_digest(project, built, their_folder):
    """Another path, user, umask, time zone, locale and hash seed, every layer made anew; the lock is what both share.

    Without root it is the same user.
    """
    other, cache = their_folder / "wine-line", their_folder / "cache"
    shutil.copytree(project, other)
    cache.mkdir()
    for name in ("debian", "wheels"):  # what was downloaded; all else is made here
        (cache / name).symlink_to(cache_folder(os.environ) / name)
    is_root = os.geteuid() == 0 and shutil.which("setpriv") is not None
    for path in (their_folder, *their_folder.rglob("*")) if is_root else ():
        os.chown(path, 65534, 65534, follow_symlinks=False)
    umask = os.umask(0o077)
    try:
        again = edgepack_build(
            other, "--arch", "arm", "--locked", "-o", str(their_folder / "arm.tar"), user=NOBODY if is_root else (),
            HOME=str(their_folder), TMPDIR=str(their_folder), EDGEPACK_CACHE=str(cache), TZ="Asia/Tokyo",
            PYTHONHASHSEED="7", LC_ALL="de_DE.UTF-8",
        )  # fmt: skip
    finally:
        os.umask(umask)
    assert (their_folder / "arm.tar").stat().st_uid == (65534 if is_root else os.geteuid())
    assert all(not layer["cached"] for layer in again["layers"])
    assert again["digest"] in {each["digest"] for each in built["images"]}


def test_every_program_and_library_is_for_the_images_architecture(roots):
    for name, root in roots.items():
        found = {path: _machine(path) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
        wrong = {path.name for path, machine in found.items() if machine not in (None, MACHINES[name])}
        assert wrong == set()
        assert sum(machine is not None for machine in found.values()) > 100


def test_no_shell_no_pip_no_tests_and_no_trace_of_the_builder(roots):
    machine = socket.gethostname().encode()
    folders = [str(Path.home()).encode() + b"/", str(Path(__file__).parents[2]).encode() + b"/", b"/pytest-of-"]
    for root in roots.values():
        names = {path.name for path in (root / "usr/bin").iterdir()} | {
            path.name for path in (root / "usr/sbin").glob("*")
        }
        assert names == {"python3.11"}
        assert [path.name for path in (root / "usr/local/bin").iterdir()] == ["edgepack-agent"]
        paths = [path.relative_to(root) for path in root.rglob("*")]
        assert [
            path for path in paths if path.name in ("pip", "ensurepip", "tests", "test") and (root / path).is_dir()
        ] == []
        ours = [path for path in (root / "opt").rglob("*") if path.is_file()]
        assert [path.name for path in ours if any(trace in path.read_bytes() for trace in folders)] == []
        assert len(machine) < 6 or [path.name for path in ours if machine in path.read_bytes()] == []


def test_every_source_has_bytecode_that_is_never_checked(roots):
    for root in roots.values():
        for where in ("opt/edgepack/app", "usr/local/lib/python3.11/dist-packages/flask", "usr/lib/python3.11/json"):
            for source in (root / where).rglob("*.py"):
                made = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
                assert made.read_bytes()[4:8] == b"\x01\x00\x00\x00", source  # hash-based, unchecked (PEP 552)


def test_scanners_see_the_packages(roots):
    for root in roots.values():
        status = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
        assert {"libc6", "libssl3", "python3.11-minimal", "tzdata"} <= status
        assert not status & {"dash", "gawk", "mawk", "perl-base", "dpkg"}
        site = root / "usr/local/lib/python3.11/dist-packages"
        assert len(list(site.glob("*.dist-info/METADATA"))) >= 15


def posted(url: str, body: bytes, content_type: str, **headers: str) -> bytes:
    request = urllib.request.Request(f"{url}/infer", body, {"Content-Type": content_type, **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_the_image_for_this_machine_starts_as_its_user_with_a_read_only_root_and_answers(images, roots):
    """In every format: what its libraries were cut down to is enough."""
    reason = why_not_chroot()
    if reason:
        pytest.skip(reason)
    name = host_target().platform.architecture
    table = pyarrow.table({"inputs": pyarrow.array([ROW["inputs"]], pyarrow.list_(pyarrow.float32(), 13))})
    with serving(images[name], roots[name]) as url:
        row = json.loads(posted(url, json.dumps([ROW]).encode(), "application/json; format=pandas-records"))[0]
        for form, new in (("file", pyarrow.ipc.new_file), ("stream", pyarrow.ipc.new_stream)):
            out, media_type = io.BytesIO(), f"application/vnd.apache.arrow.{form}"
            with new(out, table.schema) as writer:
                writer.write_table(table)
            opened = {"file": pyarrow.ipc.open_file, "stream": pyarrow.ipc.open_stream}[form]
            answer = opened(posted(url, out.getvalue(), media_type, Accept=media_type)).read_all()
            assert answer.column("out.probabilities").to_pylist() == [pytest.approx(row["out"]["probabilities"])]
    assert row["in"] == ROW
    assert len(row["out"]["probabilities"]) == 3


def test_the_sizes_of_an_image_name_its_packages_and_its_largest_files(images):
    found = sizes(images["arm64"])
    parts = {each.name: each.packed_bytes for each in found.parts}
    assert {"pyarrow", "numpy", "onnxruntime", "edgepack's agent", "the bundle", "C libraries"} <= set(parts)
    layers = sum(layer.descriptor.size for layer in images["arm64"].layers)
    assert sum(parts.values()) == pytest.approx(layers, rel=0.01)
    assert not any("libparquet" in each.name for each in found.largest), "linked against and not used: it is empty"
    assert found.largest[0].name.partition(".so.")[0].endswith("/pyarrow/libarrow")


def _machine(path: Path) -> int | None:
    with path.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None
