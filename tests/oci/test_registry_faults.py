"""What a registry, a network or somebody between may do to us; the fake shows what a real registry cannot on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from edgepack.errors import BadInput, EdgepackError, NotTrusted, Unreachable
from examples.demo.programs import free_port
from oci import Blob, BytesBlob, Index
from oci.credentials import Basic, Bearer
from oci.layout import Layout
from oci.registry import Registry
from tests.certificates import make_certificate
from tests.fakes.dripping import ANSWERS, dripping
from tests.fakes.registry import FakeRegistry, Lies
from tests.oci.conftest import Place
from tests.oci.make_images import ONE, TWO, image

DATA = os.urandom(400_000)
BLOB = BytesBlob.of(DATA, "text/plain")
LARGE = BytesBlob.of(DATA * 50, "text/plain")  # 20 MB: three chunks
SECRET = "correct horse"


@pytest.fixture
def fake():
    with FakeRegistry() as running:
        running.blobs["a", BLOB.descriptor.digest] = DATA
        yield running


def client(fake: FakeRegistry, auth=None, **settings) -> Registry:
    return Registry(fake.host, auth, **{"sleep": lambda seconds: None, **settings})


def pull(fake: FakeRegistry, folder, blob: Blob = BLOB, **settings) -> bytes:
    with client(fake, **settings) as registry:
        return registry.pull_blob("a", blob.descriptor, folder / "blob").path.read_bytes()


def nothing_is_left(folder) -> bool:
    return not (folder / "blob").exists() and not (folder / "blob.part").exists()


# --- pull: the network


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_drips_is_given_up(answer, tmp_path):
    with dripping(ANSWERS[answer]) as host, Registry(host, attempts=1, answer_s=0.1) as registry:
        with pytest.raises(Unreachable, match="did not answer: it took too long"):
            registry.pull_manifest("a", "latest")
        with pytest.raises(Unreachable, match="did not answer: it took too long"):
            registry.pull_blob("a", BLOB.descriptor, tmp_path / "blob")


@pytest.mark.parametrize(
    "lies",
    [
        Lies(cut_after=150_000),
        Lies(cut_after=150_000, cuts=2, ignore_range=True),
        Lies(cut_after=150_000, cuts=2, refuse_range=True),
        Lies(cut_after=150_000, cuts=2, shift_range=True),
        Lies(fail_first=3),
        Lies(fail_first=2, fail_status=429, retry_after="1"),
        Lies(fail_first=1, cut_after=399_999, cuts=3),
    ],
    ids=["cut", "cut, range ignored", "cut, 416", "cut, other range", "500 first", "429 first", "500, then cuts"],
)
def test_a_blob_comes_whole_over_a_bad_link(fake, tmp_path, lies):
    fake.lies = lies
    assert pull(fake, tmp_path) == DATA


def test_a_cut_pull_goes_on_with_a_closed_range_where_it_stopped(fake, tmp_path):
    fake.lies = Lies(cut_after=150_000)
    pull(fake, tmp_path)
    ranges = [headers.get("Range") for headers in fake.asked("GET", "/blobs/")]
    assert ranges == [None, "bytes=150000-399999", "bytes=300000-399999"]


def test_a_link_that_never_brings_more_is_unreachable_and_the_part_is_kept(fake, tmp_path):
    fake.lies = Lies(cut_after=150_000, ignore_range=True)
    with pytest.raises(Unreachable, match=f"registry '{fake.host}' did not answer"):
        pull(fake, tmp_path)
    fake.lies = Lies()
    assert (tmp_path / "blob.part").stat().st_size == 150_000
    assert pull(fake, tmp_path) == DATA
    assert fake.asked("GET", "/blobs/")[-1]["Range"] == "bytes=150000-399999"


def test_a_registry_that_is_not_there_is_unreachable(tmp_path):
    host = f"127.0.0.1:{free_port()}"
    waits: list[float] = []
    registry = Registry(host, attempts=4, sleep=waits.append)
    with pytest.raises(Unreachable, match=r"did not answer: no connection \(tried 4 times\)"):
        registry.has_blob("a", BLOB.descriptor.digest)
    assert len(waits) == 3
    assert waits[0] < 0.6 < waits[2] < 2.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_says_when_to_come_back_is_not_asked_before(fake, tmp_path, status):
    fake.lies = Lies(fail_first=1, fail_status=status, retry_after="120")
    with pytest.raises(Unreachable, match=f"answers {status} for 'a/blobs/.*; try again in 120 s") as caught:
        pull(fake, tmp_path)
    assert caught.value.retry_after_s == 120
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("seconds", "waits"), [(14, (1, 15)), (-3600, (0, 1)), (None, (0, 1))], ids=["soon", "past", "no date"]
)
def test_a_date_to_come_back_at_counts_from_the_registrys_own_clock(fake, tmp_path, seconds, waits):
    at = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds or 0), usegmt=True)
    fake.lies = Lies(fail_first=1, fail_status=429, retry_after="never" if seconds is None else at)
    slept: list[float] = []
    assert pull(fake, tmp_path, sleep=slept.append) == DATA
    assert waits[0] <= slept[0] <= waits[1]


@pytest.mark.parametrize(("status", "error"), [(503, Unreachable), (400, BadInput), (507, Unreachable)])
def test_what_a_registry_says_is_told_in_one_line_without_secrets(fake, tmp_path, status, error):
    says = f"no\nmore \x1b[31m for {SECRET} at https://store.example/x?sig=abc " + "x" * 1000
    fake.lies = Lies(fail_first=9, fail_status=status, fail_says=says)
    with pytest.raises(error) as caught:
        pull(fake, tmp_path, auth=Bearer(SECRET))
    told = str(caught.value)
    assert f"{status}" in told and "(TOOMANYREQUESTS): no more ?[31m for … at https://store.example/x xxx" in told
    assert len(told) < 500 and "sig=abc" not in told and "\n" not in told


def test_a_registry_without_room_is_not_asked_again(fake):
    waits: list[float] = []
    with Registry(fake.host, sleep=waits.append) as registry:
        assert not registry.has_blob("a", LARGE.descriptor.digest)
        fake.lies = Lies(fail_first=9, fail_status=507, fail_says="the disk is full")
        with pytest.raises(Unreachable, match=f"registry '{fake.host}' answers 507"):
            registry.push_blob("a", LARGE)
    assert waits == [] and len(fake.requests) == 2


@pytest.mark.parametrize(
    ("auth", "hint"), [(None, "docker login"), (Basic("u", "wrong"), "docker login"), (Bearer("wrong"), "")]
)
def test_a_refusal_says_how_to_log_in(fake, tmp_path, auth, hint):
    fake.user = ("u", SECRET)
    with pytest.raises(BadInput, match=r"give \(other\) credentials") as caught:
        pull(fake, tmp_path, auth=auth)
    assert str(caught.value).endswith(f": `{hint} {fake.host}`" if hint else "credentials")


# --- pull: lies


@pytest.mark.parametrize(
    ("lies", "says"),
    [
        (Lies(wrong_bytes=True), "has the digest sha256:"),
        (Lies(endless=True), "is longer than the 400000 bytes"),
        (Lies(wrong_length=True), "is 400001 bytes at the registry"),
        (Lies(wrong_bytes=True, cut_after=100_000), "has the digest sha256:"),
    ],
    ids=["wrong bytes", "endless", "another length", "wrong bytes after cuts"],
)
def test_wrong_bytes_are_refused_and_deleted(fake, tmp_path, lies, says):
    fake.lies = lies
    with pytest.raises(NotTrusted, match=f"blob {BLOB.descriptor.digest} {says}"):
        pull(fake, tmp_path)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("lies", "says"),
    [(Lies(large_manifests=True), "more than 4194304 bytes"), (Lies(wrong_manifests=True), "for the manifest sha256:")],
)
def test_a_manifest_that_is_too_large_or_another_is_refused(fake, lies, says):
    with client(fake) as registry:
        registry.push_index("a", "v1", ONE)
        fake.lies = lies
        for pointer in ("v1", ONE.images[0].digest):
            with pytest.raises(NotTrusted, match=says):
                registry.pull_manifest("a", pointer)


def test_one_bad_blob_stops_the_pull_of_an_index_and_names_itself(fake, tmp_path):
    with client(fake) as registry:
        registry.push_index("a", "v1", TWO)
        bad = TWO.images[1].layers[1].descriptor
        fake.blobs["a", bad.digest] = bytes(bad.size)
        with pytest.raises(NotTrusted, match=bad.digest):
            registry.pull_index("a", "v1", tmp_path)
    assert not (tmp_path / "index.json").exists()
    assert not Layout(tmp_path).has(bad.digest)


# --- redirects


@pytest.mark.parametrize("auth", [Basic("u", SECRET), Bearer(SECRET)])
def test_a_redirect_to_another_host_is_followed_without_credentials(fake, tmp_path, auth):
    fake.user = ("u", SECRET)
    fake.token = SECRET if isinstance(auth, Bearer) else None
    with FakeRegistry(blobs=dict(fake.blobs)) as store:
        fake.lies = Lies(redirect_blobs_to=f"http://{store.host}")
        assert pull(fake, tmp_path, auth=auth) == DATA
        assert all("Authorization" not in headers for headers in store.asked("GET"))
        assert "Authorization" in fake.asked("GET", "/blobs/")[-1]


@pytest.mark.parametrize("target", ["file:///etc", "http://user:pw@other.example", "http://[::1", "http://a:port"])
def test_a_redirect_to_where_it_must_not_lead_is_refused(fake, tmp_path, target):
    fake.lies = Lies(redirect_blobs_to=target)
    with pytest.raises(NotTrusted, match=r"redirects to|no URL") as caught:
        pull(fake, tmp_path)
    assert "pw" not in str(caught.value)
    assert "signature" not in str(caught.value)


def test_a_redirect_in_a_circle_ends(fake, tmp_path):
    fake.lies = Lies(redirect_blobs_to=f"http://{fake.host}")
    with pytest.raises(NotTrusted, match="redirects without end"):
        pull(fake, tmp_path)


def test_an_upload_that_is_sent_to_another_host_gets_nothing(fake):
    with FakeRegistry() as other, client(fake, Bearer(SECRET)) as registry:
        for place in (f"http://{other.host}", f"https://{fake.host}", "http://[::1"):
            fake.lies = Lies(upload_to=place)
            with pytest.raises(NotTrusted, match=r"sends an upload to|no URL"):
                registry.push_blob("b", BLOB)
        assert other.requests == []


# --- push


@pytest.mark.parametrize("lies", [Lies(cut_uploads=2), Lies(cut_uploads=1, forget_uploads=True), Lies(fail_first=3)])
def test_a_push_over_a_bad_link_arrives_whole(fake, lies):
    fake.lies = lies
    with client(fake) as registry:
        registry.push_blob("b", LARGE)
    assert fake.blobs["b", LARGE.descriptor.digest] == LARGE.data


def test_a_cut_push_goes_on_where_the_registry_stopped(fake):
    fake.lies = Lies(cut_uploads=1)
    with client(fake) as registry:
        registry.push_blob("b", LARGE)
    half = (8 << 20) // 2
    begun = [headers["Content-Range"].partition("-")[0] for headers in fake.asked("PATCH")]
    assert begun[:2] == ["0", str(half)]
    assert len(fake.asked("POST")) == 1


def test_a_push_that_never_gets_through_is_unreachable(fake):
    fake.lies = Lies(cut_uploads=1_000, forget_uploads=True)
    with client(fake, attempts=3) as registry, pytest.raises(Unreachable):
        registry.push_blob("b", LARGE)


def test_a_blob_that_is_there_is_not_sent_again(fake):
    with client(fake) as registry:
        registry.push_blob("a", BLOB)
    assert [method for method, _, _ in fake.requests] == ["HEAD"]


def test_a_mounted_blob_sends_no_bytes(fake):
    with client(fake) as registry:
        registry.push_blob("b", BLOB, mount_from="a")
    assert [method for method, _, _ in fake.requests] == ["HEAD", "POST"]
    assert fake.blobs["b", BLOB.descriptor.digest] == DATA


# --- who asks


def test_a_token_is_fetched_with_the_password_and_used_from_then_on(fake, tmp_path):
    fake.user, fake.token = ("u", SECRET), "fetched"
    with client(fake, Basic("u", SECRET)) as registry:
        registry.push_index("b", "v1", Index((image(),)))
        registry.pull_index("b", "v1", tmp_path)
    assert 1 <= len(fake.asked("GET", "/token")) <= 8  # one a scope, but four threads may ask at once
    assert {headers.get("Authorization", "none").partition(" ")[0] for headers in fake.asked("HEAD")} <= {
        "Bearer",
        "none",
    }


def test_an_anonymous_token_is_fetched_where_the_registry_asks_for_one(fake, tmp_path):
    fake.token = "for anybody"
    assert pull(fake, tmp_path) == DATA


@pytest.mark.parametrize("auth", [None, Basic("u", "wrong " + SECRET), Bearer("wrong " + SECRET)])
@pytest.mark.parametrize("token", [None, "t"])
def test_wrong_credentials_are_refused_and_not_repeated(fake, tmp_path, auth, token):
    fake.user, fake.token = ("u", SECRET), token
    with pytest.raises(BadInput, match="credentials") as caught:
        pull(fake, tmp_path, auth=auth)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    assert SECRET not in repr(auth)


def test_the_password_does_not_go_to_a_token_server_on_another_host_without_tls(fake, tmp_path):
    fake.user, fake.token, fake.realm = ("u", SECRET), "t", "http://tokens.example/token"
    with pytest.raises(NotTrusted, match=r"for a token to 'tokens.example' without TLS"):
        pull(fake, tmp_path, auth=Basic("u", SECRET))


def test_a_real_registry_with_passwords_lets_the_right_one_in(guarded: Place, tmp_path):
    right = Place(guarded.host, Basic("publisher", SECRET))
    with right.client() as registry:
        registry.push_index("a", "v1", ONE)
        assert registry.pull_index("a", "v1", tmp_path).entry.data == ONE.entry.data
    for auth in (None, Basic("publisher", "wrong"), Bearer(SECRET)):
        with Place(guarded.host, auth).client() as registry, pytest.raises(BadInput, match="credentials"):
            registry.pull_manifest("a", "v1")


def test_http_is_spoken_to_this_machine_alone_unless_asked():
    assert Registry("127.0.0.1:5000")._session.origin == "http://127.0.0.1:5000"
    assert Registry("registry.example")._session.origin == "https://registry.example"
    assert Registry("registry.example", plain_http=True)._session.origin == "http://registry.example"


@pytest.mark.parametrize("repository", ["../x", "A", "", "a/../b", "a?b", "a b"])
def test_a_name_that_is_no_repository_reaches_no_registry(fake, repository):
    with client(fake) as registry, pytest.raises(EdgepackError):
        registry.pull_manifest(repository, "v1")
    assert fake.requests == []


def test_a_name_that_nobody_knows_is_said_so():
    with pytest.raises(Unreachable, match="its name is not known"):
        Registry("no-such-host.invalid", sleep=lambda seconds: None).has_blob("a", BLOB.descriptor.digest)


# --- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> list[Path]:
    """Two certificates for 127.0.0.1, each its own CA."""
    folder, made = tmp_path_factory.mktemp("tls"), []
    for name in ("1", "2"):
        cert, key = make_certificate(folder, name)
        cert.write_text(cert.read_text() + key.read_text())
        made.append(cert)
    return made


@pytest.fixture
def secured(certificates) -> Iterator[FakeRegistry]:
    with FakeRegistry(certificate=certificates[0], blobs={("a", BLOB.descriptor.digest): DATA}) as running:
        yield running


def test_a_registry_with_a_certificate_of_a_known_ca_is_taken(secured, certificates, tmp_path):
    assert pull(secured, tmp_path, ca_file=certificates[0]) == DATA


def test_a_registry_with_another_certificate_or_none_is_refused_before_anything_is_sent(
    secured, fake, certificates, tmp_path
):
    for place, ca_file in ((secured, certificates[1]), (fake, certificates[0])):
        with pytest.raises(NotTrusted, match=f"TLS with registry '{place.host}' failed"):
            pull(place, tmp_path, auth=Bearer(SECRET), ca_file=ca_file)
        assert place.requests == []


def test_tls_is_not_left_by_a_redirect_nor_for_a_token(secured, fake, certificates, tmp_path):
    secured.lies = Lies(redirect_blobs_to=f"http://{fake.host}")
    with pytest.raises(NotTrusted, match="redirects to http://"):
        pull(secured, tmp_path, ca_file=certificates[0])
    secured.lies, secured.user, secured.token = Lies(), ("u", SECRET), "t"
    secured.realm = f"http://{fake.host}/token"
    with pytest.raises(NotTrusted, match="without TLS"):
        pull(secured, tmp_path, auth=Basic("u", SECRET), ca_file=certificates[0])
    assert fake.requests == []
