"""A foreign client against the registry: skopeo copies in and out without losing a byte."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest

from bundle.bundle import version_of
from oci.blob import BytesBlob
from oci.digest import Digest
from oci.image import EMPTY_CONFIG, Image, Index
from oci.layout import Layout, write_layout
from oci.validate import validate
from tests.hub.running import Clock, Pusher, RunningHub, small_bundle

pytestmark = pytest.mark.skipif(
    shutil.which("skopeo") is None, reason="skopeo is not installed: apt-get install skopeo"
)


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def place(running, repository: str) -> str:
    return f"docker://{running.url.removeprefix('http://')}/{repository}"


def test_skopeo_copies_a_published_index_out_and_in_again(running, published, tmp_path):
    """skopeo 1.9 writes an index anew, without its artifact type; the manifests it leaves as they are."""
    device = running.device()
    secret = device.headers["Authorization"].removeprefix("Bearer ")
    out = ("--src-tls-verify=false", "--src-creds", f"{device.id}:{secret}")
    skopeo("copy", "--all", *out, place(running, "wine:latest"), f"oci:{tmp_path}/out:x")
    layout = Layout(tmp_path / "out")
    assert validate(layout) == []
    assert [image.digest for image in layout.index("x").images] == [image.digest for image in published.images]
    admin = ("--dest-tls-verify=false", "--dest-creds", f"admin:{running.hub.admin_token}")
    skopeo("copy", "--all", *admin, f"oci:{tmp_path}/out:x", place(running, "mirror/wine:v1"))
    for image in published.images:
        answer = device.get(f"/v2/mirror/wine/manifests/{image.digest}")
        assert answer.content == image.manifest.data
    assert len(running.http.get("/api/v1/pipelines", headers=running.admin).json()["pipelines"]) == 1


def test_a_bundle_that_skopeo_carries_to_another_hub_is_published_and_deployed_there(running, published, tmp_path):
    """From one hub to the next by way of a folder: what skopeo writes anew is a version under its own digest."""
    admin = f"admin:{running.hub.admin_token}"
    skopeo(
        *("copy", "--all", "--src-tls-verify=false", "--src-creds", admin),
        *(place(running, "wine:latest"), f"oci:{tmp_path}/out:x"),
    )
    with contextlib.closing(RunningHub(tmp_path / "second", Clock())) as second:
        into = ("--dest-tls-verify=false", "--dest-creds", f"admin:{second.hub.admin_token}")
        skopeo("copy", "--all", *into, f"oci:{tmp_path}/out:x", place(second, "wine:v1"))
        (view,) = second.http.get("/api/v1/pipelines", headers=second.admin).json()["pipelines"]
        stored = second.http.get("/v2/wine/manifests/v1", headers=second.admin)
        assert view["index"] == Digest.of(stored.content) and view["version"] == version_of(view["index"])
        assert sorted(view["manifests"].values()) == sorted(image.digest for image in published.images)
        device = second.device()
        asked = {"pipelines": {"wine": view["index"]}}
        answer = second.http.put(f"/api/v1/assignments/{device.name}", json=asked, headers=second.admin)
        assert answer.status_code == 200
        assert answer.json()["pipelines"]["wine"]["manifest"] == view["manifests"]["x86/none"]


def test_an_index_without_type_is_published_only_where_all_in_it_is_a_bundle_of_that_name(running, tmp_path):
    pusher, bundle = Pusher(running), small_bundle(tmp_path / "b")
    other = small_bundle(tmp_path / "b", "beer").images[0]
    plain = Image(BytesBlob.of(b"{}", EMPTY_CONFIG), (), "application/vnd.example")
    for images in ((*bundle.images, plain), (*bundle.images, other), ()):
        for image in images:
            assert pusher.image("wine", image).status_code == 201
        index = Index(tuple(images)).manifest
        assert pusher.manifest("wine", "v1", index.data, index.descriptor.media_type).status_code == 201
    assert running.http.get("/api/v1/pipelines", headers=running.admin).json()["pipelines"] == []


def test_skopeo_copies_one_image_in_and_out_with_its_digest(running, tmp_path):
    image = small_bundle(tmp_path / "b", targets=("x86",), weight=b"w" * 200_000).images[0]
    write_layout(Index((image,)), tmp_path / "in", "v1")
    admin = f"admin:{running.hub.admin_token}"
    keep = ("copy", "--preserve-digests")
    into = ("--dest-tls-verify=false", "--dest-creds", admin)
    skopeo(*keep, *into, f"oci:{tmp_path}/in", place(running, "box:v1"))
    skopeo(*keep, "--src-tls-verify=false", "--src-creds", admin, place(running, "box:v1"), f"oci:{tmp_path}/out:x")
    assert Layout(tmp_path / "out").index("x").images[0].digest == image.digest


def test_skopeo_is_refused_with_a_wrong_password(running):
    there = f"docker://{running.url.removeprefix('http://')}/wine:v1"
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--creds", "admin:wrong", there],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode != 0 and "unauthorized" in done.stderr.lower()
