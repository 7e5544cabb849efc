"""The registry as the distribution spec describes it, request by request."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from bundle import media
from bundle.bundle import attach_parity, version_of
from oci.blob import BytesBlob
from oci.credentials import Bearer
from oci.digest import Digest
from oci.image import IMAGE_INDEX, IMAGE_MANIFEST, Image, Index
from oci.layout import Layout
from oci.registry import Registry
from oci.validate import validate
from tests.hub.running import Pusher, small_bundle

BLOB = bytes(range(256)) * 40


def codes(answer: httpx.Response) -> list[str]:
    return [each["code"] for each in answer.json()["errors"]]


def begin(running, repository="box", **query):
    return running.http.post(f"/v2/{repository}/blobs/uploads/", params=query, headers=running.admin)


def parts(running) -> list[Path]:
    return list((running.config.data / "uploads").iterdir())


def test_nobody_gets_in_without_credentials_and_is_told_how(running):
    for path in ("/v2/", "/v2/wine/tags/list", "/v2/wine/manifests/latest", "/v2/wine/blobs/" + Digest.of(b"")):
        answer = running.http.get(path)
        assert answer.status_code == 401 and codes(answer) == ["UNAUTHORIZED"]
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_bearer_and_basic_open_for_admin_and_device(running):
    device = running.device()
    for token in (running.hub.admin_token, device.headers["Authorization"].removeprefix("Bearer ")):
        basic = base64.b64encode(f"anybody:{token}".encode()).decode()
        for header in (f"Bearer {token}", f"Basic {basic}"):
            assert running.http.get("/v2/", headers={"Authorization": header}).status_code == 200
    for header in ("Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(), "Digest x", "Bearer", "Bearer a.b"):
        assert running.http.get("/v2/", headers={"Authorization": header}).status_code == 401


def test_a_device_pulls_and_does_not_push(running, published):
    device = running.device()
    assert device.get("/v2/wine/manifests/latest").status_code == 200
    digest = Digest.of(b"evil")
    for method, path in (
        ("POST", "/v2/wine/blobs/uploads/"),
        ("PUT", "/v2/wine/manifests/latest"),
        ("PATCH", f"/v2/wine/blobs/uploads/{'0' * 32}"),
        ("POST", f"/v2/wine/blobs/uploads/?digest={digest}"),
    ):
        answer = running.http.request(method, path, content=b"evil", headers=device.headers)
        assert answer.status_code == 403 and codes(answer) == ["DENIED"]


def test_a_blob_in_one_request_is_there_under_its_digest(running):
    digest = Digest.of(BLOB)
    answer = running.http.post("/v2/a/b/blobs/uploads/", params={"digest": digest}, content=BLOB, headers=running.admin)
    assert answer.status_code == 201 and answer.headers["Location"] == f"/v2/a/b/blobs/{digest}"
    head = running.http.head(answer.headers["Location"], headers=running.admin)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(BLOB)))
    assert head.headers["Docker-Content-Digest"] == digest and head.content == b""
    assert running.http.get(answer.headers["Location"], headers=running.admin).content == BLOB
    assert parts(running) == []


def test_an_upload_in_pieces_goes_on_where_it_ended(running):
    place = begin(running).headers["Location"]
    for start in range(0, len(BLOB), 4096):
        piece = BLOB[start : start + 4096]
        headers = {**running.admin, "Content-Range": f"{start}-{start + len(piece) - 1}"}
        answer = running.http.patch(place, content=piece, headers=headers)
        assert answer.status_code == 202 and answer.headers["Range"] == f"0-{start + len(piece) - 1}"
        wrong = running.http.patch(place, content=piece, headers={**running.admin, "Content-Range": "0-9"})
        assert wrong.status_code == 416
        status = running.http.get(place, headers=running.admin)
        assert status.status_code == 204 and status.headers["Range"] == answer.headers["Range"]
    done = running.http.put(place, params={"digest": Digest.of(BLOB)}, headers=running.admin)
    assert done.status_code == 201
    assert running.http.get(done.headers["Location"], headers=running.admin).content == BLOB


def test_an_upload_survives_a_restart_of_the_hub(running):
    session = begin(running).headers["Docker-Upload-UUID"]
    place = f"/v2/box/blobs/uploads/{session}"
    running.http.patch(place, content=BLOB[:1000], headers=running.admin)
    running.hub.blobs._open.clear()
    assert running.http.get(place, headers=running.admin).headers["Range"] == "0-999"
    done = running.http.put(place, params={"digest": Digest.of(BLOB)}, content=BLOB[1000:], headers=running.admin)
    assert done.status_code == 201


def test_chunked_transfer_encoding_is_taken(running):
    place = begin(running).headers["Location"]
    pieces = iter([BLOB[:100], BLOB[100:]])
    assert running.http.patch(place, content=pieces, headers=running.admin).status_code == 202
    answer = running.http.put(place, params={"digest": Digest.of(BLOB)}, headers=running.admin)
    assert answer.status_code == 201


def test_wrong_bytes_are_refused_and_leave_nothing(running):
    place = begin(running).headers["Location"]
    answer = running.http.put(place, params={"digest": Digest.of(b"other")}, content=BLOB, headers=running.admin)
    assert answer.status_code == 400 and codes(answer) == ["DIGEST_INVALID"]
    assert parts(running) == [] and not running.hub.blobs.layout.has(Digest.of(b"other"))
    again = running.http.get(place, headers=running.admin)
    assert again.status_code == 404 and codes(again) == ["BLOB_UPLOAD_UNKNOWN"]


def test_a_blob_that_is_here_is_mounted_and_one_that_is_not_begins_an_upload(running):
    digest = Pusher(running).blob("one", BLOB)
    mounted = begin(running, "two", mount=digest, **{"from": "one"})
    assert mounted.status_code == 201 and mounted.headers["Docker-Content-Digest"] == digest
    assert begin(running, "two", mount=Digest.of(b"none"), **{"from": "one"}).status_code == 202


def test_a_cancelled_upload_is_gone(running):
    place = begin(running).headers["Location"]
    assert running.http.delete(place, headers=running.admin).status_code == 204
    assert parts(running) == [] and running.http.get(place, headers=running.admin).status_code == 404


@pytest.mark.parametrize("session", ["x", "0" * 32, "..%2f..%2fhub.sqlite"])
def test_an_unknown_upload_is_unknown(shared, session):
    answer = shared.http.patch(f"/v2/box/blobs/uploads/{session}", content=b"x", headers=shared.admin)
    assert answer.status_code == 404


def test_ranges_are_answered_as_http_says(running):
    digest = Pusher(running).blob("box", BLOB)
    cases = {"bytes=0-9": (0, 10), "bytes=5000-": (5000, len(BLOB)), "bytes=-7": (len(BLOB) - 7, len(BLOB))}
    for asked, (start, stop) in cases.items():
        answer = running.http.get(f"/v2/box/blobs/{digest}", headers={**running.admin, "Range": asked})
        assert answer.status_code == 206 and answer.content == BLOB[start:stop]
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BLOB)}"
    beyond = {**running.admin, "Range": f"bytes={len(BLOB)}-"}
    assert running.http.get(f"/v2/box/blobs/{digest}", headers=beyond).status_code == 416
    other = {**running.admin, "Range": "bytes=0-9", "If-Range": '"sha256:other"'}
    assert running.http.get(f"/v2/box/blobs/{digest}", headers=other).content == BLOB


def test_a_blob_that_is_too_large_is_refused(tmp_path, clock):
    from tests.hub.running import RunningHub

    running = RunningHub(tmp_path / "hub", clock, blob_limit=5000)
    try:
        answer = running.http.post(
            f"/v2/box/blobs/uploads/?digest={Digest.of(BLOB)}", content=BLOB, headers=running.admin
        )
        assert answer.status_code == 413 and codes(answer) == ["SIZE_INVALID"]
    finally:
        running.close()


def test_many_hands_may_push_the_same_blob_at_once(running):
    pusher = Pusher(running)
    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(lambda _: pusher.blob("box", BLOB), range(24)))
    assert digests == {Digest.of(BLOB)} and parts(running) == []


def test_manifests_come_by_tag_and_digest_with_their_type(running, published):
    for reference in ("latest", published.digest):
        answer = running.http.get(f"/v2/wine/manifests/{reference}", headers=running.admin)
        assert answer.content == published.manifest.data
        assert answer.headers["Content-Type"] == IMAGE_INDEX
        assert answer.headers["Docker-Content-Digest"] == published.digest
        assert running.http.head(f"/v2/wine/manifests/{reference}", headers=running.admin).content == b""
    for reference in ("none", "sha256:" + "0" * 64):
        answer = running.http.get(f"/v2/wine/manifests/{reference}", headers=running.admin)
        assert answer.status_code == 404 and codes(answer) == ["MANIFEST_UNKNOWN"]
    other = running.http.get(f"/v2/beer/manifests/{published.digest}", headers=running.admin)
    assert other.status_code == 404


def test_a_manifest_that_names_what_is_not_here_is_refused(running):
    config = BytesBlob.of(b"{}", "application/json")
    image = Image(config, (BytesBlob.of(b"layer", "x/y"),))
    Pusher(running).blob("box", b"{}")
    answer = Pusher(running).manifest("box", "latest", image.manifest.data, IMAGE_MANIFEST)
    assert answer.status_code == 400 and codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    assert Digest.of(b"layer") in answer.text
    index = Index((image,))
    document = index.manifest
    answer = Pusher(running).manifest("box", "latest", document.data, IMAGE_INDEX)
    assert answer.status_code == 400 and codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]


@pytest.mark.parametrize(
    ("data", "media_type", "status"),
    [
        (b"", IMAGE_MANIFEST, 400),
        (b"[]", IMAGE_MANIFEST, 400),
        (b"{", IMAGE_MANIFEST, 400),
        (b'{"schemaVersion":1,"config":{},"layers":[]}', IMAGE_MANIFEST, 400),
        (b'{"schemaVersion":2}', IMAGE_MANIFEST, 400),
        (b'{"schemaVersion":2}', IMAGE_INDEX, 400),
        (b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % IMAGE_MANIFEST.encode(), IMAGE_INDEX, 400),
        (b'{"schemaVersion":2,"manifests":[{"mediaType":"a","size":1,"digest":"../../x"}]}', IMAGE_INDEX, 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_what_is_no_manifest_is_refused(shared, data, media_type, status):
    answer = Pusher(shared).manifest("box", "latest", data, media_type)
    assert answer.status_code == status and answer.json()["errors"][0]["code"] in ("MANIFEST_INVALID", "DIGEST_INVALID")


def test_a_manifest_larger_than_the_limit_is_refused(shared):
    assert Pusher(shared).manifest("box", "latest", b" " * ((4 << 20) + 1), IMAGE_MANIFEST).status_code == 413


def test_a_manifest_under_another_digest_is_refused(running, published):
    data = published.images[0].manifest.data
    answer = Pusher(running).manifest("wine", Digest.of(b"x"), data, IMAGE_MANIFEST)
    assert answer.status_code == 400 and codes(answer) == ["DIGEST_INVALID"]


@pytest.mark.parametrize(
    "path", ["/v2/UPPER/tags/list", "/v2/a//b/tags/list", "/v2/a..b/tags/list", "/v2/-a/tags/list"]
)
def test_a_name_that_the_spec_does_not_know_is_refused(shared, path):
    assert shared.http.get(path, headers=shared.admin).status_code in (400, 404)


def test_tags_are_listed_in_order_and_in_pages(running, published):
    for tag in ("b", "a", "C"):
        Pusher(running).manifest("wine", tag, published.manifest.data, IMAGE_INDEX)
    answer = running.http.get("/v2/wine/tags/list", headers=running.admin)
    assert answer.json() == {"name": "wine", "tags": ["C", "a", "b", "latest"]}
    seen, path = [], "/v2/wine/tags/list?n=3"
    while path:
        page = running.http.get(path, headers=running.admin)
        seen.append(page.json()["tags"])
        path = page.headers.get("Link", "").partition(">")[0][1:]
    assert seen == [["C", "a", "b"], ["latest"]]
    unknown = running.http.get("/v2/none/tags/list", headers=running.admin)
    assert unknown.status_code == 404 and codes(unknown) == ["NAME_UNKNOWN"]


def test_referrers_are_listed_by_subject_and_type(running, published):
    subject = published.images[0]
    report = attach_parity(subject, b'{"rows":1}')
    answer = Pusher(running).image("wine", report)
    assert answer.headers["OCI-Subject"] == subject.digest
    path = f"/v2/wine/referrers/{subject.digest}"
    listed = running.http.get(path, headers=running.admin)
    assert listed.headers["Content-Type"] == IMAGE_INDEX
    (found,) = listed.json()["manifests"]
    assert (found["digest"], found["artifactType"]) == (report.digest, media.PARITY)
    filtered = running.http.get(path, params={"artifactType": "x/y"}, headers=running.admin)
    assert filtered.json()["manifests"] == [] and filtered.headers["OCI-Filters-Applied"] == "artifactType"
    nothing = running.http.get(f"/v2/wine/referrers/{Digest.of(b'')}", headers=running.admin)
    assert nothing.status_code == 200 and nothing.json()["manifests"] == []


def test_a_pushed_pipeline_is_published_with_its_version(running, published):
    (view,) = running.http.get("/api/v1/pipelines", headers=running.admin).json()["pipelines"]
    assert view["pipeline"] == "wine" and view["index"] == published.digest
    assert view["version"] == version_of(published.digest) and view["published_at"] == running.clock.now
    assert sorted(view["manifests"]) == ["arm/none", "x86/none"]


def test_the_version_that_was_published_last_is_the_newest(running, tmp_path):
    one, two = (small_bundle(tmp_path / "b", weight=weight) for weight in (b"one", b"two"))
    for index in (one, two, one):
        Pusher(running).publish(index)
        running.clock.now += 1
    listed = running.http.get("/api/v1/pipelines", headers=running.admin).json()["pipelines"]
    assert [view["index"] for view in listed] == [one.digest, two.digest]


def test_an_index_that_is_pushed_by_digest_is_not_published(running, tmp_path):
    index = small_bundle(tmp_path / "b")
    assert Pusher(running).publish(index, index.digest).status_code == 201
    assert running.http.get("/api/v1/pipelines", headers=running.admin).json() == {"pipelines": []}


def test_a_pipeline_in_a_repository_of_another_name_is_refused(running, tmp_path):
    index = small_bundle(tmp_path / "b", "wine")
    pusher = Pusher(running)
    for image in index.images:
        pusher.image("beer", image)
    answer = pusher.manifest("beer", "latest", index.manifest.data, IMAGE_INDEX)
    assert answer.status_code == 400 and "'beer'" in answer.text and "'wine'" in answer.text
    assert running.http.get("/v2/beer/manifests/latest", headers=running.admin).status_code == 404


def test_our_own_client_pushes_and_pulls_and_the_layout_is_right(running, tmp_path):
    index = small_bundle(tmp_path / "b", weight=b"w" * 3_000_000)
    host = running.url.removeprefix("http://")
    with Registry(host, Bearer(running.hub.admin_token)) as registry:
        assert registry.push_index("wine", "v1", index) == index.digest
        pulled = registry.pull_index("wine", "v1", tmp_path / "pulled")
    assert pulled.digest == index.digest
    assert validate(Layout(tmp_path / "pulled")) == []
    kept = json.loads((running.config.data / "registry" / "index.json").read_bytes())
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in kept["manifests"]] == ["wine:v1"]
    assert validate(Layout(running.config.data / "registry")) == []
