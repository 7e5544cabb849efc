from __future__ import annotations

import hashlib
import stat

import msgspec
import pytest

from arch.target import Target, host_target
from bundle import media
from bundle.bundle import bundles
from edge_agent.link.fetch import Fetcher, NoRoom, check_manifest, fits
from edge_agent.link.trust import DigestsOnly
from edgepack.errors import BadInput, NotTrusted, Unreachable
from fleet.messages import Assigned
from oci.credentials import Bearer
from oci.image import IMAGE_MANIFEST, parse_manifest
from oci.registry import Registry
from tests.edge_agent.real_hub import assigned, enrolled_folder, make_bundle
from tests.fakes.hub import LyingHub

PADDING = 3 << 20


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """A bundle with a blob of 3 MiB, and one that shares this blob."""
    folder = tmp_path_factory.mktemp("bundles")
    made = [make_bundle(folder, factor=factor, padding=PADDING) for factor in (2.0, 3.0)]
    for index in made:
        hub.publish(index)
    return made


@pytest.fixture
def registry(hub, link, tmp_path):
    from edge_agent.link.enrol import bearer_of

    others, enrolled = enrolled_folder(hub, tmp_path / "identity")
    credentials = Bearer(bearer_of(others.identity, enrolled))
    with Registry(link.url.removeprefix("http://"), credentials, attempts=2, sleep=lambda wait_s: None) as registry:
        yield registry


@pytest.fixture
def fetcher(folders, registry):
    return Fetcher(folders, registry, host_target(), DigestsOnly())


def blobs_in(folders):
    return {path.name for path in folders.blobs.iterdir()}


def test_a_bundle_comes_whole_and_each_blob_has_its_digest(published, fetcher, folders):
    bundle = fetcher.fetch("demo", assigned(published[0]))
    assert bundle.digest == assigned(published[0]).manifest
    for path in folders.blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    read_only = [path for path in folders.blobs.iterdir() if stat.S_IMODE(path.stat().st_mode) == 0o444]
    assert len(read_only) == len(list(bundle.image.blobs()))


def test_only_what_is_missing_is_fetched(published, fetcher, link):
    fetcher.fetch("demo", assigned(published[0]))
    before = link.answered_bytes
    fetcher.fetch("demo", assigned(published[1]))
    assert link.answered_bytes - before < 20_000
    fetcher.fetch("demo", assigned(published[1]))


def test_a_cut_in_the_middle_of_a_blob_resumes_where_it_was(published, fetcher, link):
    link.cut_each(*[PADDING // 4] * 5)
    bundle = fetcher.fetch("demo", assigned(published[0]))
    assert link.answered_bytes <= bundle.size_bytes * 1.05


def test_what_came_before_an_outage_is_not_fetched_again_by_another_process(published, folders, registry, link):
    link.cut_each(*[PADDING // 2] * 2, *[0] * 30)
    with pytest.raises(Unreachable):
        Fetcher(folders, registry, host_target(), DigestsOnly()).fetch("demo", assigned(published[0]))
    assert any(name.endswith(".part") for name in blobs_in(folders))
    link.cut_each()
    bundle = Fetcher(folders, registry, host_target(), DigestsOnly()).fetch("demo", assigned(published[0]))
    assert link.answered_bytes <= bundle.size_bytes * 1.05
    assert not any(name.endswith(".part") for name in blobs_in(folders))


def test_no_room_is_noticed_before_the_first_byte(published, folders, registry, link):
    registry.pull_manifest("demo", assigned(published[0]).manifest)
    before = link.answered_bytes
    full = Fetcher(
        folders, registry, host_target(), DigestsOnly(), reserve_bytes=10 << 20, free_bytes=lambda _: 12 << 20
    )
    with pytest.raises(NoRoom, match="in reserve"):
        full.fetch("demo", assigned(published[0]))
    assert link.answered_bytes - before < 5_000
    assert blobs_in(folders) == set()


def test_a_manifest_that_the_hub_lacks_may_come_later(published, fetcher):
    with pytest.raises(Unreachable):
        fetcher.fetch("demo", Assigned("sha256:" + "0" * 64, published[0].digest, "demo"))


def test_a_bundle_assigned_under_another_name_is_refused(published, fetcher, folders):
    with pytest.raises(NotTrusted, match="it is pipeline 'demo'"):
        fetcher.fetch("other", assigned(published[0]))
    assert blobs_in(folders) == set()


def bytes_of(blob):
    with blob.open() as file:
        return file.read()


def lying_registry(image, **changes):
    """A registry that has an image, but other bytes for some digests."""
    blobs = {blob.descriptor.digest: bytes_of(blob) for blob in image.blobs()}
    blobs[image.digest] = image.manifest.data
    blobs.update(changes)

    def tell(method, path, body):
        digest = path.rpartition("/")[2]
        data = blobs.get(digest)
        return (404, {}, b"{}") if data is None else (200, {"Content-Type": IMAGE_MANIFEST}, data)

    return LyingHub(tell)


def fetch_from(hub, folders, index, target=None):
    try:
        with Registry(hub.url.removeprefix("http://"), attempts=1) as registry:
            return Fetcher(folders, registry, target or host_target(), DigestsOnly()).fetch("demo", assigned(index))
    finally:
        hub.close()


def test_wrong_bytes_of_the_right_length_are_refused_and_not_kept(folders, tmp_path):
    index = make_bundle(tmp_path / "b")
    blob = bundles(index)[0].blobs["linear.onnx"]
    wrong = bytearray(bytes_of(blob))
    wrong[20] ^= 1
    with pytest.raises(NotTrusted, match="refused and deleted"):
        fetch_from(lying_registry(index.images[0], **{blob.descriptor.digest: bytes(wrong)}), folders, index)
    assert blob.descriptor.digest[7:] not in {name.partition(".")[0] for name in blobs_in(folders)}


def test_endless_bytes_are_refused(folders, tmp_path):
    index = make_bundle(tmp_path / "b")
    blob = bundles(index)[0].blobs["linear.onnx"]
    with pytest.raises(NotTrusted):
        fetch_from(lying_registry(index.images[0], **{blob.descriptor.digest: bytes(1 << 20)}), folders, index)


def test_another_manifest_than_the_assigned_one_is_refused(folders, tmp_path):
    one, two = make_bundle(tmp_path / "b"), make_bundle(tmp_path / "b", factor=3.0)
    lie = {one.images[0].digest: two.images[0].manifest.data}
    with pytest.raises(NotTrusted):
        fetch_from(lying_registry(two.images[0], **lie), folders, one)
    assert blobs_in(folders) == set()


def test_a_blob_that_rotted_on_this_disk_is_fetched_again(published, fetcher, folders):
    version = assigned(published[0])
    blob = fetcher.fetch("demo", version).blobs["linear.onnx"].descriptor
    path = folders.blobs / blob.digest[7:]
    path.chmod(0o644)
    path.write_bytes(bytes(blob.size))
    fetcher.discard_damaged(version.manifest)
    assert not path.exists()
    fetcher.fetch("demo", version)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def manifest_of(index, **changes):
    document = parse_manifest(index.images[0].manifest.data, index.images[0].digest)
    return msgspec.structs.replace(document, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"artifact_type": "application/x-other"}, "artifact type"),
        ({"annotations": {media.NAME: "demo", media.TARGET: "arm/quantum"}}, "target 'arm/quantum'"),
        ({"annotations": {media.TARGET: str(host_target())}}, "it is pipeline 'None'"),
        ({"annotations": {}}, "target 'None'"),
    ],
)
def test_what_a_manifest_says_decides_before_any_blob(tmp_path, changes, reason):
    index = make_bundle(tmp_path)
    with pytest.raises(NotTrusted, match=reason):
        check_manifest(manifest_of(index, **changes), "demo", host_target())
    check_manifest(manifest_of(index), "demo", host_target())


def test_blobs_of_an_unknown_kind_or_absurd_size_are_refused(tmp_path):
    index = make_bundle(tmp_path)
    layers = manifest_of(index).layers
    odd = [msgspec.structs.replace(layers[0], media_type="application/x-shellscript"), *layers[1:]]
    with pytest.raises(NotTrusted, match="application/x-shellscript"):
        check_manifest(manifest_of(index, layers=odd), "demo", host_target())
    huge = msgspec.structs.replace(manifest_of(index).config, size=1 << 40)
    with pytest.raises(NotTrusted, match="its spec is"):
        check_manifest(manifest_of(index, config=huge), "demo", host_target())


def test_a_bundle_fits_its_own_target_only():
    assert fits("arm", Target("arm"))
    assert not fits("x86/none", Target("arm"))
    assert not fits("", Target("arm"))


def test_what_does_not_fit_the_machine_is_refused_before_its_files_come(published, folders, registry, link):
    registry.pull_manifest("demo", assigned(published[0]).manifest)
    before = link.answered_bytes
    asked = []

    def objections(spec, size_bytes):
        asked.append((spec.name, size_bytes))
        return ["it is too large", "it has no card"]

    fetcher = Fetcher(folders, registry, host_target(), DigestsOnly(), objections=objections)
    for _ in range(2):
        with pytest.raises(BadInput, match="pipeline 'demo' does not fit this device: it is too large; it has no card"):
            fetcher.fetch("demo", assigned(published[0]))
    assert link.answered_bytes - before < 10_000
    assert asked[0][0] == "demo" and asked[0][1] > PADDING
